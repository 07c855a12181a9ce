"""Counters for /metrics, under the names that Kubernetes' work queues have."""

from __future__ import annotations

from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from navarch.client.queue import WorkQueue
from navarch.client.undecodable import Faults

BUCKETS = (0.0001, 0.001, 0.01, 0.1, 1, 10)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        names = ("name",)
        self._depth = Gauge("workqueue_depth", "Current depth of workqueue", names, registry=self.registry)
        self._retries = Counter("workqueue_retries_total", "Retries of keys", names, registry=self.registry)
        self._failures = Counter(
            "navarch_reconcile_failures_total",
            "Reconciles that raised, by controller and exception",
            ("name", "error"),
            registry=self.registry,
        )
        self._slowed = Gauge(
            "navarch_workqueue_slowed",
            "How often a key had to wait because it came too often",
            names,
            registry=self.registry,
        )
        self._work = Histogram(
            "workqueue_work_duration_seconds",
            "Seconds that one key took",
            names,
            buckets=BUCKETS,
            registry=self.registry,
        )

    def watch_queue(self, name: str, queue: WorkQueue[Any]) -> None:
        self._depth.labels(name).set_function(lambda: float(len(queue)))
        self._slowed.labels(name).set_function(lambda: float(queue.slowed))

    def worked(self, name: str, seconds: float) -> None:
        self._work.labels(name).observe(seconds)

    def failed(self, name: str, error: Exception) -> None:
        """A reconcile of the controller ``name`` raised; the key is tried again."""
        self._retries.labels(name).inc()
        self._failures.labels(name, type(error).__name__).inc()

    def watch_informers(self, faults: Faults) -> None:
        """Counts what informers passed over, too."""
        self.registry.register(cast(Any, faults))

    def text(self) -> bytes:
        """The exposition format of Prometheus."""
        return generate_latest(self.registry)
