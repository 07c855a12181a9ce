"""Strategies under the names that other systems gave them. None is on by default; a profile enables them by name.

Docker Swarm's: SwarmSpread (the node with the fewest pods), SwarmBinpack (the node that is fullest and still has room).
Its "random" is a profile without any score plugin: among equals chance decides.

Marathon's: MarathonConstraints reads a pod's annotation ``scheduler.navarch.dev/constraints``, a JSON list of [field,
operator, value] as Marathon takes it. A field is ``hostname`` or a node label; instances of one application are the pods
that Services or a controller tell to be alike or, without those, the pods of equal labels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np

from navarch.api import wellknown
from navarch.api.selectors import from_labels
from navarch.api.types import core_v1
from scheduler.framework.outcomes import Rejected
from scheduler.framework.plugin import (
    MAX_SCORE,
    NODE_ADDED,
    NODE_CHANGED,
    POD_ADDED,
    POD_CHANGED,
    POD_GONE,
    CycleState,
    Plugin,
    Reach,
    Refusal,
    scale,
)
from scheduler.framework.reads import NOTHING_ELSE, Reads
from scheduler.state.nodes import Column, Mask, NodeTable, Scores
from scheduler.state.pods import PodInfo, PodSelector
from scheduler.state.topology import Matching

ANNOTATION = "scheduler.navarch.dev/constraints"
HOSTNAME = wellknown.HOSTNAME
OPERATORS = {
    "UNIQUE": (0, 0),
    "CLUSTER": (0, 1),
    "GROUP_BY": (0, 1),
    "MAX_PER": (1, 1),
    "LIKE": (1, 1),
    "UNLIKE": (1, 1),
}
UNMET = "node(s) didn't match the pod's Marathon constraints"


class SwarmSpread(Plugin):
    """Swarm's "spread": the fewer pods a node has, the better, whatever they use."""

    name = "SwarmSpread"
    reads = NOTHING_ELSE
    scores_alone = True

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        return table.requested.get("pods", np.zeros(table.size, np.int64)).astype(np.float64)

    def normalize(self, scores: Scores, feasible: Mask) -> Scores:
        return scale(scores, feasible, reverse=True)


class SwarmBinpack(Plugin):
    """Swarm's "binpack": the fuller a node is by cpu and memory that pods ask for, the better."""

    name = "SwarmBinpack"
    reads = NOTHING_ELSE
    scores_alone = True

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        total = np.zeros(table.size)
        for resource in ("cpu", "memory"):
            capacity = table.allocatable.get(resource)
            if capacity is not None:
                used = capacity - table.free_of(resource) + pod.requests.get(resource, 0)
                total += np.minimum(used, capacity) / np.maximum(capacity, 1) * (MAX_SCORE / 2)
        return np.floor(total)


class MarathonConstraints(Plugin):
    name = "MarathonConstraints"
    reads = Reads(pod=lambda pod: (pod.metadata.annotations or {}).get(ANNOTATION))
    events = frozenset({NODE_ADDED, NODE_CHANGED, POD_ADDED, POD_GONE, POD_CHANGED})

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.EVERYWHERE if ANNOTATION in (pod.pod.metadata.annotations or {}) else Reach.NOWHERE

    def pre_filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Mask | None:
        text = (pod.pod.metadata.annotations or {}).get(ANNOTATION)
        try:
            state.data[self.name] = parse(text) if text else []
        except ValueError as error:
            raise Rejected(f"annotation {ANNOTATION}: {error}") from error
        return None

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        constraints = state.data.get(self.name)
        if not constraints:
            return ()
        selector = table.spread_selector(pod) or from_labels(pod.labels)
        alike = Matching((PodSelector((pod.namespace,), None, selector),), staying=True)
        counts = table.topology.matching(alike)
        met = table.valid.copy()
        for field, operator, value in constraints:
            met &= _met(table, HOSTNAME if field == "hostname" else field, operator, value, counts)
        return [Refusal(UNMET, ~met)]


def parse(text: str) -> list[tuple[str, str, str]]:
    """Marathon's constraints. Raises ValueError."""
    listed = json.loads(text)
    out: list[tuple[str, str, str]] = []
    for one in listed if isinstance(listed, list) else [listed]:
        if not isinstance(one, list) or len(one) < 2 or one[1] not in OPERATORS:
            raise ValueError(f"{one!r} is not [field, operator, value] with one of {', '.join(OPERATORS)}")
        least, most = OPERATORS[one[1]]
        if not least <= len(one) - 2 <= most:
            raise ValueError(
                f"{one[1]} takes {'a value' if least else 'no value' if not most else 'at most one value'}"
            )
        value = str(one[2]) if len(one) > 2 else ""
        if one[1] in ("MAX_PER", "GROUP_BY") and value:
            int(value)
        elif one[1] in ("LIKE", "UNLIKE"):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{value!r}: {error}") from error
        out.append((str(one[0]), one[1], value))
    return out


def _met(table: NodeTable, key: str, operator: str, value: str, counts: Column) -> Mask:
    """The nodes on which one constraint lets an instance more run."""
    if operator in ("LIKE", "UNLIKE") or (operator == "CLUSTER" and value):
        pattern = re.compile(re.escape(value) if operator == "CLUSTER" else value)

        def matches(node: core_v1.Node) -> bool:
            return pattern.fullmatch((node.metadata.labels or {}).get(key, "")) is not None

        matching: Mask = table.static(f"marathon/{operator}/{key}", value.encode(), matches, np.bool_)
        return ~matching if operator == "UNLIKE" else matching
    domains, number = table.domains(key)
    has = (domains >= 0) & table.valid
    sums = np.bincount(domains[has], weights=counts[has], minlength=max(number, 1))
    here = sums[domains]
    if operator == "UNIQUE":
        return has & (here == 0)  # type: ignore[no-any-return]
    if operator == "MAX_PER":
        return has & (here < int(value))
    if operator == "CLUSTER":  # all where the first one is
        return has & ((here > 0) | (not sums.any()))
    present = np.bincount(domains[has], minlength=max(number, 1)) > 0
    groups = int(np.count_nonzero(present))
    least = sums[present].min() if groups >= int(value or 1) else 0.0  # GROUP_BY: evenly over so many groups
    return has & (here <= least)
