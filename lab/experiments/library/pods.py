"""Measures of pods: how many there are over time, and how long each waited, started and lived."""

from __future__ import annotations

import math

from lab.experiments.library.base import Base, requests, unit
from lab.experiments.library.lives import Life, lives
from lab.experiments.series import Series, Span
from lab.experiments.state import Tree, is_live, is_ready, relevant

PREEMPTION = "PreemptionByScheduler"
EVICTION = "EvictionByEvictionAPI"


class Pods(Base):
    _lives: list[tuple[Life, Tree]] | None = None

    @unit("pods over time")
    def ready(self, reference: str = "") -> Series:
        """Pods that are Ready and not about to go."""
        return self._counted(("ready", reference), self._where(reference, is_ready))

    @unit("pods over time")
    def total(self, reference: str = "") -> Series:
        """Pods that have neither ended nor are about to go."""
        return self._counted(("total", reference), self._where(reference, is_live))

    @unit("pods over time")
    def pending(self, reference: str = "") -> Series:
        """Live pods that no node has."""
        test = self._where(reference, lambda p: is_live(p) and not p["spec"].get("nodeName"))
        return self._counted(("pending", reference), test)

    @unit("pods over time")
    def terminating(self, reference: str = "") -> Series:
        """Pods that are about to go, and still there."""
        return self._counted(("terminating", reference), self._where(reference, lambda p: "deletionTimestamp" in p["metadata"]))

    @unit("pods over time")
    def running_image(self, reference: str, image: str) -> Series:
        """Live pods with a container of an image."""

        def test(pod: Tree) -> bool:
            return is_live(pod) and any(c.get("image") == image for c in pod["spec"]["containers"])

        return self._counted(("image", reference, image), self._where(reference, test))

    @unit("pods over time")
    def desired(self, reference: str) -> Series:
        """The replicas that a workload's spec asks for."""
        resource = list(relevant(reference))[-1]
        name = reference.rpartition("/")[2]
        return self._counted(
            ("desired", reference),
            lambda o: float(o["spec"].get("replicas", 1)) if o["metadata"]["name"] == name else 0.0,
            resource,
        )

    @unit("pods over time")
    def unavailable(self, reference: str) -> Series:
        """The replicas that a workload asks for, less those that are ready; not below 0."""
        missing = self.desired(reference) - self.ready(reference)
        return Series(missing.times, [max(0.0, v) for v in missing.values])

    @unit("pod-seconds")
    def unavailable_seconds(self, reference: str, span: Span | None = None) -> float:
        """The integral of `unavailable(ref)`: two pods missing for 3 s are 6."""
        return self.unavailable(reference).integral(span or Span(self.recording.mark("begin") or 0.0, self.recording.end))

    @unit("cores, bytes or units over time")
    def arrived(self, resource: str) -> Series:
        """Requests of a resource by all pods that ever came, on nodes or not."""
        key = ("arrived", resource)
        if key not in self._series:
            arrivals: set[str] = set()
            total, points = 0.0, [(0.0, 0.0)]
            for change in self.recording.of("pods"):
                uid = change.object["metadata"].get("uid", change.key)
                if uid not in arrivals:
                    arrivals.add(uid)
                    total += requests(change.object, resource)
                    points.append((change.time, total))
            self._series[key] = Series.of(points)
        return self._series[key]

    # A number a pod

    @unit("records")
    def lives(self, reference: str = "") -> list[Life]:
        """The pods of a reference, in the order in which they were made; for `count(...)` and Python."""
        if self._lives is None:
            self._lives = lives(self.recording)
        belongs = self._state().member(reference)
        return [life for life, tree in self._lives if belongs(tree)]

    @unit("seconds, a number a pod")
    def waits(self, reference: str = "") -> list[float]:
        """Time to schedule: from created to bound, of pods that were bound."""
        return [p.bound - p.created for p in self.lives(reference) if p.bound is not None]

    @unit("seconds, a number a pod")
    def starts(self, reference: str = "") -> list[float]:
        """From bound to ready for the first time."""
        return [p.ready - p.bound for p in self.lives(reference) if p.ready is not None and p.bound is not None]

    @unit("seconds, a number a pod")
    def readies(self, reference: str = "") -> list[float]:
        """From created to ready for the first time."""
        return [p.ready - p.created for p in self.lives(reference) if p.ready is not None]

    @unit("seconds, a number a pod")
    def lifetimes(self, reference: str = "") -> list[float]:
        """From created to gone, of pods that are gone."""
        return [p.deleted - p.created for p in self.lives(reference) if p.deleted is not None]

    @unit("seconds, a number a pod")
    def ends(self, reference: str = "") -> list[float]:
        """From the moment at which a pod was not ready any more, for the last time, to gone."""
        return [p.deleted - p.unready for p in self.lives(reference) if p.deleted is not None and p.unready is not None]

    # Counts

    @unit("pods")
    def bound(self, reference: str = "") -> int:
        """Pods that were bound to a node."""
        return sum(p.bound is not None for p in self.lives(reference))

    @unit("pods")
    def never_bound(self, reference: str = "") -> int:
        """Pods that no node ever had."""
        return sum(p.bound is None for p in self.lives(reference))

    @unit("pods")
    def evicted(self, reference: str = "") -> int:
        """Pods that were disrupted: evicted, preempted, or deleted because their node was lost."""
        return sum(p.evicted for p in self.lives(reference))

    @unit("pods")
    def evictions(self, reference: str = "") -> int:
        """Pods that the eviction API took away, as a drain does."""
        return self.disrupted(reference, EVICTION)

    @unit("pods")
    def preempted(self, reference: str = "") -> int:
        """Pods that the scheduler took away for others of a higher priority."""
        return self.disrupted(reference, PREEMPTION)

    @unit("pods")
    def disrupted(self, reference: str, reason: str) -> int:
        """Pods whose DisruptionTarget condition has a reason, such as "DeletionByTaintManager"."""
        return sum(p.disruption == reason for p in self.lives(reference))

    @unit("restarts")
    def restarts(self, reference: str = "") -> int:
        """Restarts of containers, as their statuses count them."""
        return sum(p.restarts for p in self.lives(reference))

    @unit("seconds")
    def makespan(self, reference: str = "") -> float:
        """From the first pod that was made to the last that was bound; nan if one never was."""
        pods = self.lives(reference)
        times = [p.bound for p in pods if p.bound is not None]
        return max(times) - min(p.created for p in pods) if pods and len(times) == len(pods) else math.nan
