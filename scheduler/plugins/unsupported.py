"""Refuses what this scheduler does not do yet, instead of ignoring it.

Required pod affinity and anti-affinity, DoNotSchedule spread constraints and volume claims change where a pod may run;
a pod that asks for them stays Pending with a message that says so.
"""

from __future__ import annotations

from scheduler.nodes import Mask, NodeTable
from scheduler.plugin import POD_CHANGED, CycleState, Plugin, Rejected
from scheduler.pods import PodInfo


class Unsupported(Plugin):
    name = "Unsupported"
    events = frozenset({POD_CHANGED})

    def pre_filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Mask | None:
        spec = pod.pod.spec
        for kind in ("pod_affinity", "pod_anti_affinity"):
            rules = getattr(spec.affinity, kind) if spec.affinity else None
            if rules and rules.required_during_scheduling_ignored_during_execution:
                raise Rejected(f"navarch does not support required {kind.replace('_', ' ')} yet")
        if any(c.when_unsatisfiable == "DoNotSchedule" for c in spec.topology_spread_constraints or ()):
            raise Rejected("navarch does not support topologySpreadConstraints with DoNotSchedule yet")
        if any(v.persistent_volume_claim or v.ephemeral for v in spec.volumes or ()):
            raise Rejected("navarch does not support persistent volume claims yet")
        if spec.resource_claims:
            raise Rejected("navarch does not support resource claims yet")
        return None
