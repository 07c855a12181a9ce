"""The status of a VerticalPodAutoscaler: recommendations and conditions: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controllers.verticalautoscaler.changes import policies
from controllers.verticalautoscaler.recommend import State, bounds, policy_of, recommendation
from navarch.api.times import format_time
from navarch.api.types import core_v1

Tree = dict[str, Any]
SURE = 1.0
"""Days of samples below which a recommendation is told to be of low confidence."""


def status(vpa: Tree, states: Mapping[str, State], pods: Sequence[core_v1.Pod], fault: str, now: float) -> Tree:
    """``pods``: those that it is about; ``fault``: why its target cannot be used, "" if it can."""
    old = vpa.get("status") or {}
    facts: dict[str, tuple[bool, str, str]] = {}
    provided = old.get("recommendation")
    if fault:
        facts["ConfigUnsupported"] = True, "", fault
    elif not pods:
        text = "No pods match this VPA object"
        facts["NoPodsMatched"] = True, "NoPodsMatched", text
        facts["RecommendationProvided"] = bool(provided), *(("", "") if provided else ("NoPodsMatched", text))
    else:
        names = sorted({c.name for pod in pods for c in pod.spec.containers})
        most = max(len(pod.spec.containers) for pod in pods)
        measured = [name for name in names if name in states and states[name].samples]
        chosen = [
            one for name in measured
            if (one := recommendation(name, bounds(states[name], most, now), policy_of(policies(vpa), name))) is not None
        ]  # fmt: skip
        provided = {"containerRecommendations": chosen} if measured else provided
        why = ("", "") if measured else ("NoSamples", "the pods have no metrics yet")
        facts["RecommendationProvided"] = bool(measured), *why
        unsure = [name for name in measured if states[name].confidence() < SURE]
        if unsure:
            text = f"less than a day of samples of: {', '.join(unsure)}"
            facts["LowConfidence"] = True, "", text
    out: Tree = {"conditions": _conditions(old.get("conditions") or (), facts, now)}
    return out | ({"recommendation": provided} if provided else {})


def _conditions(old: Sequence[Tree], facts: Mapping[str, tuple[bool, str, str]], now: float) -> list[Tree]:
    """The conditions of these facts; times move with values."""
    before = {one["type"]: one for one in old}
    out = []
    for type_, (is_true, reason, message) in sorted(facts.items()):
        value = "True" if is_true else "False"
        same = before.get(type_, {}).get("status") == value
        one = {"type": type_, "status": value, "lastTransitionTime": format_time(now)}
        if same:
            one["lastTransitionTime"] = before[type_].get("lastTransitionTime") or one["lastTransitionTime"]
        out.append(one | ({"reason": reason} if reason else {}) | ({"message": message} if message else {}))
    return out
