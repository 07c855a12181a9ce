"""Counters for /metrics, under the names that Kubernetes' work queues have."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from navarch.client.queue import WorkQueue

BUCKETS = (0.0001, 0.001, 0.01, 0.1, 1, 10)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        names = ("name",)
        self._depth = Gauge("workqueue_depth", "Current depth of workqueue", names, registry=self.registry)
        self._retries = Counter("workqueue_retries_total", "Retries of keys", names, registry=self.registry)
        self._work = Histogram(
            "workqueue_work_duration_seconds",
            "Seconds that one key took",
            names,
            buckets=BUCKETS,
            registry=self.registry,
        )

    def watch_queue(self, name: str, queue: WorkQueue[Any]) -> None:
        self._depth.labels(name).set_function(lambda: float(len(queue)))

    def worked(self, name: str, seconds: float) -> None:
        self._work.labels(name).observe(seconds)

    def retried(self, name: str) -> None:
        self._retries.labels(name).inc()

    def text(self) -> bytes:
        """The exposition format of Prometheus."""
        return generate_latest(self.registry)
