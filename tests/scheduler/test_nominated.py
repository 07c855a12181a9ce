"""Room that is kept for pods that preempted: against whom, where, and at which cost."""

from __future__ import annotations

import random
from unittest.mock import patch

import pytest

from navarch.api.types import core_v1, meta_v1
from scheduler.framework.cycle import schedule
from scheduler.framework.plugin import Attempt
from scheduler.framework.profiles import default_profile
from scheduler.plugins.preemption import DefaultPreemption
from scheduler.ranking.crowd import Crowd
from scheduler.ranking.ranking import Ranking
from scheduler.ranking.rankings import Rankings
from scheduler.state.nodes import NodeTable
from scheduler.state.nominated import Nominated
from scheduler.state.pods import PodInfo
from tests.scheduler.test_cycle import node, pod, table

ZONE = "zone"


def zones(cpu: str = "8") -> NodeTable:
    return table(*(node(f"n{i}", cpu=cpu, labels={ZONE: "a" if i < 10 else "b"}) for i in range(20)))


def app(cpu: str, **spec: object) -> PodInfo:
    made = pod(cpu, **spec).pod
    made.metadata.labels = {"app": "x"}
    return PodInfo(made)


def averse() -> PodInfo:
    """Keeps all pods of the application out of its zone."""
    selector = meta_v1.LabelSelector(match_labels={"app": "x"})
    term = core_v1.PodAffinityTerm(topology_key=ZONE, label_selector=selector)
    rules = core_v1.PodAntiAffinity(required_during_scheduling_ignored_during_execution=[term])
    return pod("100m", priority=9, affinity=core_v1.Affinity(pod_anti_affinity=rules))


@pytest.mark.parametrize("rankings", [None, Rankings()])
def test_anti_affinity_of_a_nominated_pod_holds_in_its_whole_domain(rankings: Rankings | None) -> None:
    t, nominated = zones(), Nominated()
    nominated.add(averse(), "n0")
    decision = schedule(app("100m"), t, default_profile(), random.Random(0), rankings, nominated)
    assert decision.feasible == 10 and int(decision.node[1:]) >= 10


def test_nobody_preempts_where_a_nominated_pod_will_not_have_it() -> None:
    t, nominated, profile = zones("1"), Nominated(), default_profile()
    for n in range(20):
        t.add_pod(pod("1", priority=1), f"n{n}")
    nominated.add(averse(), "n0")
    wants = app("1", priority=5)
    decision = schedule(wants, t, profile, random.Random(0), Rankings(), nominated)
    assert not decision.node
    for seed in range(10):
        plan = DefaultPreemption().plan(wants, t, decision.ranking, Attempt("", random.Random(seed), others=nominated))
        assert int(plan.node[1:]) >= 10


def test_what_a_node_s_nominations_mean_is_worked_out_once() -> None:
    t, nominated, rankings, looked = zones(), Nominated(), Rankings(), []
    for n in range(20):
        nominated.add(pod("1", priority=9), f"n{n}")
    look = Crowd._look

    def counted(self, *arguments):
        looked.append(arguments)
        return look(self, *arguments)

    with patch.object(Crowd, "_look", counted):
        first = schedule(app("100m"), t, default_profile(), random.Random(0), rankings, nominated)
        t.add_pod(first.pod, first.node)
        assert len(looked) == 20
        second = schedule(app("100m"), t, default_profile(), random.Random(0), rankings, nominated)
        assert second.node and len(looked) == 21  # the node that the first pod went to


def test_a_node_that_comes_or_goes_has_no_ranking_made_anew() -> None:
    t, rankings, made = zones(), Rankings(), []
    make = Ranking._make

    def counted(self, of):
        made.append(of)
        make(self, of)

    with patch.object(Ranking, "_make", counted):
        for step in (lambda: None, lambda: t.set_node(node("new", cpu="32", memory="64Gi")), lambda: t.remove_node("n3")):
            step()
            decision = schedule(app("100m"), t, default_profile(), random.Random(0), rankings)
            assert decision.feasible == len(t)
        assert decision.node == "new" and len(made) == 1
