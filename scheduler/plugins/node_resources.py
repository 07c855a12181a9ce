"""NodeResourcesFit and NodeResourcesBalancedAllocation: room, the least used node, and an even use of cpu and memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.nodes import NodeTable, Scores
from scheduler.plugin import MAX_SCORE, NODE_ADDED, NODE_CHANGED, POD_GONE, CycleState, Plugin, Refusal
from scheduler.pods import PodInfo


class NodeResourcesFit(Plugin):
    """Filters by requests; scores by the LeastAllocated strategy (cpu and memory, weight 1 each)."""

    name = "NodeResourcesFit"
    events = frozenset({NODE_ADDED, NODE_CHANGED, POD_GONE})

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        found = []
        for resource, amount in pod.requests.items():
            if amount > 0:
                short = table.free_of(resource) < amount
                found.append(Refusal("Too many pods" if resource == "pods" else f"Insufficient {resource}", short))
        return found

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        parts = []
        for resource, used, extra in _scored(pod, table):
            capacity = _capacity(table, resource)
            free = capacity - used - extra
            parts.append(
                np.where((capacity > 0) & (free > 0), np.floor(free * MAX_SCORE / np.maximum(capacity, 1)), 0.0)
            )
        return np.floor((parts[0] + parts[1]) / len(parts))


class NodeResourcesBalancedAllocation(Plugin):
    """Prefers nodes on which the fractions of cpu and memory in use would be alike."""

    name = "NodeResourcesBalancedAllocation"
    events = frozenset({NODE_ADDED, NODE_CHANGED, POD_GONE})

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        if not pod.requests.get("cpu") and not pod.requests.get("memory"):
            return None  # a best-effort pod would tip every node the same way (KEP-4603)
        fractions = []
        for resource in ("cpu", "memory"):
            capacity = _capacity(table, resource)
            used = table.requested.get(resource, np.zeros(table.size, np.int64)) + pod.requests.get(resource, 0)
            fractions.append(np.minimum(used / np.maximum(capacity, 1), 1.0))
        # The standard deviation of two numbers is half their distance.
        return np.floor((1 - np.abs(fractions[0] - fractions[1]) / 2) * MAX_SCORE)  # type: ignore[no-any-return]


def _scored(pod: PodInfo, table: NodeTable) -> tuple[tuple[str, np.ndarray, int], ...]:
    return ("cpu", table.nonzero_cpu, pod.nonzero[0]), ("memory", table.nonzero_memory, pod.nonzero[1])


def _capacity(table: NodeTable, resource: str) -> np.ndarray:
    found = table.allocatable.get(resource)
    return np.zeros(table.size, np.int64) if found is None else found
