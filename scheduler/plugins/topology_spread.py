"""PodTopologySpread: like pods are spread evenly over zones, hosts, or whatever a node label tells apart.

Constraints that must hold (DoNotSchedule) filter: a node is refused if, with the pod there, its domain would have more
than maxSkew pods above the emptiest domain. The others (ScheduleAnyway) score. Pods without constraints of their own are
spread by the defaults, if a Service or a controller says which pods are like them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from navarch.api import wellknown
from navarch.api.affinity import pod_matches_node, untolerated
from navarch.api.selectors import LabelSelector
from navarch.api.types import core_v1
from scheduler.framework.plugin import (
    MAX_SCORE,
    NODE_ADDED,
    NODE_CHANGED,
    NODE_GONE,
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
from scheduler.state.pods import PodInfo, PodSelector, narrowed
from scheduler.state.topology import Matching

HOSTNAME = wellknown.HOSTNAME
ZONE = wellknown.ZONE
MISSING = "node(s) didn't match pod topology spread constraints (missing required label)"
SKEWED = "node(s) didn't match pod topology spread constraints"


class Default(NamedTuple):
    """A constraint for pods that have none."""

    max_skew: int
    topology_key: str
    when_unsatisfiable: str = "ScheduleAnyway"
    min_domains: int = 1
    affinity: bool = True
    taints: bool = False


SYSTEM_DEFAULTS = (Default(3, HOSTNAME), Default(5, ZONE))


class Constraint(NamedTuple):
    max_skew: int
    key: str
    selector: LabelSelector
    min_domains: int
    affinity: bool  # nodes that the pod's node affinity excludes are not looked at
    taints: bool  # nor those with taints that it does not tolerate


class PodTopologySpread(Plugin):
    """``defaults`` are upstream's unless given ("List" defaulting); then nodes without a label are left out, too."""

    name = "PodTopologySpread"
    reads = NOTHING_ELSE
    events = frozenset({NODE_ADDED, NODE_CHANGED, NODE_GONE, POD_ADDED, POD_GONE, POD_CHANGED})

    def __init__(self, defaults: Sequence[Default] | None = None) -> None:
        self.defaults = SYSTEM_DEFAULTS if defaults is None else tuple(defaults)
        self.system_defaults = defaults is None

    def own_change_helps(self, old: PodInfo, new: PodInfo) -> bool:
        return old.labels != new.labels or old.pod.spec != new.pod.spec

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.EVERYWHERE if any(self.constraints(pod, table, m) for m in MODES) else Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def helps(self, event: Event, pod: PodInfo, table: NodeTable) -> bool:
        """Pods count if they are among those that are spread; nodes if they are in a domain, or were: a domain that goes
        may have been the emptiest."""
        musts = self.constraints(pod, table, "DoNotSchedule")
        if event.pod is not None:
            some = [event.pod, event.old] if event.old else [event.pod]
            return any(p.namespace == pod.namespace and c.selector.matches(p.labels) for p in some for c in musts)
        if event.node is not None:
            labels = event.node.metadata.labels or {}
            if event.old is None:
                return all(c.key in labels for c in musts)
            before = event.old.metadata.labels or {}
            by_taints = any(c.taints for c in musts) and event.old.spec.taints != event.node.spec.taints
            return by_taints or labels != before
        return True

    def constraints(self, pod: PodInfo, table: NodeTable, mode: str) -> list[Constraint]:
        """The pod's constraints of a mode (DoNotSchedule, ScheduleAnyway), its own or by default."""
        own = pod.pod.spec.topology_spread_constraints
        if own:
            return [
                Constraint(
                    c.max_skew,
                    c.topology_key,
                    narrowed(c.label_selector, pod.labels, c.match_label_keys),
                    c.min_domains or 1,
                    (c.node_affinity_policy or "Honor") == "Honor",
                    (c.node_taints_policy or "Ignore") == "Honor",
                )
                for c in own
                if c.when_unsatisfiable == mode
            ]
        if not any(d.when_unsatisfiable == mode for d in self.defaults):
            return []
        selector = table.spread_selector(pod)
        if selector is None or selector.empty or selector.nothing:
            return []
        return [
            Constraint(d.max_skew, d.topology_key, selector, d.min_domains, d.affinity, d.taints)
            for d in self.defaults
            if d.when_unsatisfiable == mode
        ]

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        musts = self.constraints(pod, table, "DoNotSchedule")
        if not musts:
            return ()
        labelled = _with_all_labels(table, musts)
        skewed = np.zeros(table.size, bool)
        for c in musts:
            domains, number = table.domains(c.key)
            eligible = table.valid & labelled & self._included(pod, table, c)
            present = np.bincount(domains[eligible], minlength=number) > 0
            sums = _sums(pod, table, c, domains, eligible, number)
            least = int(sums[present].min()) if present.any() else np.iinfo(np.int32).max
            if int(np.count_nonzero(present)) < c.min_domains:
                least = 0
            own = int(c.selector.matches(pod.labels))
            # Domains in which no node is eligible have no pods that count.
            here = np.where(domains >= 0, sums[domains] if number else 0, 0)
            skewed |= here + own - least > c.max_skew
        return [Refusal(MISSING, ~labelled, resolvable=False), Refusal(SKEWED, skewed & labelled)]

    def pre_score(self, state: CycleState, pod: PodInfo, table: NodeTable, feasible: Mask) -> None:
        wishes = self.constraints(pod, table, "ScheduleAnyway")
        state.data[self.name] = None
        if not wishes:
            return
        # With the system's defaults, a node without one of the labels still takes part in the other.
        strict = bool(pod.pod.spec.topology_spread_constraints) or not self.system_defaults
        everything = table.valid
        labelled = _with_all_labels(table, wishes) if strict else everything
        scored = feasible & labelled
        total = np.zeros(table.size)
        for c in wishes:
            domains, number = table.domains(c.key)
            has = domains >= 0
            matching = table.topology.matching(_like(pod, c))
            if c.key == HOSTNAME:
                size, counts = int(np.count_nonzero(scored)), matching
            else:
                present = np.bincount(domains[scored & has], minlength=number) > 0
                size = int(np.count_nonzero(present))
                eligible = everything & labelled & has & self._included(pod, table, c)
                sums = np.where(present, _sums(pod, table, c, domains, eligible, number), 0)
                counts = sums[domains] if number else np.zeros(table.size, np.int64)
            weight = math.log(size + 2)  # the more domains, the less a single pod means
            total += np.where(has, counts * weight + (c.max_skew - 1), 0.0)
        state.data[self.name] = (np.floor(total + 0.5), scored)

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        """Lower counts are better: turned round here, where it is known which nodes take part."""
        counts = state.data[self.name]
        if counts is None:
            return None
        total, scored = counts
        of_scored = total[scored]
        if not len(of_scored):
            return np.zeros(table.size)
        low, high = float(of_scored.min()), float(of_scored.max())
        if high == 0:
            return np.where(scored, MAX_SCORE, 0.0)
        return np.where(scored, np.floor(MAX_SCORE * (high + low - total) / high), 0.0)

    def _included(self, pod: PodInfo, table: NodeTable, c: Constraint) -> Mask:
        """The nodes whose pods count, by the inclusion policies (KEP-3094)."""
        out: Mask = np.ones(table.size, bool)
        spec = pod.pod.spec
        if c.affinity and (spec.node_selector or (spec.affinity and spec.affinity.node_affinity)):

            def matches(node: core_v1.Node) -> bool:
                return pod_matches_node(spec, node.metadata.name or "", node.metadata.labels or {})

            out &= table.static("included/affinity", pod.choice, matches, np.bool_)
        if c.taints:

            def free(node: core_v1.Node) -> bool:
                return untolerated(spec.tolerations, node.spec.taints) is None

            out &= table.static("included/taints", pod.tolerance, free, np.bool_)
        return out


MODES = ("DoNotSchedule", "ScheduleAnyway")


def _like(pod: PodInfo, c: Constraint) -> Matching:
    return Matching((PodSelector((pod.namespace,), None, c.selector),), staying=True)


def _with_all_labels(table: NodeTable, constraints: Sequence[Constraint]) -> Mask:
    out = table.valid.copy()
    for c in constraints:
        out &= table.domains(c.key)[0] >= 0
    return out


def _sums(pod: PodInfo, table: NodeTable, c: Constraint, domains: Column, eligible: Mask, number: int) -> Column:
    """The matching pods of each domain's eligible nodes."""
    matching = table.topology.matching(_like(pod, c))
    return np.bincount(domains[eligible], weights=matching[eligible], minlength=number).astype(np.int64)
