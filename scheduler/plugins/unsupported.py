"""Refuses what this scheduler does not do yet, instead of ignoring it.

Resource claims (dynamic resource allocation) change where a pod may run; a pod that asks for them stays Pending with a
message that says so.
"""

from __future__ import annotations

from scheduler.framework.outcomes import Rejected
from scheduler.framework.plugin import POD_CHANGED, CycleState, Plugin, Reach
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import Mask, NodeTable
from scheduler.state.pods import PodInfo


class Unsupported(Plugin):
    name = "Unsupported"
    reads = NOTHING_ELSE
    events = frozenset({POD_CHANGED})

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def pre_filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Mask | None:
        if pod.pod.spec.resource_claims:
            raise Rejected("navarch does not support resource claims yet")
        return None
