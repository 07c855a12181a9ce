"""NodeAffinity: nodeSelector and node affinity, required and preferred."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from navarch.api.affinity import pod_matches_node, preferred_weight
from navarch.api.types import core_v1
from scheduler.framework.plugin import NODE_ADDED, NODE_CHANGED, CycleState, Event, Plugin, Reach, Refusal, scale
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import Mask, NodeTable, Scores
from scheduler.state.pods import PodInfo, chosen_by_name


class NodeAffinity(Plugin):
    name = "NodeAffinity"
    reads = NOTHING_ELSE
    events = frozenset({NODE_ADDED, NODE_CHANGED})

    def __init__(self, added: core_v1.NodeAffinity | None = None) -> None:
        """``added`` holds for all pods of the profile, besides what they ask for themselves."""
        self.added = core_v1.PodSpec(containers=[], affinity=core_v1.Affinity(node_affinity=added)) if added else None

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def helps(self, event: Event, pod: PodInfo, table: NodeTable) -> bool:
        if event.node is None:
            return True

        def matches(node: core_v1.Node) -> bool:
            where = node.metadata.name or "", node.metadata.labels or {}
            return pod_matches_node(pod.pod.spec, *where) and (not self.added or pod_matches_node(self.added, *where))

        return matches(event.node) and (event.old is None or not matches(event.old))

    def named(self, pod: PodInfo) -> Sequence[str] | None:
        return chosen_by_name(pod.pod.spec)

    def pre_filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Mask | None:
        names = self.named(pod)
        if names is None:
            return None
        only = np.zeros(table.size, bool)
        only[[table.rows[n] for n in names if n in table.rows]] = True
        return only

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        spec = pod.pod.spec
        affinity = spec.affinity.node_affinity if spec.affinity else None
        own = spec.node_selector or (affinity and affinity.required_during_scheduling_ignored_during_execution)
        refusals = []
        if self.added:
            added = self.added

            def enforced(node: core_v1.Node) -> bool:
                return not pod_matches_node(added, node.metadata.name or "", node.metadata.labels or {})

            out: Mask = table.static(f"{self.name}/added/{id(self)}", b"", enforced, np.bool_)
            refusals.append(Refusal("node(s) didn't match scheduler-enforced node affinity", out, resolvable=False))
        if not own:
            return refusals

        def refused(node: core_v1.Node) -> bool:
            return not pod_matches_node(spec, node.metadata.name or "", node.metadata.labels or {})

        names = chosen_by_name(spec)
        mask: Mask
        if names is None:
            mask = table.static(self.name, pod.choice, refused, np.bool_)
        else:  # only those are asked, and nothing is kept: every pod of a DaemonSet has another name here
            mask = np.ones(table.size, bool)
            for row in (table.rows[n] for n in names if n in table.rows):
                node = table.nodes[row]
                mask[row] = node is None or refused(node)
        if refusals:
            mask = mask & ~refusals[0].nodes
        return [*refusals, Refusal("node(s) didn't match Pod's node affinity/selector", mask, resolvable=False)]

    def refuses(self, state: CycleState, pod: PodInfo, table: NodeTable, row: int) -> Sequence[str]:
        if self.added or chosen_by_name(pod.pod.spec) is None:
            return super().refuses(state, pod, table, row)
        node = table.nodes[row]
        if node is not None and pod_matches_node(pod.pod.spec, node.metadata.name or "", node.metadata.labels or {}):
            return ()
        return ["node(s) didn't match Pod's node affinity/selector"]

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        spec = pod.pod.spec
        affinity = spec.affinity.node_affinity if spec.affinity else None
        if not self.added and not (affinity and affinity.preferred_during_scheduling_ignored_during_execution):
            return None

        def weight(node: core_v1.Node) -> float:
            where = node.metadata.name or "", node.metadata.labels or {}
            return preferred_weight(spec, *where) + (preferred_weight(self.added, *where) if self.added else 0)

        scores: Scores = table.static(f"{self.name}/score/{id(self)}", pod.choice, weight, np.float64)
        return scores

    def normalize(self, scores: Scores, feasible: Mask) -> Scores:
        return scale(scores, feasible)
