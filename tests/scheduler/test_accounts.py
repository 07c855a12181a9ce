"""Accounts of plugins follow every pod that comes and goes, dry runs too (CASES F4)."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.types import core_v1
from scheduler.explain import whatif
from scheduler.framework.cycle import schedule
from scheduler.framework.plugin import Attempt, Plugin
from scheduler.framework.profiles import default_profile
from scheduler.framework.ties import tie_break
from scheduler.plugins.preemption import DefaultPreemption
from scheduler.ranking.ranking import Ranking
from scheduler.state.nodes import FIRST_ROWS, NodeTable
from scheduler.state.pods import PodInfo
from tests.scheduler.test_cycle import node, pod, table


class Seats(Plugin):
    """Gives every pod a seat of its node: the first free one when it comes, and the same one while it stays."""

    name = "Seats"

    def follow(self, table: NodeTable) -> None:
        self.table, self.taken = table, {}

    def placed(self, pod: PodInfo, row: int, before: Any) -> int:
        taken = self.taken.setdefault(row, {})
        seat = before if before is not None else next(n for n in range(1000) if n not in taken)
        assert seat not in taken
        taken[seat] = pod.uid
        self.table.own("seats")[row] += 1
        return seat

    def left(self, pod: PodInfo, row: int, share: int) -> None:
        assert self.taken[row].pop(share) == pod.uid
        self.table.own("seats")[row] -= 1


def state(seats: Seats) -> Any:
    return {row: dict(sorted(taken.items())) for row, taken in sorted(seats.taken.items()) if taken}


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 4)), max_size=40), st.randoms())
def test_a_trial_leaves_every_share_as_it_was(steps: list[tuple[str, int]], chance: random.Random):
    names = [f"n{i}" for i in range(4)]
    t, seats = table(*map(node, names)), Seats()
    pods = [pod("1m") for _ in range(12)]
    for p in pods[:4]:
        t.add_pod(p, chance.choice(names))
    t.attach(seats)
    for what, n in steps:
        p, where = chance.choice(pods), names[n % 4]
        if what == "a":
            t.add_pod(p, where)
        elif what == "b":
            t.remove_pod(p.uid)
        else:
            before = state(seats), {u: t.share(seats, u) for u in t.pods}
            if what == "c":
                others = [q for q in pods if q.uid not in t.pods]
                with t.as_if((q, chance.choice(names)) for q in others):
                    assert sum(map(len, seats.taken.values())) == len(pods)
            else:
                t.trying += 1
                gone = [t.pods[u] for u in list(t.pods)]
                for q, _ in gone:
                    t.remove_pod(q.uid)
                chance.shuffle(gone)
                for q, name in gone:
                    t.add_pod(q, name)
                t.tried()
            assert before == (state(seats), {u: t.share(seats, u) for u in t.pods})
        assert sum(map(len, seats.taken.values())) == len(t.pods) == t.own("seats").sum()


def test_preemption_questions_and_changed_labels_take_no_seat_from_anybody():
    t, seats = table(node("a"), node("b")), Seats()
    t.attach(seats)
    pods = [pod("400m", priority=n % 3) for n in range(4)]
    for n, p in enumerate(pods):
        t.add_pod(p, "ab"[n % 2])
    t.remove_pod(pods[0].uid)
    t.add_pod(pods[0], "a")
    before = state(seats)
    urgent, profile = pod("800m", priority=10, topology_spread_constraints=[SPREAD]), default_profile(user=[Seats])
    ranking = Ranking(urgent, t, profile)
    plan = DefaultPreemption().post_filter(urgent, t, ranking, Attempt(dry=True))
    assert plan.node and plan.victims
    whatif.ask(urgent, t, profile, 0.0)
    whatif.ask(pods[1], t, profile, 0.0)
    assert state(seats) == before
    changed = PodInfo(pods[2].pod)
    changed.labels = {"a": "b"}
    t.add_pod(changed, "a")  # as when its labels change
    assert state(seats) == before


SPREAD = core_v1.TopologySpreadConstraint(max_skew=5, topology_key="x", when_unsatisfiable="ScheduleAnyway")


def test_nodes_that_go_take_their_accounts_with_them():
    t, seats = table(node("a"), node("b")), Seats()
    t.add_pod(pod("1m"), "later")  # of a node that is not there yet
    t.attach(seats)
    t.add_pod(pod("1m"), "a")
    assert state(seats) == {t.rows["a"]: {0: next(iter(t.by_node["a"]))}}
    t.remove_node("a")
    assert state(seats) == {} and t.own("seats").sum() == 0
    t.set_node(node("later"))
    t.set_node(node("a"))
    assert t.own("seats").sum() == 2


def test_columns_of_a_plugins_own_grow_with_the_table():
    t = table(node("a"))
    t.own("wide", 3, float)[0] = 1, 2, 3
    for n in range(FIRST_ROWS + 1):
        t.set_node(node(f"n{n}"))
    assert t.own("wide", 3, float).shape == (t.size, 3)
    assert t.own("wide", 3, float)[0].tolist() == [1, 2, 3] and t.own("narrow").shape == (t.size,)


def test_ties_by_name_by_an_order_of_the_seed_and_by_a_rule():
    """CASES F6."""
    names = ["n3", "n1", "n2", "n10"]

    def first(rule: Any, seed: int = 0, extra: str = "") -> str:
        t, profile = table(*map(node, names + ([extra] if extra else []))), default_profile()
        profile.tie_break = tie_break(rule)
        return schedule(pod("1m"), t, profile, random.Random(seed)).node

    assert {first("random", seed) for seed in range(40)} == set(names)
    assert first("name") == "n1" and first("name", 5) == "n1"
    assert first(lambda pod, name: -len(name)) == "n10"
    assert {first("shuffled", seed) for seed in range(40)} == set(names)
    assert first("shuffled", 3) == first("shuffled", 3)
    with pytest.raises(ValueError, match="known: random, name, shuffled"):
        tie_break("nmae")


def test_an_order_of_the_seed_holds_for_all_pods_and_whatever_nodes_come():
    t, profile, chance = table(*(node(f"n{i}", cpu="1m", pods="1") for i in range(30))), default_profile(), random.Random(4)
    profile.tie_break = tie_break("shuffled")
    order = []
    for n in range(30):
        p = pod("1m")
        order.append(schedule(p, t, profile, chance).node)
        t.add_pod(p, order[-1])
        if n == 10:
            t.set_node(node("late", cpu="1m", pods="1"))
    again, profile.tie_break, chance = table(*(node(f"n{i}") for i in range(30))), tie_break("shuffled"), random.Random(4)
    assert schedule(pod("1m"), again, profile, chance).node == order[0]
    assert sorted(order) != order and len(set(order)) == 30
    assert np.count_nonzero(t.valid) == 31
