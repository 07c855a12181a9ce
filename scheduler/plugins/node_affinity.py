"""NodeAffinity: nodeSelector and node affinity, required and preferred."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from navarch.api.affinity import pod_matches_node, preferred_weight
from navarch.api.types import core_v1
from scheduler.nodes import Mask, NodeTable, Scores
from scheduler.plugin import NODE_ADDED, NODE_CHANGED, CycleState, Plugin, Refusal, scale
from scheduler.pods import PodInfo


class NodeAffinity(Plugin):
    name = "NodeAffinity"
    events = frozenset({NODE_ADDED, NODE_CHANGED})

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        spec = pod.pod.spec
        affinity = spec.affinity.node_affinity if spec.affinity else None
        if not spec.node_selector and not (affinity and affinity.required_during_scheduling_ignored_during_execution):
            return ()

        def refused(node: core_v1.Node) -> bool:
            return not pod_matches_node(spec, node.metadata.name or "", node.metadata.labels or {})

        mask: Mask = table.static(self.name, pod, refused, np.bool_)
        return [Refusal("node(s) didn't match Pod's node affinity/selector", mask, resolvable=False)]

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        spec = pod.pod.spec
        affinity = spec.affinity.node_affinity if spec.affinity else None
        if not (affinity and affinity.preferred_during_scheduling_ignored_during_execution):
            return None

        def weight(node: core_v1.Node) -> float:
            return preferred_weight(spec, node.metadata.name or "", node.metadata.labels or {})

        found: Scores = table.static(self.name + "/score", pod, weight, np.float64)
        return found

    def normalize(self, scores: Scores, feasible: Mask) -> Scores:
        return scale(scores, feasible)
