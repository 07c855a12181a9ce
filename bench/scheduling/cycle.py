"""The scheduling cycle alone: decide and assume, nothing else."""

from __future__ import annotations

import random
import time
from typing import NamedTuple

import msgspec

from bench.scheduling import objects
from navarch.api.types import core_v1
from scheduler.framework.cycle import schedule
from scheduler.framework.plugin import Attempt
from scheduler.framework.profiles import default_profile
from scheduler.plugins.preemption import DefaultPreemption
from scheduler.ranking.rankings import Rankings
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo

KINDS = (
    "plain", "unschedulable-mix", "churn", "node-affinity", "daemon-set", "spread", "preferred-spread", "anti-affinity",
    "affinity", "preferred-affinity", "preferred-anti-affinity", "preemption",
)  # fmt: skip


class Result(NamedTuple):
    """``rate``: pods placed a second of CPU time."""

    rate: float
    placed: int


def decoded(tree: objects.Tree, uid: str) -> core_v1.Pod:
    made = msgspec.json.decode(msgspec.json.encode(tree), type=core_v1.Pod)  # as from a watch: nothing is shared
    made.metadata.uid = uid
    if made.spec.priority_class_name:
        made.spec.priority = 10
    return made


def measure(nodes: int, pods: int, kind: str, seconds: float = 20.0) -> Result:
    """Places up to ``pods`` pods of a kind, for up to so many seconds of CPU time."""
    table, profile, chance = NodeTable(), default_profile(), random.Random(0)
    rankings, preemption = Rankings(), DefaultPreemption()
    for n in range(nodes):
        table.set_node(msgspec.convert(objects.node(n), core_v1.Node))
    if kind == "preemption":
        pods = min(pods, objects.lows(nodes) // 4 * 3)  # three fit where four were
        for n in range(objects.lows(nodes)):
            low = PodInfo(decoded(objects.pod(f"low{n}", "low"), f"low{n}"))
            table.add_pod(low, objects.node_name(n // 4 * (100 // objects.PERCENT_FILLED)))
    model = {"unschedulable-mix": "plain", "churn": "plain"}.get(kind, kind)
    made = [decoded(objects.pod(f"p{n}", model, n, nodes), str(n)) for n in range(pods)]
    hopeless = decoded(objects.pod("none", "unschedulable"), "none")
    began, placed = time.process_time(), 0
    for n, pod in enumerate(made):
        if kind == "unschedulable-mix" and n % 5 == 0:
            schedule(PodInfo(hopeless), table, profile, chance, rankings)
        if kind == "churn" and n % 20 == 0:  # a node comes, the one before goes
            table.remove_node(f"churn-{n - 20}")
            other = objects.node(n) | {"metadata": {"name": f"churn-{n}", "labels": {}}}
            table.set_node(msgspec.convert(other, core_v1.Node))
        info = PodInfo(pod)
        decision = schedule(info, table, profile, chance, rankings)
        node = decision.node
        if kind == "preemption" and not node:
            plan = preemption.plan(info, table, decision.ranking, Attempt("", chance))
            for victim in plan.victims:
                table.remove_pod(victim.uid)
            node = plan.node
        if node:
            placed += 1
            table.add_pod(info, node)
        if n % 100 == 99 and time.process_time() - began > seconds:
            break
    return Result(placed / (time.process_time() - began), placed)
