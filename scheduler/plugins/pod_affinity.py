"""InterPodAffinity: pods that want to be near other pods, or far from them, by the topology domain of the node.

It works both ways: a pod is kept from the domains whose pods have anti-affinity to it, and drawn to those whose pods
want it near.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.framework.plugin import (
    MAX_SCORE,
    NAMESPACE_CHANGED,
    NODE_ADDED,
    NODE_CHANGED,
    POD_ADDED,
    POD_CHANGED,
    POD_GONE,
    CycleState,
    Event,
    Plugin,
    Reach,
    Refusal,
)
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import Column, Mask, NodeTable, Scores
from scheduler.state.pods import PodInfo
from scheduler.state.topology import Matching

AFFINITY = "node(s) didn't match pod affinity rules"
ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
EXISTING = "node(s) didn't satisfy existing pods anti-affinity rules"


class InterPodAffinity(Plugin):
    """``hard_weight``: what the required affinity of pods that run adds to a score; ``ignore_preferred_of_existing``:
    their wishes do not count for pods that have none."""

    name = "InterPodAffinity"
    reads = NOTHING_ELSE
    events = frozenset({NODE_ADDED, NODE_CHANGED, POD_ADDED, POD_GONE, POD_CHANGED, NAMESPACE_CHANGED})

    def __init__(self, hard_weight: int = 1, ignore_preferred_of_existing: bool = False) -> None:
        self.hard_weight = hard_weight
        self.ignore_preferred = ignore_preferred_of_existing

    def own_change_helps(self, old: PodInfo, new: PodInfo) -> bool:
        return old.labels != new.labels or old.pod.spec != new.pod.spec

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        """The terms of other pods change with the version of the topology only, at which rankings begin anew."""
        return Reach.EVERYWHERE if any(pod.terms) else Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return not table.topology.terms_against(pod)  # else the domains of their nodes count

    def helps(self, event: Event, pod: PodInfo, table: NodeTable) -> bool:
        """A pod helps that comes where it is wanted, or goes where it is not (a changed pod may do both); a node, if its
        labels say that it is in another domain now."""
        if event.node is not None:
            return event.old is None or event.old.metadata.labels != event.node.metadata.labels
        namespaces = table.topology.namespaces
        came = event.pod if event.kind in (POD_ADDED, POD_CHANGED) else None
        went = event.pod if event.kind == POD_GONE else event.old
        if came is None and went is None:
            return True
        if came and any(t.pods.matches(came.namespace, came.labels, namespaces) for t in pod.terms.affinity):
            return True
        return went is not None and (
            any(t.pods.matches(went.namespace, went.labels, namespaces) for t in pod.terms.anti_affinity)
            or any(t.pods.matches(pod.namespace, pod.labels, namespaces) for t in went.terms.anti_affinity)
        )

    def refuses(self, state: CycleState, pod: PodInfo, table: NodeTable, row: int) -> Sequence[str]:
        if not any(pod.terms) and not table.topology.terms_against(pod):
            return ()
        return super().refuses(state, pod, table, row)

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        # One reason a node: the first of the three that fails.
        out: list[Refusal] = []
        open_ = np.ones(table.size, bool)

        def refuse(reason: str, bad: Mask, resolvable: bool) -> None:
            nonlocal open_
            out.append(Refusal(reason, bad & open_, resolvable))
            open_ &= ~bad

        if pod.terms.affinity:
            refuse(AFFINITY, ~self._near(pod, table), False)
        if pod.terms.anti_affinity:
            bad = np.zeros(table.size, bool)
            for term in pod.terms.anti_affinity:
                sums = table.domain_sums(term.topology_key, table.topology.matching(Matching((term.pods,))))
                bad |= sums.values > 0
            refuse(ANTI_AFFINITY, bad, True)
        bad = np.zeros(table.size, bool)
        for pod_term, column in table.topology.terms_against(pod):
            if pod_term.sort == "anti-affinity":
                bad |= table.domain_sums(pod_term.term.topology_key, column).values > 0
        if bad.any():
            refuse(EXISTING, bad, True)
        return out

    def _near(self, pod: PodInfo, table: NodeTable) -> Mask:
        """Nodes that have, in the domain of every term, a pod that matches all terms."""
        terms = pod.terms.affinity
        matching = table.topology.matching(Matching(tuple(t.pods for t in terms)))
        near = table.valid.copy()
        labelled = table.valid.copy()
        anywhere = False
        for term in terms:
            sums = table.domain_sums(term.topology_key, matching)
            labelled &= sums.labelled
            near &= sums.values > 0
            anywhere = anywhere or bool((sums.sums > 0).any())
        namespaces = table.topology.namespaces
        if not anywhere and all(t.pods.matches(pod.namespace, pod.labels, namespaces) for t in terms):
            return labelled  # the first of a group that wants to be with itself
        return near

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        """The sum of the weights of all terms, the pod's own and those of others, that a node's domains satisfy."""
        weights: list[tuple[str, Column, int]] = []
        for weight, term in pod.terms.preferred:
            weights.append((term.topology_key, table.topology.matching(Matching((term.pods,))), weight))
        wishes = bool(pod.terms.preferred)
        for pod_term, column in table.topology.terms_against(pod):
            if pod_term.sort == "preferred" and (wishes or not self.ignore_preferred):
                weights.append((pod_term.term.topology_key, column, pod_term.weight))
            elif pod_term.sort == "affinity" and self.hard_weight:
                weights.append((pod_term.term.topology_key, column, self.hard_weight))
        if not weights:
            return None
        total = np.zeros(table.size)
        for key, column, weight in weights:
            total += table.domain_sums(key, column).values * weight
        return total

    def normalize(self, scores: Scores, feasible: Mask) -> Scores:
        of_feasible = scores[feasible]
        low, high = float(of_feasible.min(initial=np.inf)), float(of_feasible.max(initial=-np.inf))
        if not high > low:
            return np.zeros_like(scores)
        return np.clip(np.floor(MAX_SCORE * ((scores - low) / (high - low))), 0, MAX_SCORE)
