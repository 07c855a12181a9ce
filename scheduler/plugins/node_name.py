"""NodeName: a pod that names its node goes there or nowhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.framework.plugin import NODE_ADDED, CycleState, Event, Plugin, Reach, Refusal
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo


class NodeName(Plugin):
    name = "NodeName"
    reads = NOTHING_ELSE
    events = frozenset({NODE_ADDED})

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def helps(self, event: Event, pod: PodInfo, table: NodeTable) -> bool:
        return event.node is None or event.node.metadata.name == pod.pod.spec.node_name

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        node_name = pod.pod.spec.node_name
        if not node_name:
            return ()
        others = np.ones(table.size, bool)
        if node_name in table.rows:
            others[table.rows[node_name]] = False
        return [Refusal("node(s) didn't match the requested node name", others, resolvable=False)]
