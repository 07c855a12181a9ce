"""The order in which a node's pods end at a graceful shutdown, and their time: kubelet's three settings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from navarch.api.durations import parse_duration
from navarch.api.types import core_v1
from navarch.api.wellknown import CRITICAL_PRIORITY

STATE_FILE = "graceful_node_shutdown_state"
"""The file of the agent's root directory that tells how far a shutdown is, named and written as kubelet's:
``{"startTime": ..., "endTime": ...}``."""


class Period(NamedTuple):
    """Pods of at least this priority, but of less than the next period's, get so many seconds."""

    priority: int
    seconds: float


def shutdown_periods(grace: float, critical: float, by_priority: str = "") -> tuple[Period, ...]:
    """The periods that kubelet's three settings describe, lowest priority first; none if shutdowns are not graceful.

    ``by_priority``: ``PRIORITY=DURATION,...``. Raises ValueError.
    """
    if by_priority:
        return read_periods(by_priority)
    if critical > grace:
        raise ValueError("the grace period of critical pods is part of the whole, and cannot be longer")
    return (Period(0, grace - critical), Period(CRITICAL_PRIORITY, critical)) if grace > 0 else ()


def read_periods(text: str) -> tuple[Period, ...]:
    """Periods by priority. Raises ValueError."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    listed = sorted(Period(int(priority), parse_duration(seconds)) for priority, _, seconds in pairs)
    if len({p.priority for p in listed}) < len(listed):
        raise ValueError("a priority stands there twice")
    return tuple(listed)


def groups(listed: Sequence[Period], pods: Iterable[core_v1.Pod]) -> list[tuple[float, list[core_v1.Pod]]]:
    """Pods by period, those that end first in front; periods without pods are left out. Pods below the lowest priority
    belong to the lowest."""
    out: list[tuple[float, list[core_v1.Pod]]] = [(period.seconds, []) for period in listed]
    for pod in pods:
        priority = pod.spec.priority or 0
        index = max((i for i, period in enumerate(listed) if period.priority <= priority), default=0)
        out[index][1].append(pod)
    return [(seconds, members) for seconds, members in out if members]


def grace_of(seconds: float, pod: core_v1.Pod) -> float:
    """Seconds that a pod of a group gets: its own grace period where that is shorter."""
    own = pod.spec.termination_grace_period_seconds
    return seconds if own is None else min(seconds, float(own))
