"""NodeUnschedulable: cordoned nodes take no pods, except those that tolerate it."""

from __future__ import annotations

from collections.abc import Sequence

from navarch.api import wellknown
from navarch.api.affinity import tolerated
from navarch.api.types import core_v1
from scheduler.framework.plugin import NODE_ADDED, NODE_CHANGED, CycleState, Event, Plugin, Reach, Refusal
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo

TAINT = core_v1.Taint(key=wellknown.UNSCHEDULABLE, effect="NoSchedule")


class NodeUnschedulable(Plugin):
    name = "NodeUnschedulable"
    reads = NOTHING_ELSE
    events = frozenset({NODE_ADDED, NODE_CHANGED})

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def helps(self, event: Event, pod: PodInfo, table: NodeTable) -> bool:
        node, old = event.node, event.old
        return node is None or (not node.spec.unschedulable and (old is None or bool(old.spec.unschedulable)))

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        if not table.unschedulable.any() or tolerated(pod.pod.spec.tolerations, TAINT):
            return ()
        return [Refusal("node(s) were unschedulable", table.unschedulable, resolvable=False)]

    def refuses(self, state: CycleState, pod: PodInfo, table: NodeTable, row: int) -> Sequence[str]:
        if not table.unschedulable[row] or tolerated(pod.pod.spec.tolerations, TAINT):
            return ()
        return ["node(s) were unschedulable"]
