"""NodeResourcesFit and NodeResourcesBalancedAllocation: room, a use of nodes by strategy, and an even use of resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

import numpy as np

from navarch.api.resources import amounts
from scheduler.framework.plugin import (
    ALL_ROWS,
    MAX_SCORE,
    NODE_ADDED,
    NODE_CHANGED,
    POD_CHANGED,
    POD_GONE,
    CycleState,
    Event,
    Plugin,
    Reach,
    Refusal,
)
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import Column, NodeTable, Scores
from scheduler.state.pods import PodInfo

CPU_AND_MEMORY: Mapping[str, int] = {"cpu": 1, "memory": 1}


class NodeResourcesFit(Plugin):
    """Filters by requests; scores by a strategy over weighted resources.

    ``shape`` is for RequestedToCapacityRatio: points (utilisation in percent, score of 0 to 10), between which the score
    runs straight. ``ignored`` names resources, or groups of them (``example.com/``), that are not looked at.
    """

    name = "NodeResourcesFit"
    reads = NOTHING_ELSE
    events = frozenset({NODE_ADDED, NODE_CHANGED, POD_GONE, POD_CHANGED})

    def __init__(
        self,
        strategy: str = "LeastAllocated",
        resources: Mapping[str, int] = CPU_AND_MEMORY,
        shape: Sequence[tuple[int, int]] = ((0, 0), (100, 10)),
        ignored: Sequence[str] = (),
    ) -> None:
        self.strategy, self.resources, self.ignored = strategy, dict(resources), tuple(ignored)
        self.shape = [(u, s * 10) for u, s in shape]

    def own_change_helps(self, old: PodInfo, new: PodInfo) -> bool:
        return any(n > new.requests.get(r, 0) for r, n in old.requests.items())

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.ITS_NODE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def helps(self, event: Event, pod: PodInfo, table: NodeTable) -> bool:
        """A pod that goes or shrinks must free something that is asked for; a node must have room, and more than before."""
        if event.pod is not None:
            before, now = event.pod.requests, {}
            if event.kind == POD_CHANGED:
                before, now = event.old.requests if event.old else {}, event.pod.requests
            return any(before.get(r, 0) > now.get(r, 0) for r, n in pod.requests.items() if n > 0)
        if event.old is not None and event.node is not None:
            had, has = amounts(event.old.status.allocatable), amounts(event.node.status.allocatable)
            if not any(has.get(r, 0) > had.get(r, 0) for r, n in pod.requests.items() if n > 0):
                return False
        row = table.rows.get(event.node.metadata.name or "") if event.node else None
        return row is None or not self.refuses(CycleState(), pod, table, row)

    def requests(self, pod: PodInfo) -> list[tuple[str, int]]:
        return [(r, n) for r, n in pod.requests.items() if n > 0 and not (self.ignored and self._ignores(r))]

    def _ignores(self, resource: str) -> bool:
        return any(resource == i or (i.endswith("/") and resource.startswith(i)) for i in self.ignored)

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        return [Refusal(_short(r), table.free_of(r) < amount) for r, amount in self.requests(pod)]

    def refuses(self, state: CycleState, pod: PodInfo, table: NodeTable, row: int) -> Sequence[str]:
        return [_short(r) for r, amount in self.requests(pod) if table.free_at(r, row) < amount]

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        return self.score_rows(state, pod, table, ALL_ROWS)

    def score_rows(self, state: CycleState, pod: PodInfo, table: NodeTable, rows: slice) -> Scores | None:
        total: Any = 0.0
        weights: Any = 0.0
        for resource, weight in self.resources.items():
            if resource not in ("cpu", "memory") and not pod.requests.get(resource):
                continue
            capacity, used = _capacity_and_use(table, pod, resource, rows, nonzero=True)
            if self.strategy == "LeastAllocated":
                part = np.where(used < capacity, np.floor((capacity - used) * MAX_SCORE / np.maximum(capacity, 1)), 0.0)
                counts = capacity > 0
            elif self.strategy == "MostAllocated":
                part = np.floor(np.minimum(used, capacity) * MAX_SCORE / np.maximum(capacity, 1))
                counts = capacity > 0
            else:
                part = self._by_shape(capacity, used)
                counts = (capacity > 0) & (part > 0)
            total = total + np.where(counts, part, 0.0) * weight
            weights = weights + counts * float(weight)
        mean = total / np.maximum(weights, 1.0)
        if self.strategy == "RequestedToCapacityRatio":
            return np.floor(mean + 0.5)  # type: ignore[no-any-return]
        return np.floor(mean)  # type: ignore[no-any-return]

    def score_row(self, state: CycleState, pod: PodInfo, table: NodeTable, row: int) -> float | None:
        if self.strategy != "LeastAllocated":
            return super().score_row(state, pod, table, row)
        total = weights = 0.0
        for resource, weight in self.resources.items():
            if resource not in ("cpu", "memory") and not pod.requests.get(resource):
                continue
            capacity, used = _capacity_and_use_at(table, pod, resource, row, nonzero=True)
            if capacity > 0:
                weights += weight
                if used < capacity:
                    total += floor((capacity - used) * MAX_SCORE / capacity) * weight
        return float(floor(total / max(weights, 1.0)))

    def _by_shape(self, capacity: Column, used: Column) -> Scores:
        full = (capacity == 0) | (used > capacity)
        use = np.where(full, 100, used * 100 // np.maximum(capacity, 1))
        out = np.full(use.shape, float(self.shape[-1][1]))
        for (u0, s0), (u1, s1) in reversed(list(zip(self.shape, self.shape[1:], strict=False))):
            # Whole numbers, cut towards zero.
            out = np.where(use <= u1, s0 + np.trunc((s1 - s0) * (use - u0) / max(u1 - u0, 1)), out)
        return np.where(use <= self.shape[0][0], float(self.shape[0][1]), out)


class NodeResourcesBalancedAllocation(Plugin):
    """Prefers nodes on which the fractions of the resources in use would be alike."""

    name = "NodeResourcesBalancedAllocation"
    reads = NOTHING_ELSE
    events = frozenset({NODE_ADDED, NODE_CHANGED, POD_GONE})

    def __init__(self, resources: Mapping[str, int] = CPU_AND_MEMORY) -> None:
        self.resources = tuple(resources)

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.ITS_NODE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        return self.score_rows(state, pod, table, ALL_ROWS)

    def score_rows(self, state: CycleState, pod: PodInfo, table: NodeTable, rows: slice) -> Scores | None:
        if not any(pod.requests.get(r) for r in self.resources):
            return None  # a best-effort pod would tip every node the same way (KEP-4603)
        fractions, counted = [], []
        for resource in self.resources:
            if resource not in ("cpu", "memory") and not pod.requests.get(resource):
                continue
            capacity, used = _capacity_and_use(table, pod, resource, rows, nonzero=False)
            counted.append(capacity > 0)
            fractions.append(np.where(capacity > 0, np.minimum(used / np.maximum(capacity, 1), 1.0), 0.0))
        if len(fractions) == 2:
            # The standard deviation of two numbers is half their distance.
            spread = np.where(counted[0] & counted[1], np.abs(fractions[0] - fractions[1]) / 2, 0.0)
        else:
            count = np.maximum(sum(c.astype(np.float64) for c in counted), 1.0)
            mean = sum(fractions) / count
            squares = sum(np.where(c, (f - mean) ** 2, 0.0) for c, f in zip(counted, fractions, strict=True))
            spread = np.sqrt(squares / count)
            # Where two of them count, as above, to the last bit.
            low = np.minimum.reduce([np.where(c, f, np.inf) for c, f in zip(counted, fractions, strict=True)])
            high = np.maximum.reduce([np.where(c, f, -np.inf) for c, f in zip(counted, fractions, strict=True)])
            two = count == 2
            spread[two] = (high[two] - low[two]) / 2
        return np.floor((1 - spread) * MAX_SCORE)


    def score_row(self, state: CycleState, pod: PodInfo, table: NodeTable, row: int) -> float | None:
        if self.resources != ("cpu", "memory"):
            return super().score_row(state, pod, table, row)
        if not any(pod.requests.get(r) for r in self.resources):
            return None
        fractions = []
        for resource in self.resources:
            capacity, used = _capacity_and_use_at(table, pod, resource, row, nonzero=False)
            if capacity <= 0:
                return MAX_SCORE  # one resource alone is in balance
            fractions.append(min(float(used) / float(capacity), 1.0))
        return float(floor((1 - abs(fractions[0] - fractions[1]) / 2) * MAX_SCORE))


def _short(resource: str) -> str:
    return "Too many pods" if resource == "pods" else f"Insufficient {resource}"


def _capacity_and_use(
    table: NodeTable, pod: PodInfo, resource: str, rows: slice, nonzero: bool
) -> tuple[Column, Column]:
    """Each row's capacity of a resource, and its use with the pod there. ``nonzero``: containers that ask for no cpu or
    memory count with a default."""
    allocatable = table.allocatable.get(resource)
    if allocatable is None:
        return (none := np.zeros(table.size, np.int64)[rows]), none
    if nonzero and resource == "cpu":
        return allocatable[rows], table.nonzero_cpu[rows] + pod.nonzero[0]
    if nonzero and resource == "memory":
        return allocatable[rows], table.nonzero_memory[rows] + pod.nonzero[1]
    used = table.requested.get(resource)
    request = pod.requests.get(resource, 0)
    return allocatable[rows], np.full(table.size, request)[rows] if used is None else used[rows] + request


def _capacity_and_use_at(table: NodeTable, pod: PodInfo, resource: str, row: int, nonzero: bool) -> tuple[int, int]:
    """As :func:`_capacity_and_use`, for one row."""
    allocatable = table.allocatable.get(resource)
    if allocatable is None:
        return 0, 0
    if nonzero and resource == "cpu":
        return allocatable.item(row), table.nonzero_cpu.item(row) + pod.nonzero[0]
    if nonzero and resource == "memory":
        return allocatable.item(row), table.nonzero_memory.item(row) + pod.nonzero[1]
    used = table.requested.get(resource)
    return allocatable.item(row), (0 if used is None else used.item(row)) + pod.requests.get(resource, 0)
