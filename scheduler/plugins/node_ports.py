"""NodePorts: two pods of one node cannot have the same host port."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.framework.plugin import NODE_ADDED, POD_GONE, CycleState, Event, Plugin, Reach, Refusal
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo

ANY = "0.0.0.0"


class NodePorts(Plugin):
    name = "NodePorts"
    reads = NOTHING_ELSE
    events = frozenset({NODE_ADDED, POD_GONE})

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.ITS_NODE if pod.host_ports else Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def helps(self, event: Event, pod: PodInfo, table: NodeTable) -> bool:
        if event.kind != POD_GONE or event.pod is None:
            return True
        freed = {port[:2] for port in event.pod.host_ports}
        return any(port[:2] in freed for port in pod.host_ports)

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        if not pod.host_ports:
            return ()
        conflicts = np.zeros(table.size, bool)
        for protocol, port, address in pod.host_ports:
            for row, addresses in table.ports.get((protocol, port), {}).items():
                if address == ANY or ANY in addresses or address in addresses:
                    conflicts[row] = True
        return [Refusal("node(s) didn't have free ports for the requested pod ports", conflicts)]
