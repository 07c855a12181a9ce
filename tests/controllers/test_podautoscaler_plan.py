"""Replica counts and the pace of scaling: pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.podautoscaler.behavior import Behavior, Change, History, Step, next_step
from controllers.podautoscaler.evaluate import selector_text
from controllers.podautoscaler.replicas import (
    MetricError,
    Patience,
    Pod,
    Proposal,
    Sample,
    Tolerance,
    by_average,
    by_share,
    by_utilization,
    by_value,
)
from navarch.api.kinds import decoder
from navarch.api.times import format_time
from navarch.api.types import meta_v1
from navarch.api.types.autoscaling_v2 import HPAScalingPolicy, HPAScalingRules

NOW = 1_000_000.0
OLD = NOW - 3600
TOLERANCE, PATIENCE = Tolerance(), Patience()


def pod(
    name: str, request: str | None = "100m", phase: str = "Running", ready: bool = True, started: float = OLD,
    changed: float = OLD, deleted: bool = False,
) -> Pod:  # fmt: skip
    resources: dict[str, Any] = {"requests": {"cpu": request}} if request else {}
    condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": format_time(changed)}
    tree: dict[str, Any] = {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "a", "image": "i", "resources": resources}]},
        "status": {"phase": phase, "startTime": format_time(started), "conditions": [condition]},
    }
    if deleted:
        tree["metadata"]["deletionTimestamp"] = format_time(NOW)
    import json

    return decoder(Pod).decode(json.dumps(tree).encode())


def utilized(pods: list[Pod], used: dict[str, int], target: int = 50, current: int | None = None) -> Proposal:
    samples = {name: Sample(value, NOW, 30.0) for name, value in used.items()}
    count = len(pods) if current is None else current
    return by_utilization(count, target, "cpu", "", pods, samples, TOLERANCE, PATIENCE, NOW)


def pods(count: int, **options: Any) -> list[Pod]:
    return [pod(f"p{i}", **options) for i in range(count)]


@pytest.mark.parametrize(
    ("used", "replicas", "utilization"),
    [
        ([100, 100, 100], 6, 100),  # twice the target: twice the pods
        ([25, 25, 25], 2, 25),  # half of it: half of them, rounded up
        ([54, 54, 54], 3, 54),  # within ten per cent
        ([55, 55, 56], 3, 55),  # a whole per cent is what counts: 55/50 is 1.1
        ([56, 56, 57], 4, 56),
        ([0, 0, 0], 0, 0),
    ],
)
def test_utilization(used: list[int], replicas: int, utilization: int) -> None:
    proposal = utilized(pods(3), {f"p{i}": value for i, value in enumerate(used)})
    assert (proposal.replicas, proposal.utilization) == (replicas, utilization)


def test_pods_without_samples_are_assumed_to_use_what_they_may_when_fewer_are_wanted() -> None:
    assert utilized(pods(4), {"p0": 10, "p1": 10, "p2": 10}, target=50).replicas == 3  # 130 % of 400m / 4 is 32 %
    assert utilized(pods(2), {"p0": 10}, target=50).replicas == 2, "they would turn it around: nothing changes"


def test_pods_without_samples_are_assumed_to_use_nothing_when_more_are_wanted() -> None:
    assert utilized(pods(4), {"p0": 100, "p1": 100, "p2": 100}).replicas == 6  # 300 of 400: 75 %
    assert utilized(pods(3), {"p0": 100}).replicas == 3


def test_unready_pods_count_as_idle_when_more_are_wanted_and_not_at_all_when_fewer() -> None:
    starting = pod("p3", ready=False, started=NOW - 60, changed=NOW - 60)
    assert utilized([*pods(3), starting], {"p0": 100, "p1": 100, "p2": 100, "p3": 900}).replicas == 6
    assert utilized([*pods(3), starting], {"p0": 25, "p1": 25, "p2": 25, "p3": 900}).replicas == 2
    assert utilized([*pods(3), pod("p3", phase="Pending")], {"p0": 100, "p1": 100, "p2": 100}).replicas == 6


def test_a_young_pod_counts_once_a_whole_window_lies_behind_its_readiness() -> None:
    young = [pod("p0", started=NOW - 60, changed=NOW - 20)]
    with pytest.raises(MetricError, match="pods might be unready"):
        utilized(young, {"p0": 100})
    grown = [pod("p0", started=NOW - 60, changed=NOW - 40)]
    assert utilized(grown, {"p0": 100}).replicas == 2


def test_an_old_pod_that_became_unready_counts_and_one_that_never_was_ready_does_not() -> None:
    assert utilized([pod("p0", ready=False, changed=NOW - 10)], {"p0": 100}).replicas == 2
    with pytest.raises(MetricError):
        utilized([pod("p0", ready=False, changed=OLD + 5)], {"p0": 100})


def test_deleted_and_failed_pods_are_left_out() -> None:
    gone = [pod("p3", deleted=True), pod("p4", phase="Failed")]
    assert utilized([*pods(3), *gone], {f"p{i}": 100 for i in range(5)}, current=3).replicas == 6


@pytest.mark.parametrize(
    ("given_pods", "used", "message"),
    [
        ([], {"p0": 1}, "no pods returned by selector while calculating replica count"),
        ([pod("p0", request=None)], {"p0": 1}, "missing request for cpu in container a of Pod p0"),
        ([pod("p0", phase="Pending")], {"p0": 1}, r"did not receive metrics for targeted pods \(pods might be unready\)"),
        ([pod("p0")], {"p1": 1}, "no metrics returned matched known pods"),
    ],
)
def test_errors(given_pods: list[Pod], used: dict[str, int], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        utilized(given_pods, used)


def test_averages_values_and_shares() -> None:
    samples = {f"p{i}": Sample(20_000, NOW, 60.0) for i in range(3)}
    assert by_average(3, 10_000, "", pods(3), samples, TOLERANCE, PATIENCE, NOW) == Proposal(6, 0, 20_000)
    assert by_value(3, 20_000, 10_000, pods(3), TOLERANCE) == 6
    assert by_value(0, 25_000, 10_000, [], TOLERANCE) == 3, "from zero the ratio is the count"
    assert by_value(3, 10_500, 10_000, pods(3), TOLERANCE) == 3
    assert by_share(2, 90_000, 10_000, TOLERANCE) == Proposal(9, 0, 10_000)
    assert by_share(0, 0, 10_000, TOLERANCE).replicas == 0 and by_share(0, 5_000, 10_000, TOLERANCE).replicas == 1


@given(
    st.integers(1, 40), st.integers(1, 100), st.lists(st.integers(0, 400), min_size=1, max_size=40), st.integers(0, 40)
)
def test_a_missing_sample_never_makes_a_step_larger(current: int, target: int, used: list[int], missing: int) -> None:
    """What is not known weakens the step or leaves it; it never goes the other way or further."""
    count = max(current, len(used))
    known = {f"p{i}": value for i, value in enumerate(used)}
    whole = utilized(pods(len(used)), known, target, current=len(used)).replicas
    with_gaps = utilized(pods(count + missing), known, target, current=count + missing).replicas
    if whole > len(used):
        assert with_gaps >= count + missing
    elif whole < len(used):
        assert with_gaps <= count + missing


def rules(select: str = "Max", window: int | None = None, **policies: tuple[int, int]) -> HPAScalingRules:
    made = [HPAScalingPolicy(type=t, value=v, period_seconds=p) for t, (v, p) in policies.items()]
    return HPAScalingRules(policies=made, select_policy=select, stabilization_window_seconds=window)


def step(behavior: Behavior | None, history: History, current: int, desired: int, now: float = 0.0) -> Step:
    return next_step(behavior, history, current, desired, 1, 100, 300.0, now)


def test_without_behavior_replicas_double_or_go_to_four() -> None:
    assert step(None, History(), 1, 50).replicas == 4
    assert step(None, History(), 10, 50)[::3] == (20, ("ScaleUpLimit", step(None, History(), 10, 50).limit[1]))
    assert step(None, History(), 60, 500).limit[0] == "TooManyReplicas"
    assert step(None, History(), 2, 0).limit[0] == "TooFewReplicas"


def test_a_lower_count_waits_for_the_window() -> None:
    history = History([Change(0, 10)])
    assert step(None, history, 10, 2, now=100).able[0] == "ScaleDownStabilized"
    assert step(None, history, 10, 2, now=299).replicas == 10
    last = step(None, history, 10, 2, now=301)
    assert last.replicas == 2 and last.able[0] == "ReadyForNewScale"


def test_policies_bound_the_change_of_a_period() -> None:
    behavior = Behavior(scale_up=rules(Pods=(4, 60), Percent=(10, 60)), scale_down=rules(Percent=(50, 60), window=0))
    history = History()
    assert step(behavior, history, 10, 80, now=0).replicas == 14
    history.scaled(behavior, 10, 14, 0)
    blocked = step(behavior, history, 14, 80, now=30)
    assert (blocked.replicas, blocked.limited, blocked.limit[0]) == (14, True, "ScaleUpLimit")
    assert step(behavior, history, 14, 80, now=61).replicas == 18
    fresh = History()
    assert step(behavior, fresh, 80, 1, now=100).replicas == 40
    fresh.scaled(behavior, 80, 40, 100)
    assert step(behavior, fresh, 40, 1, now=130).replicas == 40
    assert step(behavior, fresh, 40, 1, now=161).replicas == 20


def test_select_policy() -> None:
    slow = Behavior(scale_up=rules("Min", Pods=(4, 60), Percent=(10, 60)), scale_down=rules("Disabled", Pods=(1, 60)))
    assert step(slow, History(), 10, 80).replicas == 11
    assert step(slow, History(), 10, 1, now=1000).replicas == 10


def test_scale_up_waits_for_its_window_too() -> None:
    behavior = Behavior(scale_up=rules(window=60, Percent=(900, 15)), scale_down=rules(window=0, Percent=(100, 15)))
    history = History([Change(0, 2)])
    assert step(behavior, history, 2, 10, now=30).able[0] == "ScaleUpStabilized"
    assert step(behavior, history, 2, 10, now=61).replicas == 10


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 200)), max_size=30))
def test_every_step_stays_within_the_bounds(recommendations: list[tuple[int, int]]) -> None:
    behavior = Behavior(scale_up=rules(Pods=(4, 60)), scale_down=rules(window=120, Pods=(3, 60)))
    history, current, now = History(), 5, 0.0
    scaled: list[tuple[float, int]] = []
    for seconds, desired in recommendations:
        now += seconds
        after = step(behavior, history, current, desired, now).replicas
        assert 1 <= after <= 100
        if after == current:
            continue
        history.scaled(behavior, current, after, now)
        scaled.append((now, after - current))
        # From the start of the period that ends now: what was taken away within it may come back besides.
        net = sum(delta for time, delta in scaled if time > now - 60)
        assert net <= 4 if after > current else net >= -3
        current = after


def test_selectors_in_messages_look_as_go_prints_them() -> None:
    selector = meta_v1.LabelSelector(match_labels={"queue": "a"})
    text = "&LabelSelector{MatchLabels:map[string]string{queue: a,},MatchExpressions:[]LabelSelectorRequirement{},}"
    assert selector_text(selector) == text and selector_text(None) == "nil"
