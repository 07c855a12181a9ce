"""Explanations of decisions, and of what would be decided."""

from __future__ import annotations

import random

from cli.verbs.why import lines
from scheduler.explain.explain import Recent, Record, explain
from scheduler.explain.whatif import ask
from scheduler.framework.cycle import schedule
from scheduler.framework.plugin import Plan
from scheduler.framework.profiles import default_profile
from scheduler.ranking.rankings import Rankings
from tests.scheduler.test_cycle import node, pod, table


def test_a_decision_is_told_as_it_was_though_others_followed():
    t, profile, rankings, recent = table(node("a"), node("b", cpu="2")), default_profile(), Rankings(), Recent()
    pods = [pod("400m") for _ in range(8)]
    for p in pods:
        decision = schedule(p, t, profile, random.Random(0), rankings)
        recent.add(decision, 5.0)
        if decision.node:
            t.add_pod(p, decision.node)
    first, last = (explain(recent.get(p.key), "a") for p in (pods[0], pods[-1]))
    assert first["node"] == "b" and first["runnerUp"] == "a" and first["margin"] > 0 and first["feasible"] == 2
    assert first["best"][0]["scores"]["NodeResourcesFit"] == {"score": 80, "weight": 1}
    assert first["best"][0]["total"] == first["margin"] + first["asked"]["total"]
    assert last["node"] == "" and last["refused"] == [
        {"plugin": "NodeResourcesFit", "reason": "Insufficient cpu", "nodes": 2}
    ]
    assert last["asked"]["refused"][0]["preemptionMayHelp"]
    text = "\n".join(lines(first))
    assert "was put on b: 2 of 2 nodes could take it" in text and "NODERESOURCESFIT x1" in text
    assert "a was refused" in "\n".join(lines(last))


def test_what_if_tells_what_would_change_it_and_changes_nothing():
    t, profile = table(node("a"), node("b", unschedulable=True)), default_profile()
    low = pod("900m", priority=1)
    t.add_pod(low, "a")
    answer = ask(pod("500m"), t, profile, 0.0)
    assert answer["node"] == "" and "preemption" not in answer
    assert [c["change"] for c in answer["changes"]] == [
        "without NodeUnschedulable (node(s) were unschedulable) it would fit on 1 nodes",
        "with cpu 100m instead of 500m it would fit on a",
    ]
    answer = ask(pod("500m", priority=5), t, profile, 0.0)
    assert answer["preemption"] == {"node": "a", "victims": [low.key]}
    assert t.pods.keys() == {low.uid}
    assert ask(low, t, profile, 0.0)["node"] == "a"  # as if it were not there
    assert "What would change it:" in lines(answer)


def test_what_is_kept_is_bounded():
    t, profile, recent = table(*(node(f"n{i}") for i in range(200))), default_profile(), Recent()
    import scheduler.explain.explain as module

    one = schedule(pod("1m"), t, profile, random.Random(0))
    most, module.MAX_BYTES = module.MAX_BYTES, 10 * one.ranking.nbytes
    try:
        for i in range(50):
            recent.add(schedule(pod(f"{i + 1}m"), t, profile, random.Random(0)), 0.0)
        assert 5 <= len(recent) <= 20
    finally:
        module.MAX_BYTES = most
    assert isinstance(Record(one, 0.0, "", Plan()), Record)
