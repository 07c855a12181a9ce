"""What a decision costs, counted in calls, not in time: it must not grow with the pods that run already."""

from __future__ import annotations

import random
import sys

import pytest

from navarch.api.types import core_v1, meta_v1
from scheduler.explain.explain import Record, explain
from scheduler.framework.cycle import schedule
from scheduler.framework.plugin import Plan
from scheduler.framework.profiles import default_profile
from scheduler.ranking.rankings import Rankings
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo
from tests.scheduler import clusters
from tests.scheduler.test_cycle import node, pod, table

APP = meta_v1.LabelSelector(match_labels={"app": "a"})
SPREAD = core_v1.TopologySpreadConstraint(
    max_skew=9999, topology_key="zone", when_unsatisfiable="DoNotSchedule", label_selector=APP
)
TERM = core_v1.PodAffinityTerm(topology_key="zone", label_selector=APP)
NEAR = core_v1.Affinity(pod_affinity=core_v1.PodAffinity(required_during_scheduling_ignored_during_execution=[TERM]))
SORTS = {"plain": {}, "spread": {"topology_spread_constraints": [SPREAD]}, "affinity": {"affinity": NEAR}}


def one(**spec) -> PodInfo:
    made = pod("1m", **spec).pod
    made.metadata.labels = {"app": "a"}
    return PodInfo(made)


def cluster(running: int, **spec) -> NodeTable:
    t = table(*(node(f"n{i}", "1000", "1Ti", "99999", labels={"zone": f"z{i % 3}"}) for i in range(30)))
    for n in range(running):
        t.add_pod(one(**spec), f"n{n % 30}")
    return t


def calls(t: NodeTable, **spec) -> int:
    """Python and C calls that the decision about one pod, and its assumption, take."""
    profile, rankings, chance = default_profile(), Rankings(), random.Random(0)
    first = schedule(one(**spec), t, profile, chance, rankings)  # what is made once, is made
    t.add_pod(first.pod, first.node)
    subject, count = one(**spec), 0

    def note(frame, event, arg) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        decision = schedule(subject, t, profile, chance, rankings)
        t.add_pod(subject, decision.node)
    finally:
        sys.setprofile(None)
    assert decision.node
    return count


@pytest.mark.parametrize("sort", SORTS)
def test_a_decision_costs_the_same_however_many_pods_run(sort):
    few, many = calls(cluster(60, **SORTS[sort]), **SORTS[sort]), calls(cluster(3000, **SORTS[sort]), **SORTS[sort])
    assert abs(many - few) <= 5, (few, many)


@pytest.mark.parametrize("name", ["n1", "unknown"])
def test_a_pod_that_names_its_node_makes_no_columns_until_they_are_read(name):
    t = cluster(30)
    decision = schedule(named(one().pod, name), t, default_profile(), random.Random(0), Rankings())
    others = 30 if name == "unknown" else 29
    assert decision.node == ("" if name == "unknown" else name)
    assert decision.reasons == {"node(s) didn't satisfy plugin(s) [NodeAffinity]": others}
    assert not {"refused", "total", "parts"} & set(vars(decision.ranking))
    told = explain(Record(decision, 0.0, "", Plan()))
    assert told["feasible"] == 30 - others and told["refused"][0]["nodes"] == others
    assert not {"refused", "total", "parts"} & set(vars(decision.ranking))


def named(of: core_v1.Pod, name: str) -> PodInfo:
    return PodInfo(clusters.named(of, [name]))
