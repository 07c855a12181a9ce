"""Simulated probes follow every field; stage times have distributions drawn from the seed (CASES D3)."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.types import core_v1
from nodeagent.hollow.probing import Probing
from nodeagent.pods.probes import FIRST_DELAY, Counter
from nodeagent.runtime.spread import Spread, spread
from nodeagent.runtime.stages import Drawn, Stages, stages

T0 = 1000.0


def probe(**fields: Any) -> core_v1.Probe:
    return core_v1.Probe(tcp_socket=core_v1.TCPSocketAction(port=80), **fields)


def turns(probing: Probing, until: float) -> list[tuple[float, str]]:
    """When what the probes say changes, in seconds since the start."""
    out, before = [], probing.view(T0)
    while (wake := probing.wake) is not None and wake <= T0 + until:
        now = probing.view(wake)
        if now != before:
            for what in ("started", "ready", "failed"):
                if getattr(now, what) != getattr(before, what):
                    out.append((round(wake - T0, 3), f"{what}={getattr(now, what)}"))
        before = now
    return out


def of(declared: Drawn, **probes: core_v1.Probe) -> Probing:
    return Probing(core_v1.Container(name="c", **probes), declared, T0, random.Random(0))


@pytest.mark.parametrize(
    ("fields", "declared", "at"),
    [
        ({}, Drawn(), FIRST_DELAY),
        ({"initial_delay_seconds": 7}, Drawn(), 7),
        ({"period_seconds": 1}, Drawn(ready=3.5), 4.2),
        ({"period_seconds": 5}, Drawn(ready=3.5), 5.2),
        ({"period_seconds": 10}, Drawn(ready=3.5), 10.2),
        ({"period_seconds": 2, "success_threshold": 3}, Drawn(), 4.2),
        ({"period_seconds": 2, "initial_delay_seconds": 4}, Drawn(ready=5), 6),
        ({"period_seconds": 2}, Drawn(answer=0.5), 0.7),
        ({"period_seconds": 2, "timeout_seconds": 3}, Drawn(answer=2.5), 2.7),
    ],
)
def test_when_a_container_is_ready(fields: dict[str, Any], declared: Drawn, at: float):
    found = [(when, what) for when, what in turns(of(declared, readiness_probe=probe(**fields)), 60) if "True" in what]
    assert found == [(pytest.approx(at), "ready=True")]


def test_answers_that_take_longer_than_the_timeout_never_succeed():
    assert turns(of(Drawn(answer=1.5), readiness_probe=probe(period_seconds=1, failure_threshold=1)), 60) == [
        (1.2, "ready=False")
    ]


def test_a_container_that_hangs_is_unready_and_then_stopped_by_its_thresholds():
    probing = of(
        Drawn(hang=10),
        readiness_probe=probe(period_seconds=1, failure_threshold=2),
        liveness_probe=probe(period_seconds=5, failure_threshold=3),
    )
    assert turns(probing, 60) == [(0.2, "ready=True"), (11.2, "ready=False"), (20.2, "failed=Liveness")]


def test_liveness_and_readiness_wait_for_the_startup_probe():
    probes = {
        "startup_probe": probe(period_seconds=4, failure_threshold=3),
        "liveness_probe": probe(period_seconds=1, failure_threshold=1),
        "readiness_probe": probe(period_seconds=3, initial_delay_seconds=6),
    }
    assert turns(of(Drawn(startup=7), **probes), 60) == [(8.2, "started=True"), (8.4, "ready=True")]
    assert turns(of(Drawn(startup=70), **probes), 60) == [(8.2, "started=False"), (8.2, "failed=Startup")]


def test_without_probes_nothing_is_said_and_nothing_waited_for():
    assert of(Drawn()).wake is None and of(Drawn()).view(T0).ready is None
    steady = of(Drawn(), readiness_probe=probe())
    turns(steady, 60)
    assert steady.wake is None  # idle time is free


def test_probes_that_fail_by_chance_fail_by_their_thresholds():
    def failures(threshold: int) -> int:
        probing = of(Drawn(flaky=0.3), readiness_probe=probe(period_seconds=1, failure_threshold=threshold))
        return sum(what == "ready=False" for _, what in turns(probing, 2000))

    one, three = failures(1), failures(3)
    assert one > 250 and 20 < three < 80


@given(
    st.integers(1, 7), st.integers(1, 4), st.integers(1, 4), st.integers(0, 9), st.integers(0, 300), st.integers(1, 400),
    st.sampled_from([0.0, 0.4, 1.0]),
)  # fmt: skip
def test_leaving_questions_out_changes_no_answer(
    period: int, success: int, failure: int, delay: int, ready: int, hang: int, answer: float
):  # fmt: skip
    """Against a loop that asks every single time."""
    fields = dict(period_seconds=period, success_threshold=success, failure_threshold=failure, initial_delay_seconds=delay)
    declared = Drawn(ready=ready / 10, hang=hang / 10, answer=answer)
    expected, counter, at = [], Counter(success, failure), T0 + max(FIRST_DELAY, delay)
    while at + answer <= T0 + 120:
        if counter.answer(T0 + ready / 10 - 1e-6 <= at < T0 + hang / 10 - 1e-6):
            expected.append((round(at + answer - T0, 3), f"ready={counter.verdict}"))
        at += period
    assert turns(of(declared, readiness_probe=probe(**fields)), 120) == expected


def test_spreads_are_what_they_say():
    chance = random.Random(1)

    def many(text: str) -> list[float]:
        made = spread(text)
        assert isinstance(made, Spread)
        return [made.draw(chance) for _ in range(4000)]

    assert statistics.median(many("lognormal(4s, 0.6)")) == pytest.approx(4, rel=0.08)
    assert statistics.mean(many("normal(3s, 500ms)")) == pytest.approx(3, rel=0.03)
    assert statistics.stdev(many("normal(3s, 0.5)")) == pytest.approx(0.5, rel=0.1)
    assert min(many("normal(1s, 3s)")) == 0
    assert statistics.mean(many("exponential(2s)")) == pytest.approx(2, rel=0.1)
    low = many("uniform(200ms, 1s)")
    assert 0.2 <= min(low) < 0.22 and 0.98 < max(low) <= 1
    assert set(many("choice(1s, 2s, 3m)")) == {1, 2, 180}
    assert spread("1.5m") == 90 and spread("250ms") == 0.25


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lognormal(4s)", "expected lognormal"), ("gauss(1s, 2s)", "no distribution 'gauss'"), ("-3s", "negative"),
        ("3 parsecs", "no time"), ("uniform(2s, 1s)", "above"), ("choice()", "expected choice"), ("nan", "no time"),
        ("inf", "no time"), ("normal(1s, -1s)", "negative"),
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str, said: str):
    with pytest.raises(ValueError, match=said):
        spread(text)
    with pytest.raises(ValueError, match=r"hollow\.navarch\.dev/ready"):
        stages({"hollow.navarch.dev/ready": text})


def test_a_stage_that_is_declared_moves_no_other():
    plain = Stages(start=Spread("uniform", (1, 2)), stop=Spread("uniform", (1, 2)))
    a, b = plain.drawn(random.Random(3)), plain.drawn(random.Random(3))
    assert a == b and not math.isclose(a.start, a.stop)
    assert plain.drawn(random.Random(4)) != a
