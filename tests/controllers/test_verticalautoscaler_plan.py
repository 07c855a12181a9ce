"""The pure parts of the VerticalPodAutoscaler: histograms, recommendations, changes of pods, statuses, memory."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.verticalautoscaler import changes
from controllers.verticalautoscaler.histogram import CPU, MEMORY, RATIO, Histogram, Scale
from controllers.verticalautoscaler.memory import Memory
from controllers.verticalautoscaler.recommend import DAY, State, bounds, policy_of, recommendation
from controllers.verticalautoscaler.statuses import status
from navarch.api import kinds
from navarch.api.types import core_v1

MIB = 2**20
SAMPLES = st.lists(st.tuples(st.floats(0.0, 900.0), st.floats(0.1, 10.0)), min_size=1, max_size=40)


def filled(samples: list[tuple[float, float]], time: float = 0.0, scale: Scale = CPU) -> Histogram:
    out = Histogram(scale)
    for value, weight in samples:
        out.add(value, weight, time)
    return out


@given(SAMPLES, st.floats(0.01, 0.99))
def test_a_percentile_is_the_exact_one_or_within_its_bucket(samples: list[tuple[float, float]], share: float) -> None:
    result, goal = filled(samples).percentile(share, 0.0), share * sum(w for _, w in samples)
    sums = itertools.accumulate(weight for _, weight in sorted(samples))
    exact = next(value for (value, _), sum_ in zip(sorted(samples), sums, strict=True) if sum_ >= goal * (1 - 1e-9))
    assert exact * (1 - 1e-9) <= result <= exact * RATIO + CPU.first * 1.01


@given(SAMPLES, st.floats(0.0, 900.0), st.floats(0, 100 * DAY))
def test_what_is_subtracted_was_never_there(samples: list[tuple[float, float]], value: float, time: float) -> None:
    plain, other = filled(samples, time), filled(samples, time)
    other.add(value, 1.0, time)
    other.subtract(value, 1.0, time)
    assert [plain.percentile(p, time) for p in (0.1, 0.5, 0.9)] == [other.percentile(p, time) for p in (0.1, 0.5, 0.9)]


@given(st.floats(1.0, 400 * DAY), st.floats(0.1, 100.0))
def test_weights_halve_each_day_however_long_it_takes(later: float, weight: float) -> None:
    histogram = filled([(1.0, weight)])
    assert histogram.total(later) == pytest.approx(weight * 2 ** -(later / DAY), rel=1e-6, abs=1e-30)
    histogram.add(1.0, weight, later)
    assert histogram.total(later) == pytest.approx(weight * (1 + 2 ** -(later / DAY)), rel=1e-6)


def test_old_samples_give_way_to_new_ones() -> None:
    histogram = filled([(8.0, 100.0)])
    histogram.add(1.0, 10.0, 7 * DAY)
    assert histogram.percentile(0.9, 7 * DAY) < 1.06
    assert Histogram(CPU).percentile(0.9, 5.0) == 0


@given(SAMPLES, st.floats(0, 3 * DAY), st.floats(0, 30 * DAY))
def test_a_saved_histogram_is_nearly_the_same_one(samples: list[tuple[float, float]], saved: float, later: float) -> None:
    histogram = filled(samples)
    again = Histogram.load(CPU, msgspec.json.decode(msgspec.json.encode(histogram.save(saved))), saved)
    assert again.total(saved + later) == pytest.approx(histogram.total(saved + later), rel=1e-6)
    bucket = CPU.bucket(histogram.percentile(0.5, saved))
    low, high = (histogram.percentile(p, saved) for p in (0.49, 0.51))
    assert min(low, CPU.start(bucket)) * 0.999 <= again.percentile(0.5, saved) <= max(high, CPU.start(bucket + 1)) * 1.001


@pytest.mark.parametrize("bad", [{"bucketWeights": {"a": 1}}, {"bucketWeights": {"999": 1}}, {"bucketWeights": {"1": -1}}])
def test_a_bad_checkpoint_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Histogram.load(CPU, bad | {"totalWeight": 1.0}, 0.0)


def day(cpu: float, memory: float, days: float = 1.0) -> State:
    """A container that was sampled each minute."""
    state = State()
    for minute in range(int(days * 1440) + 1):
        state.sample("u", 60.0 * minute + 1, cpu, memory, 0.1)
    return state


def test_a_recommendation_is_use_and_a_margin_and_its_bounds_come_closer() -> None:
    one, week = (bounds(day(0.5, 800 * MIB, days), 1, days * DAY) for days in (1, 3))
    assert 0.5 * 1.15 <= one.target["cpu"] <= 0.5 * 1.15 * 1.06
    assert 800 * MIB * 1.15 <= one.target["memory"] <= 800 * MIB * 1.15 * 1.06 + 1.2e7
    assert one.lower["cpu"] < one.target["cpu"] < one.upper["cpu"]
    assert week.upper["cpu"] == pytest.approx(one.target["cpu"] * (1 + 1 / 3), rel=0.01)
    assert week.upper["cpu"] < one.upper["cpu"]


def test_a_container_that_does_nothing_gets_its_share_of_the_least() -> None:
    target = bounds(day(0.0, 1 * MIB, 0.01), 2, 900.0).target
    assert target == {"cpu": 0.0125, "memory": 125 * MIB}


def test_memory_counts_by_the_peak_of_a_day() -> None:
    state = State()
    for minute, size in enumerate([100, 900, 200, 300] * 300):
        state.sample("u", 60.0 * minute, 0.1, size * float(MIB), 0.1)
    assert state.memory.percentile(0.5, 72_000) >= 900 * MIB
    assert state.memory.total(state.peaks["u"].end) == pytest.approx(1.0)
    state.peak("u", 3 * DAY, 10 * float(MIB))
    assert state.memory.percentile(0.5, 3 * DAY) < 100 * MIB, "an old peak loses its weight"


def test_a_container_that_was_killed_for_want_of_memory_gets_more() -> None:
    state = day(0.1, 400 * MIB, 0.1)
    state.killed("u", 9000.0, 512 * MIB)
    assert state.memory.percentile(0.9, 9000.0) >= 612 * MIB
    state.killed("u", 9001.0, 0)
    assert state.memory.percentile(0.9, 9001.0) >= 612 * 1.2 * MIB * 0.95


def test_policies_limit_and_choose() -> None:
    advice = bounds(day(2.0, 800 * MIB, 0.1), 1, 9000.0)
    policy = {"minAllowed": {"memory": "4Gi"}, "maxAllowed": {"cpu": "500m"}}
    tree = recommendation("web", advice, policy)
    assert tree is not None and tree["target"] == {"cpu": "500m", "memory": "4294967296"}
    assert tree["upperBound"]["cpu"] == "500m" and tree["uncappedTarget"]["cpu"] not in ("500m", "2")
    only = recommendation("web", advice, {"controlledResources": ["cpu"]})
    assert only is not None and list(only["target"]) == ["cpu"]
    assert recommendation("web", advice, {"mode": "Off"}) is None
    listed = [{"containerName": "*", "mode": "Off"}, {"containerName": "web"}]
    assert policy_of(listed, "web") == listed[1] and policy_of(listed, "x") == listed[0] and policy_of([], "x") == {}


def vpa(mode: str = "Recreate", policy: dict[str, Any] | None = None, **target: str) -> dict[str, Any]:
    """An autoscaler whose recommendation for the container "c" has bounds of half and twice the target."""
    bounds_ = {"lowerBound": {"cpu": "100m"}, "target": target or {"cpu": "200m"}, "upperBound": {"cpu": "400m"}}
    return {
        "metadata": {"name": "v", "namespace": "d"},
        "spec": {"updatePolicy": {"updateMode": mode}, "resourcePolicy": {"containerPolicies": [policy] if policy else []}},
        "status": {"recommendation": {"containerRecommendations": [{"containerName": "c", **bounds_}]}},
    }  # fmt: skip


def test_limits_keep_their_proportion() -> None:
    target = {"cpu": "200m", "memory": "128Mi"}
    has = {"cpu": "100m"}, {"cpu": "1", "memory": "256Mi"}
    assert changes.resized(*has, target, {}) == (target, {"cpu": "2", "memory": "134217728"})
    only = changes.resized({"cpu": "100m"}, {"cpu": "150m"}, {"cpu": "200m"}, {"controlledValues": "RequestsOnly"})
    assert only == ({"cpu": "150m"}, {"cpu": "150m"})
    assert changes.resized({}, {}, target, {}) == (target, {})


@pytest.mark.parametrize(
    ("requests", "age", "due"),
    [
        ({"cpu": "90m"}, 0, True), ({"cpu": "100m"}, 0, False), ({"cpu": "0.4"}, 0, False), ({"cpu": "401m"}, 0, True),
        ({}, 0, True), ({"cpu": "200m"}, 1e6, False), ({"cpu": "185m"}, 1e6, False), ({"cpu": "150m"}, 1e6, True),
        ({"cpu": "150m"}, 3600, False), ({"memory": "1"}, 0, True),
    ],
)  # fmt: skip
def test_pods_are_due_outside_of_bounds_or_when_they_are_old(requests: dict[str, str], age: float, due: bool) -> None:
    assert changes.is_due(vpa(), [("c", requests, {})], age) == due
    assert not changes.is_due(vpa(), [("other", requests, {})], age)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 5))
def test_at_least_half_of_the_pods_stay(ready: int, total: int, least: int) -> None:
    ready = min(ready, total)
    count = changes.evictable(ready, total, least)
    assert 0 <= count <= max(1, total // 2)
    assert total >= least or count == 0
    assert ready - count >= total - max(1, total // 2) or count == 0


def test_new_pods_get_requests_and_a_note() -> None:
    both = [{"name": "x"}, {"name": "c", "resources": {"claims": [], "limits": {"cpu": "1"}}}]
    pod: dict[str, Any] = {"metadata": {}, "spec": {"containers": both}}
    patch = changes.admission_patch(vpa(), pod)
    assert patch[0] == {
        "op": "add", "path": "/spec/containers/1/resources",
        "value": {"claims": [], "limits": {"cpu": "200m"}, "requests": {"cpu": "200m"}},
    }  # fmt: skip
    assert patch[1]["value"] == {"vpaUpdates": "Pod resources updated by v"}
    pod["metadata"] = {"annotations": {"a": "b"}}
    assert changes.admission_patch(vpa(), pod)[1]["path"] == "/metadata/annotations/vpaUpdates"
    same = {"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "0.2"}}}]}}
    assert changes.admission_patch(vpa(), same) == []
    assert [changes.mode(vpa(m)) for m in ("Auto", "Off")] == ["Recreate", "Off"] and changes.mode({"spec": {}}) == "Recreate"


def pod(**more: Any) -> core_v1.Pod:
    tree = {
        "metadata": {"name": "p", "namespace": "d", "uid": "u"}, "status": more,
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "50m", "memory": "300Mi"}}}]},
    }  # fmt: skip
    out: core_v1.Pod = kinds.decoder(core_v1.Pod).decode(msgspec.json.encode(tree))
    return out


def measured(time: str, cpu: str = "100m", memory: str = "50Mi") -> dict[tuple[str, str], Any]:
    return {("d", "p"): {"timestamp": time, "containers": [{"name": "c", "usage": {"cpu": cpu, "memory": memory}}]}}


def test_memory_takes_each_sample_once_and_is_saved() -> None:
    memory = Memory()
    for _ in range(3):
        memory.feed([pod()], measured("2026-01-01T00:00:00Z"))
    memory.feed([pod()], measured("2026-01-01T00:01:00Z"))
    assert memory.states["c"].samples == 2
    again = Memory()
    again.load("c", msgspec.json.decode(msgspec.json.encode(memory.save(1767225700.0)["c"])))
    assert again.states["c"].samples == 2 and again.states["c"].last - again.states["c"].first == 60
    at = 1767225700.0
    assert again.states["c"].cpu.percentile(0.9, at) == memory.states["c"].cpu.percentile(0.9, at)
    with pytest.raises(ValueError, match="version"):
        again.load("c", {"version": "v0"})
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": "2026-01-01T00:02:00Z"}}
    states = [{"name": "c", "ready": True, "restartCount": 1, "image": "", "imageID": "", "state": {}, "lastState": ended}]
    memory.feed([pod(containerStatuses=states)], {})
    assert memory.states["c"].memory.percentile(0.9, at) >= 400 * MIB


def test_a_status_says_what_is_known() -> None:
    state = day(0.1, 100 * MIB, 0.1)
    one = status(vpa(), {"c": state}, [pod()], "", 9000.0)
    facts = {c["type"]: c["status"] for c in one["conditions"]}
    assert facts == {"LowConfidence": "True", "RecommendationProvided": "True"}
    (advice,) = one["recommendation"]["containerRecommendations"]
    assert advice["containerName"] == "c" and set(advice) == {
        "containerName", "target", "lowerBound", "upperBound", "uncappedTarget",
    }  # fmt: skip
    later = status(vpa() | {"status": one}, {"c": state}, [pod()], "", 9060.0)
    assert later["conditions"] == one["conditions"], "times stay while values stay"
    none = status(vpa() | {"status": {}}, {}, [pod()], "", 0.0)
    assert [(c["type"], c["status"], c["reason"]) for c in none["conditions"]] == [
        ("RecommendationProvided", "False", "NoSamples")
    ]
    empty = status(vpa() | {"status": one}, {}, [], "", 0.0)
    assert {c["type"]: c["status"] for c in empty["conditions"]} == {"NoPodsMatched": "True", "RecommendationProvided": "True"}
    (bad,) = status(vpa(), {}, [], "no such target", 0.0)["conditions"]
    assert (bad["type"], bad["message"]) == ("ConfigUnsupported", "no such target")


def test_scales_reach_as_far_as_they_say() -> None:
    for scale in (CPU, MEMORY):
        assert scale.start(scale.buckets - 1) <= scale.most < scale.start(scale.buckets)
        assert scale.bucket(scale.most * 100) == scale.buckets - 1
