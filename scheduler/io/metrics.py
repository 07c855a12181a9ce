"""The scheduler's metrics, under kube-scheduler's names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily

from navarch.client.undecodable import Faults
from navarch.world import World
from scheduler.framework.blame import Fault
from scheduler.framework.outcomes import Rejected
from scheduler.framework.plugin import Plugin, Profile, call

if TYPE_CHECKING:
    from scheduler.queue import Waiting

FINE = [0.001 * 2**n for n in range(15)]
TINY = [0.00001 * 1.5**n for n in range(20)]
SAMPLED = 10  # one decision in so many is measured plugin by plugin (upstream: 10 % of pods)
LONG = [0.01 * 2**n for n in range(20)]


class Metrics:
    """The metrics of one scheduler; ``queue`` gives the number of pods in each part of the queue."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.queue: Callable[[], dict[str, int]] = dict
        self.cache: Callable[[], dict[str, int]] = dict
        self.parked: Callable[[], dict[tuple[str, str], int]] = dict
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
        self._victims = Histogram(
            "scheduler_preemption_victims",
            "Number of selected preemption victims.",
            buckets=[1, 2, 4, 8, 16, 32, 64],
            registry=registry,
        )
        self._preempting = Counter(
            "scheduler_preemption_attempts_total", "Total preemption attempts in the cluster.", registry=registry
        )
        self._points = Histogram(
            "scheduler_framework_extension_point_duration_seconds",
            "Latency for running all plugins of a specific extension point; one decision in ten is measured.",
            ["extension_point", "status", "profile"],
            buckets=TINY,
            registry=registry,
        )
        self._plugins = Histogram(
            "scheduler_plugin_execution_duration_seconds",
            "Duration for running a plugin at a specific extension point; one decision in ten is measured.",
            ["plugin", "extension_point", "status"],
            buckets=TINY,
            registry=registry,
        )
        self._algorithm = Histogram(
            "scheduler_scheduling_algorithm_duration_seconds",
            "Scheduling algorithm latency in seconds.",
            buckets=FINE,
            registry=registry,
        )
        self._permits = Histogram(
            "scheduler_permit_wait_duration_seconds",
            "Duration of waiting on permit.",
            ["result"],
            buckets=FINE,
            registry=registry,
        )
        self._faults = Counter(
            "navarch_scheduler_plugin_failures_total",
            "Exceptions that a plugin raised and should not have, by extension point; no plugin: the scheduler's own.",
            ["plugin", "extension_point"],
            registry=registry,
        )
        self._decisions = 0
        self._children: dict[tuple[str, str], Counter] = {}
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "scheduler_pending_pods", "Number of pending pods, by the queue type.", labels=["queue"]
        )
        for name, count in self.queue().items():
            family.add_metric([name], count)
        yield family
        cached = GaugeMetricFamily(
            "scheduler_cache_size", "Number of nodes, pods, and assumed (bound) pods in the cache.", labels=["type"]
        )
        for name, count in self.cache().items():
            cached.add_metric([name], count)
        yield cached
        parked = GaugeMetricFamily(
            "scheduler_unschedulable_pods",
            "The number of unschedulable pods broken down by plugin name.",
            labels=["plugin", "profile"],
        )
        for (profile, plugin), count in self.parked().items():
            parked.add_metric([plugin, profile], count)
        yield parked

    def incoming(self, place: str, why: str) -> None:
        """A pod moved in the queue."""
        child = self._children.get((place, why))
        if child is None:
            child = self._children[place, why] = self._incoming.labels(place, why)
        child.inc()

    def fault(self, fault: Fault) -> None:
        self._faults.labels(fault.plugin, fault.point).inc()

    def watch_informers(self, faults: Faults) -> None:
        """Counts what informers passed over, too."""
        self.registry.register(cast(Any, faults))

    def attempt(self, profile: str, result: str, began: float) -> None:
        self._attempts.labels(result, profile).inc()
        self._duration.labels(result, profile).observe(self.world.monotonic() - began)

    def bound(self, profile: str, began: float, waiting: Waiting | None) -> None:
        self.attempt(profile, "scheduled", began)
        if waiting is not None:
            self._tries.observe(waiting.attempts)
            self._sli.labels(str(min(waiting.attempts, 16))).observe(self.world.monotonic() - waiting.since)

    def sampled(self) -> bool:
        """Whether the next decision is one of those that are measured."""
        self._decisions += 1
        return self._decisions % SAMPLED == 1

    @contextlib.contextmanager
    def deciding(self, profile: Profile) -> Iterator[None]:
        """Around a decision of which the time that each plugin takes is measured."""
        clock, sums = self.world.monotonic, dict[str, float]()
        began = clock()

        def ask(point: str, plugin: Plugin, method: Callable[..., Any], *args: Any) -> Any:
            start, status = clock(), "Success"
            try:
                return method(*args)
            except Rejected:
                status = "Unschedulable"
                raise
            finally:
                took = clock() - start
                sums[point] = sums.get(point, 0.0) + took
                self._plugins.labels(plugin.name, point, status).observe(took)

        profile.ask = ask
        try:
            yield
        finally:
            profile.ask = call
            for point, took in sums.items():
                self._points.labels(point, "Success", profile.name).observe(took)
            self._algorithm.observe(clock() - began)

    def permitted(self, result: str, seconds: float) -> None:
        self._permits.labels(result).observe(seconds)

    def preempting(self) -> None:
        self._preempting.inc()

    def preempted(self, victims: int) -> None:
        self._victims.observe(victims)
