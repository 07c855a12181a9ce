"""How seats are divided, and lent."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apiserver.flowcontrol.defaults import priority_levels
from apiserver.flowcontrol.levels import Level
from apiserver.flowcontrol.sharing import Claim, Demand, Share, allocate, claim, limits, smoothed

NUMBER = st.floats(0, 500)


def test_the_limits_of_the_default_levels() -> None:
    shares = {o["metadata"]["name"]: Level(o, 0.0).share for o in priority_levels()}
    found = limits(shares, 600)
    assert {name: (own.nominal, own.lower) for name, own in found.items()} == {
        "exempt": (0, 0), "catch-all": (13, 13), "system": (74, 50), "node-high": (98, 73), "leader-election": (25, 25),
        "workload-high": (98, 49), "workload-low": (245, 24), "global-default": (49, 24),
    }  # fmt: skip


def test_borrowing_can_be_limited() -> None:
    found = limits({"a": Share(1, 0, 50), "b": Share(3, 100, 0)}, 100)
    assert found["a"] == (25, 25, 38) and found["b"] == (75, 0, 75)


@st.composite
def claims(draw: st.DrawFn) -> list[Claim]:
    out = []
    for _ in range(draw(st.integers(1, 8))):
        lower = draw(NUMBER)
        out.append(Claim(lower, lower + draw(NUMBER), lower + draw(st.one_of(st.just(0.0), NUMBER))))
    return out


@given(claims(), st.floats(0, 3000))
@example([Claim(1.2e-308, 2.0, 1.2e-308)], 1.0)  # 2.0 / 1.2e-308 is infinite
def test_everything_is_dealt_out_within_the_bounds(found: list[Claim], total: float) -> None:
    parts, fraction = allocate(found, total)
    for one, part in zip(found, parts, strict=True):
        assert one.lower - 1e-6 <= part <= one.upper + 1e-6
    least, most = sum(c.lower for c in found), sum(c.upper for c in found)
    assert sum(parts) == pytest.approx(min(max(total, least), most), abs=1e-3)
    if least < total < most:
        for one, part in zip(found, parts, strict=True):
            if one.target > 1e-3 and one.lower + 1e-3 < part < one.upper - 1e-3:
                assert part == pytest.approx(one.target * fraction, rel=1e-3, abs=1e-3)


def test_an_idle_level_lends_and_gets_it_back() -> None:
    own = limits({"busy": Share(50, 0), "idle": Share(50, 90)}, 100)
    parts, _ = allocate([claim(own["busy"], 100, 100.0), claim(own["idle"], 1, 0.5)], 100)
    assert [round(p) for p in parts] == [95, 5]
    parts, _ = allocate([claim(own["busy"], 100, 100.0), claim(own["idle"], 100, 100.0)], 100)
    assert [round(p) for p in parts] == [50, 50]


def test_demand_is_an_average_over_time() -> None:
    demand = Demand(0.0)
    demand.change(4, 0.0)
    demand.change(-4, 5.0)
    mean, spread, highest = demand.end_period(10.0)
    assert (mean, spread, highest) == (2.0, 2.0, 4)
    assert demand.end_period(20.0) == (0.0, 0.0, 0)
    assert smoothed(0.0, 2.0, 2.0) == 4.0  # up at once
    assert 3.8 < smoothed(4.0, 0.0, 0.0) < 4.0  # down slowly
