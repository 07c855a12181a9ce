"""Swarm's and Marathon's strategies."""

from __future__ import annotations

import json
import random

import pytest

from scheduler.framework.config import SchedulerConfig
from scheduler.framework.cycle import schedule
from scheduler.ranking.rankings import Rankings
from scheduler.state.pods import PodInfo
from tests.scheduler.test_cycle import node, pod, table

CONFIG = """
profiles:
- schedulerName: spread
  plugins: {score: {disabled: [{name: "*"}], enabled: [{name: SwarmSpread}]}}
- schedulerName: binpack
  plugins: {score: {disabled: [{name: "*"}], enabled: [{name: SwarmBinpack}]}}
- schedulerName: random
  plugins: {score: {disabled: [{name: "*"}]}}
- schedulerName: marathon
  plugins: {multiPoint: {enabled: [{name: MarathonConstraints}]}}
"""
PROFILES = {p.name: p for p in SchedulerConfig.load(CONFIG).profiles}


def place(profile: str, count: int, constraints: list | None = None) -> list[str]:
    t = table(*(node(f"n{i}", "2", "4Gi", labels={"rack": f"r{i % 2}"} | host(i)) for i in range(4)))
    rankings, chance, out = Rankings(), random.Random(1), []
    for _ in range(count):
        p = pod("100m", "10Mi")
        p.pod.metadata.labels = {"app": "a"}
        p.pod.metadata.annotations = {"scheduler.navarch.dev/constraints": json.dumps(constraints)} if constraints else None
        info = PodInfo(p.pod)
        decision = schedule(info, t, PROFILES[profile], chance, rankings)
        out.append(decision.node)
        if decision.node:
            t.add_pod(info, decision.node)
    return out


def host(i: int) -> dict[str, str]:
    return {"kubernetes.io/hostname": f"n{i}"}


def test_swarm():
    spread = place("spread", 8)
    assert [spread.count(f"n{i}") for i in range(4)] == [2, 2, 2, 2]
    assert len(set(place("binpack", 8))) == 1
    assert len(set(place("random", 30))) == 4


@pytest.mark.parametrize(
    ("constraint", "racks"),
    [
        (["hostname", "UNIQUE"], [2, 2, 2]),
        (["rack", "UNIQUE"], [1, 1, 4]),
        (["rack", "CLUSTER", "r1"], [0, 6, 0]),
        (["rack", "GROUP_BY"], [3, 3, 0]),
        (["rack", "GROUP_BY", "3"], [1, 1, 4]),
        (["rack", "MAX_PER", "2"], [2, 2, 2]),
        (["rack", "LIKE", "r0|x"], [6, 0, 0]),
        (["rack", "UNLIKE", "r0"], [0, 6, 0]),
    ],
)
def test_marathon(constraint, racks):
    """How many of six instances go to the racks r0 and r1, and nowhere."""
    placed = place("marathon", 6, [constraint])
    rack = [("r" + str(int(n[1]) % 2)) if n else "" for n in placed]
    assert [rack.count("r0"), rack.count("r1"), rack.count("")] == racks


def test_marathon_cluster_without_value_and_wrong_constraints():
    assert len({int(n[1]) % 2 for n in place("marathon", 6, [["rack", "CLUSTER"]])}) == 1
    assert place("marathon", 1, [["rack", "NEAR"]]) == [""]
