"""Counters of what went wrong on this node, for /metrics. kubelet's names where kubelet has one."""

from __future__ import annotations

from collections.abc import Iterator

PODS = "kubelet_started_pods_errors_total"
CONTAINERS = "kubelet_started_containers_errors_total"
UNEXPECTED = "navarch_agent_unexpected_errors_total"

EVICTIONS = "kubelet_evictions"

ABOUT = {
    PODS: "Sandboxes of pods that could not be made, by reason.",
    CONTAINERS: "Containers that could not be started, by kind and reason.",
    EVICTIONS: "Pods that were evicted, by the signal that was low.",
    UNEXPECTED: "Exceptions that nobody had foreseen, by what the agent was doing; it was tried again later.",
}


class Counters:
    """Counters by name and labels. They begin at 0 with the agent."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[tuple[str, str], ...], int]] = {name: {} for name in ABOUT}

    def add(self, name: str, **labels: str) -> None:
        """One more."""
        key = tuple(sorted(labels.items()))
        self._values[name][key] = self._values[name].get(key, 0) + 1

    def value(self, name: str, **labels: str) -> int:
        """How often, with at least these labels."""
        pairs = set(labels.items())
        return sum(count for key, count in self._values[name].items() if pairs <= set(key))

    def __iter__(self) -> Iterator[tuple[str, dict[tuple[tuple[str, str], ...], int]]]:
        return iter(self._values.items())
