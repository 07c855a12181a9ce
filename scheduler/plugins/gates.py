"""SchedulingGates keeps a pod out of the queue while it has gates; PrioritySort orders the queue."""

from __future__ import annotations

from scheduler.framework.outcomes import Rejected
from scheduler.framework.plugin import POD_CHANGED, Plugin, Reach
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo


class SchedulingGates(Plugin):
    name = "SchedulingGates"
    reads = NOTHING_ELSE
    events = frozenset({POD_CHANGED})

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def pre_enqueue(self, pod: PodInfo) -> None:
        gates = [g.name for g in pod.pod.spec.scheduling_gates or ()]
        if gates:
            raise Rejected(f"waiting for scheduling gates: [{' '.join(gates)}]")
