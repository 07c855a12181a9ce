"""Recommendations from histograms, and the policies that limit them: pure. CPU is in cores, memory in bytes.

The figures are those of Kubernetes' recommender: target the 90th percentile, bounds the 50th and 95th, 15 % on top, at least
25 millicores and 250 MiB a pod. The bounds are wide while little is known and come closer day by day: with c days of samples
the lower one is multiplied by (1 + 0.001/c)^-2, the upper one by 1 + 1/c. Memory counts by the peak of each day, cpu by each
sample, weighted with the request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from controllers.verticalautoscaler.histogram import CPU, MEMORY, Histogram
from navarch.api import quantity

Tree = dict[str, Any]
DAY = 86_400.0
MARGIN = 1.15
LOWER, TARGET, UPPER = 0.5, 0.9, 0.95
MIN_AMOUNT = {"cpu": 0.025, "memory": 250.0 * 2**20}
"""Of a pod; containers share it."""
MAX_AMOUNT = {"cpu": CPU.most, "memory": MEMORY.most}
MIN_WEIGHT = 0.1
SAMPLES_A_DAY = 24 * 60
OOM_RATIO, OOM_MORE = 1.2, 100.0 * 2**20
"""After a container was killed for want of memory, it is taken to need so much more."""
RESOURCES = ("cpu", "memory")


@dataclass
class Peak:
    """The highest use of memory of one container in the day that ends at ``end``."""

    end: float
    value: float = 0.0


@dataclass
class State:
    """All that is known of the containers of one name of one workload."""

    cpu: Histogram = field(default_factory=lambda: Histogram(CPU))
    memory: Histogram = field(default_factory=lambda: Histogram(MEMORY))
    first: float = 0.0
    last: float = 0.0
    samples: int = 0
    peaks: dict[str, Peak] = field(default_factory=dict)
    """By the pod's uid."""

    def sample(self, uid: str, time: float, cpu: float, memory: float, request: float) -> None:
        """One sample of a pod's container; ``request`` of cpu."""
        self.cpu.add(cpu, max(request, MIN_WEIGHT), time)
        self.first = self.first or time
        self.last = max(self.last, time)
        self.samples += 1
        self.peak(uid, time, memory)

    def peak(self, uid: str, time: float, memory: float) -> None:
        """A use of memory; only the highest of each day counts."""
        peak = self.peaks.get(uid)
        if peak is None:
            peak = self.peaks[uid] = Peak(time + DAY)
        elif time >= peak.end:
            days = (time - peak.end) // DAY + 1
            peak = self.peaks[uid] = Peak(peak.end + days * DAY)
        if memory > peak.value:
            if peak.value > 0:
                self.memory.subtract(peak.value, 1.0, peak.end)
            self.memory.add(memory, 1.0, peak.end)
            peak.value = memory

    def killed(self, uid: str, time: float, request: float) -> None:
        """The container was killed for want of memory."""
        peak = self.peaks.get(uid)
        used = max(request, peak.value if peak is not None and time < peak.end else 0.0)
        self.peak(uid, time, max(used + OOM_MORE, used * OOM_RATIO))

    def confidence(self) -> float:
        """In days."""
        return min((self.last - self.first) / DAY, self.samples / SAMPLES_A_DAY)


class Bounds(NamedTuple):
    """By resource."""

    lower: dict[str, float]
    target: dict[str, float]
    upper: dict[str, float]


def bounds(state: State, containers: int, now: float) -> Bounds:
    """The recommendation for one of so many containers of a pod, before any policy."""
    days = state.confidence()
    out = Bounds({}, {}, {})
    for resource, histogram in (("cpu", state.cpu), ("memory", state.memory)):
        least, most = MIN_AMOUNT[resource] / max(containers, 1), MAX_AMOUNT[resource]
        low, middle, high = (histogram.percentile(share, now) * MARGIN for share in (LOWER, TARGET, UPPER))
        low *= (1 + 0.001 / days) ** -2 if days > 0 else 0.0
        high = high * (1 + 1 / days) if days > 0 else most
        for part, value in zip(out, (low, middle, high), strict=True):
            part[resource] = min(max(value, least), most)
    return out


def policy_of(policies: Sequence[Tree], container: str) -> Tree:
    """The policy of a container: its own, or that of "*"."""
    by_name = {policy.get("containerName") or "*": policy for policy in policies}
    return by_name.get(container) or by_name.get("*") or {}


def recommendation(container: str, advice: Bounds, policy: Tree) -> Tree | None:
    """A ContainerRecommendation; None if the policy switches it off."""
    resources = policy.get("controlledResources")
    resources = [r for r in RESOURCES if resources is None or r in resources]
    if policy.get("mode") == "Off" or not resources:
        return None

    def shown(values: Mapping[str, float], capped: bool = True) -> dict[str, str]:
        return {r: _text(r, _cap(values[r], r, policy) if capped else values[r]) for r in resources}

    return {
        "containerName": container, "lowerBound": shown(advice.lower), "target": shown(advice.target),
        "uncappedTarget": shown(advice.target, False), "upperBound": shown(advice.upper),
    }  # fmt: skip


def _cap(value: float, resource: str, policy: Tree) -> float:
    least, most = ((policy.get(name) or {}).get(resource) for name in ("minAllowed", "maxAllowed"))
    if most is not None:
        value = min(value, float(quantity.parse(most)))
    return max(value, float(quantity.parse(least))) if least is not None else value


def _text(resource: str, value: float) -> str:
    return quantity.from_milli(round(1000 * value)) if resource == "cpu" else quantity.from_value(round(value))
