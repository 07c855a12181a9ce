"""Replica counts from metrics: pure functions of samples, pods and targets.

The rules are Kubernetes' (pkg/controller/podautoscaler, version 1.34). Amounts are in thousandths (milli-units) of
whatever is measured: millicores, milli-bytes, thousandths of a request a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from typing import NamedTuple

from navarch.api import quantity
from navarch.api.conditions import get_condition
from navarch.api.pods import is_ready, is_sidecar
from navarch.api.times import parse_time
from navarch.api.types import core_v1

Pod = core_v1.Pod


class MetricError(Exception):
    """A metric gives no replica count; the message is the one that Kubernetes shows."""


class Sample(NamedTuple):
    """One pod's use. ``time`` is when the window of ``window`` seconds ended (Unix time)."""

    value: int
    time: float = 0.0
    window: float = 0.0


class Tolerance(NamedTuple):
    """How far the ratio of use to target may be from 1 before anything is scaled: 0.1 is ten per cent."""

    down: float = 0.1
    up: float = 0.1

    def covers(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


class Patience(NamedTuple):
    """How young pods are treated, in seconds: their CPU while they start, and how long readiness may take at first."""

    cpu_initialization: float = 300.0
    initial_readiness: float = 30.0


class Proposal(NamedTuple):
    """One metric's proposal. ``utilization`` is in per cent of requests, ``average`` in thousandths a pod."""

    replicas: int
    utilization: int = 0
    average: int = 0


class Groups(NamedTuple):
    """Pods by what their samples are good for, by name."""

    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


def _name(pod: Pod) -> str:
    return pod.metadata.name or ""


def group_pods(pods: Iterable[Pod], samples: Mapping[str, Sample], resource: str, patience: Patience, now: float) -> Groups:
    """Sorts pods. ``resource`` is "" for metrics that are no resources: only CPU makes starting pods look busy."""
    ready = 0
    unready, missing, ignored = set(), set(), set()
    for pod in pods:
        sample = samples.get(_name(pod))
        if pod.metadata.deletion_timestamp is not None or pod.status.phase == "Failed":
            ignored.add(_name(pod))
        elif pod.status.phase == "Pending":
            unready.add(_name(pod))
        elif sample is None:
            missing.add(_name(pod))
        elif resource == "cpu" and _still_starting(pod, sample, patience, now):
            unready.add(_name(pod))
        else:
            ready += 1
    return Groups(ready, frozenset(unready), frozenset(missing), frozenset(ignored))


def _still_starting(pod: Pod, sample: Sample, patience: Patience, now: float) -> bool:
    condition = get_condition(pod.status.conditions, "Ready")
    if condition is None or not pod.status.start_time:
        return True
    started = parse_time(pod.status.start_time)
    changed = parse_time(condition.last_transition_time) if condition.last_transition_time else 0.0
    if started + patience.cpu_initialization > now:
        # A sample counts only if all of its window lies behind the pod's becoming ready.
        return condition.status == "False" or sample.time < changed + sample.window
    # Later only a pod that was never ready is left out: its last change was its first one.
    return condition.status == "False" and started + patience.initial_readiness > changed


def requests_of(pods: Iterable[Pod], container: str, resource: str) -> dict[str, int]:
    """Requests by pod, in thousandths. Raises MetricError if a container has none."""
    out: dict[str, int] = {}
    for pod in pods:
        own = (pod.spec.resources.requests or {}) if pod.spec.resources is not None else {}
        if not container and resource in own:
            out[_name(pod)] = quantity.milli(own[resource])
            continue
        total = 0
        sidecars = [c for c in pod.spec.init_containers or () if is_sidecar(c)]
        for one in (*pod.spec.containers, *sidecars):
            if container and one.name != container:
                continue
            amount = ((one.resources.requests if one.resources is not None else None) or {}).get(resource)
            if amount is None:
                raise MetricError(f"missing request for {resource} in container {one.name} of Pod {_name(pod)}")
            total += quantity.milli(amount)
        out[_name(pod)] = total
    return out


class _Use(NamedTuple):
    ratio: float
    utilization: int
    average: int


def _utilization(samples: Mapping[str, Sample], requests: Mapping[str, int], target: int) -> _Use:
    """Use in per cent of requests against ``target`` per cent. Raises MetricError."""
    names = [name for name in samples if name in requests]
    total_request = sum(requests[name] for name in names)
    if total_request == 0:
        raise MetricError("no metrics returned matched known pods")
    used = sum(samples[name].value for name in names)
    per_cent = used * 100 // total_request
    return _Use(per_cent / target, per_cent, used // len(names))


def _usage(samples: Mapping[str, Sample], target: int) -> _Use:
    average = sum(sample.value for sample in samples.values()) // len(samples)
    return _Use(average / target, 0, average)


def _counted(pods: Sequence[Pod], samples: Mapping[str, Sample], groups: Groups) -> dict[str, Sample]:
    if not pods:
        raise MetricError("no pods returned by selector while calculating replica count")
    out = {n: s for n, s in samples.items() if n not in groups.ignored and n not in groups.unready}
    if not out:
        raise MetricError("did not receive metrics for targeted pods (pods might be unready)")
    return out


def by_utilization(
    current: int, target: int, resource: str, container: str, pods: Sequence[Pod], samples: Mapping[str, Sample],
    tolerance: Tolerance, patience: Patience, now: float,
) -> Proposal:  # fmt: skip
    """Replicas so that pods use ``target`` per cent of what they request. Raises MetricError."""
    groups = group_pods(pods, samples, resource, patience, now)
    counted = _counted(pods, samples, groups)
    requests = requests_of(pods, container, resource)
    use = _utilization(counted, requests, target)

    def whole(name: str) -> int:
        return requests[name] * max(100, target) // 100

    def again(all_samples: Mapping[str, Sample]) -> float:
        return _utilization(all_samples, requests, target).ratio

    replicas = _replicas(current, use.ratio, counted, groups, tolerance, whole, again)
    return Proposal(replicas, use.utilization, use.average)


def by_average(
    current: int, target: int, resource: str, pods: Sequence[Pod], samples: Mapping[str, Sample],
    tolerance: Tolerance, patience: Patience, now: float,
) -> Proposal:  # fmt: skip
    """Replicas so that a pod's use is ``target`` thousandths on average. Raises MetricError."""
    groups = group_pods(pods, samples, resource, patience, now)
    counted = _counted(pods, samples, groups)
    use = _usage(counted, target)

    def again(all_samples: Mapping[str, Sample]) -> float:
        return _usage(all_samples, target).ratio

    replicas = _replicas(current, use.ratio, counted, groups, tolerance, lambda name: target, again)
    return Proposal(replicas, 0, use.average)


def _replicas(
    current: int, ratio: float, counted: dict[str, Sample], groups: Groups, tolerance: Tolerance,
    whole: Callable[[str], int], again: Callable[[Mapping[str, Sample]], float],
) -> int:  # fmt: skip
    """The replicas that the ratio asks for, after assuming the worst of pods without a sample: that they use all they
    may when fewer are wanted, and nothing when more are. What they would turn around is left as it is."""
    unready_count = bool(groups.unready) and ratio > 1.0
    if not unready_count and not groups.missing:
        return current if tolerance.covers(ratio) else ceil(ratio * groups.ready)
    for name in sorted(groups.missing):
        if ratio < 1.0:
            counted[name] = Sample(whole(name))
        elif ratio > 1.0:
            counted[name] = Sample(0)
    if unready_count:
        counted.update({name: Sample(0) for name in sorted(groups.unready)})
    new = again(counted)
    if tolerance.covers(new) or (ratio < 1.0 < new) or (new < 1.0 < ratio):
        return current
    replicas = ceil(new * len(counted))
    if (new < 1.0 and replicas > current) or (new > 1.0 and replicas < current):
        return current
    return replicas


def by_value(current: int, value: int, target: int, pods: Sequence[Pod], tolerance: Tolerance) -> int:
    """Replicas so that one number about all pods together comes to ``target``. Raises MetricError.

    From zero replicas the ratio itself is the count: that is what makes scaling from zero possible.
    """
    ratio = value / target
    if current == 0:
        return ceil(ratio)
    if tolerance.covers(ratio):
        return current
    if not pods:
        raise MetricError("no pods returned by selector while calculating replica count")
    return ceil(ratio * sum(pod.status.phase == "Running" and is_ready(pod) for pod in pods))


def by_share(replicas: int, value: int, target: int, tolerance: Tolerance) -> Proposal:
    """Replicas so that one number about all pods, divided by them, comes to ``target``."""
    ratio = value / (target * replicas) if replicas else float("inf") if value else 1.0
    if not tolerance.covers(ratio):
        replicas = ceil(value / target)
    return Proposal(replicas, 0, ceil(value / replicas) if replicas else 0)
