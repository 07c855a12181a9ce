"""The scheduler's metrics, under kube-scheduler's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily

from navarch.world import World

if TYPE_CHECKING:
    from scheduler.queue import Waiting

FINE = [0.001 * 2**n for n in range(15)]
LONG = [0.01 * 2**n for n in range(20)]


class Metrics:
    """What one scheduler counts; ``queue`` gives the number of pods in each part of the queue."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.queue: Callable[[], dict[str, int]] = dict
        self.registry = registry = CollectorRegistry()
        self._attempts = Counter(
            "scheduler_schedule_attempts_total",
            "Number of attempts to schedule pods, by the result.",
            ["result", "profile"],
            registry=registry,
        )
        self._duration = Histogram(
            "scheduler_scheduling_attempt_duration_seconds",
            "Scheduling attempt latency in seconds (scheduling algorithm and binding).",
            ["result", "profile"],
            buckets=FINE,
            registry=registry,
        )
        self._sli = Histogram(
            "scheduler_pod_scheduling_sli_duration_seconds",
            "Latency from when a pod enters the queue until it is bound.",
            ["attempts"],
            buckets=LONG,
            registry=registry,
        )
        self._tries = Histogram(
            "scheduler_pod_scheduling_attempts",
            "Number of attempts to successfully schedule a pod.",
            buckets=[1, 2, 4, 8, 16],
            registry=registry,
        )
        self._incoming = Counter(
            "scheduler_queue_incoming_pods_total",
            "Number of pods added to scheduling queues by event and queue type.",
            ["queue", "event"],
            registry=registry,
        )
        self._preemptions = Counter(
            "scheduler_preemption_attempts_total", "Total preemption attempts in the cluster.", registry=registry
        )
        self._victims = Histogram(
            "scheduler_preemption_victims",
            "Number of selected preemption victims.",
            buckets=[1, 2, 4, 8, 16, 32, 64],
            registry=registry,
        )
        self._children: dict[tuple[str, str], Counter] = {}
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "scheduler_pending_pods", "Number of pending pods, by the queue type.", labels=["queue"]
        )
        for name, count in self.queue().items():
            family.add_metric([name], count)
        yield family

    def incoming(self, place: str, why: str) -> None:
        """A pod moved in the queue."""
        child = self._children.get((place, why))
        if child is None:
            child = self._children[place, why] = self._incoming.labels(place, why)
        child.inc()

    def attempt(self, profile: str, result: str, began: float) -> None:
        self._attempts.labels(result, profile).inc()
        self._duration.labels(result, profile).observe(self.world.monotonic() - began)

    def bound(self, profile: str, began: float, waiting: Waiting | None) -> None:
        self.attempt(profile, "scheduled", began)
        if waiting is not None:
            self._tries.observe(waiting.attempts)
            self._sli.labels(str(min(waiting.attempts, 16))).observe(self.world.monotonic() - waiting.since)

    def preempted(self, victims: int) -> None:
        self._preemptions.inc()
        self._victims.observe(victims)
