"""How fast replicas may change: recent recommendations and changes are remembered and bound the next step. Pure.

The rules are Kubernetes' (spec.behavior of autoscaling/v2, and what holds without it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

from navarch.api.types import autoscaling_v2

Rules = autoscaling_v2.HPAScalingRules
Behavior = autoscaling_v2.HorizontalPodAutoscalerBehavior

UP_LIMIT_FACTOR, UP_LIMIT_MINIMUM = 2.0, 4
"""Without spec.behavior replicas at most double in one step, or go to four."""
WITHIN = ("DesiredWithinRange", "the desired count is within the acceptable range")
TOO_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
TOO_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
UP_LIMIT = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
DOWN_LIMIT = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
READY = ("ReadyForNewScale", "recommended size matches current size")
DOWN_STABILIZED = (
    "ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation",
)  # fmt: skip
UP_STABILIZED = (
    "ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation",
)  # fmt: skip


class Change(NamedTuple):
    """A change of the replica count, or a recommendation, at a time in seconds."""

    time: float
    replicas: int


@dataclass
class History:
    """The memory of one autoscaler."""

    recommendations: list[Change] = field(default_factory=list)
    added: list[Change] = field(default_factory=list)
    removed: list[Change] = field(default_factory=list)

    def scaled(self, behavior: Behavior | None, before: int, after: int, now: float) -> None:
        """Notes that the target was scaled; changes older than the longest period of a policy are forgotten."""
        if behavior is None:
            return
        if after > before:
            self.added = [*_recent(self.added, _longest(behavior.scale_up), now), Change(now, after - before)]
        else:
            self.removed = [*_recent(self.removed, _longest(behavior.scale_down), now), Change(now, before - after)]


class Step(NamedTuple):
    """Where to go, and what the conditions AbleToScale and ScalingLimited say: (reason, message)."""

    replicas: int
    able: tuple[str, str]
    limited: bool
    limit: tuple[str, str]


def _longest(rules: Rules | None) -> float:
    return max((p.period_seconds for p in (rules.policies if rules else None) or ()), default=0)


def _recent(changes: Sequence[Change], period: float, now: float) -> list[Change]:
    return [change for change in changes if change.time > now - period]


def next_step(
    behavior: Behavior | None, history: History, current: int, desired: int, low: int, high: int, window: float, now: float
) -> Step:
    """The step towards ``desired`` that is allowed now. ``window`` is the default scale-down window in seconds; ``low``
    and ``high`` are the autoscaler's bounds. The recommendation is remembered."""
    if behavior is None:
        stabilized = _stabilized_down(history, desired, window, now)
        able = DOWN_STABILIZED if stabilized != desired else READY
        replicas, limit = _bounded(current, stabilized, low, high)
    else:
        stabilized = _stabilized(behavior, history, current, desired, window, now)
        able = READY
        if stabilized != desired:
            able = UP_STABILIZED if desired >= current else DOWN_STABILIZED
        replicas, limit = _rated(behavior, history, current, stabilized, low, high, now)
    return Step(replicas, able, replicas != stabilized, limit)


def _stabilized_down(history: History, desired: int, window: float, now: float) -> int:
    recent = _recent(history.recommendations, window, now)
    history.recommendations = [*recent, Change(now, desired)]
    return max((change.replicas for change in history.recommendations), default=desired)


def _stabilized(behavior: Behavior, history: History, current: int, desired: int, window: float, now: float) -> int:
    up_window = (behavior.scale_up.stabilization_window_seconds if behavior.scale_up else None) or 0
    down = behavior.scale_down.stabilization_window_seconds if behavior.scale_down else None
    down_window = window if down is None else down
    lowest = min([desired, *(c.replicas for c in _recent(history.recommendations, up_window, now))])
    highest = max([desired, *(c.replicas for c in _recent(history.recommendations, down_window, now))])
    recent = _recent(history.recommendations, max(up_window, down_window), now)
    history.recommendations = [*recent, Change(now, desired)]
    return min(max(current, lowest), highest)


def _bounded(current: int, desired: int, low: int, high: int) -> tuple[int, tuple[str, str]]:
    fastest = int(max(UP_LIMIT_FACTOR * current, UP_LIMIT_MINIMUM))
    most, limit = (fastest, UP_LIMIT) if high > fastest else (high, TOO_MANY)
    if desired < low:
        return low, TOO_FEW
    return (most, limit) if desired > most else (desired, WITHIN)


def _rated(
    behavior: Behavior, history: History, current: int, desired: int, low: int, high: int, now: float
) -> tuple[int, tuple[str, str]]:
    if desired > current:
        # A change that is already forgotten could leave a limit below what runs: never go there.
        fastest = max(current, _limit_up(behavior.scale_up, history, current, now))
        most, limit = (fastest, UP_LIMIT) if high > fastest else (high, TOO_MANY)
        if desired > most:
            return most, limit
    elif desired < current:
        fastest = min(current, _limit_down(behavior.scale_down, history, current, now))
        least, limit = (fastest, DOWN_LIMIT) if low < fastest else (low, TOO_FEW)
        if desired < least:
            return least, limit
    return desired, WITHIN


def _period_start(history: History, current: int, period: float, now: float) -> int:
    """How many replicas there were when the period began."""
    added = sum(change.replicas for change in _recent(history.added, period, now))
    return current - added + sum(change.replicas for change in _recent(history.removed, period, now))


def _limit_up(rules: Rules | None, history: History, current: int, now: float) -> int:
    if rules is None or not rules.policies:
        return 2**31 - 1
    if rules.select_policy == "Disabled":
        return current
    limits = []
    for policy in rules.policies:
        start = _period_start(history, current, policy.period_seconds, now)
        limits.append(start + policy.value if policy.type == "Pods" else ceil(start * (100 + policy.value) / 100))
    return min(limits) if rules.select_policy == "Min" else max(limits)


def _limit_down(rules: Rules | None, history: History, current: int, now: float) -> int:
    if rules is None or not rules.policies:
        return 0
    if rules.select_policy == "Disabled":
        return current
    limits = []
    for policy in rules.policies:
        start = _period_start(history, current, policy.period_seconds, now)
        limits.append(start - policy.value if policy.type == "Pods" else int(start * (100 - policy.value) / 100))
    return max(limits) if rules.select_policy == "Min" else min(limits)
