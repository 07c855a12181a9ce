"""Which groups grow, and which nodes go: the pure half of the node autoscaler."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from lab.nodeautoscaler.groups import Group, Options
from lab.nodeautoscaler.room import Room
from lab.nodeautoscaler.scaledown import Candidate, Shrinkage, shrink
from lab.nodeautoscaler.scaleup import grow
from navarch.api.types import apps_v1, core_v1, policy_v1
from nodeagent.hollow import objects
from nodeagent.hollow.objects import NodeSpec
from scheduler.framework.profiles import default_profile
from scheduler.state.pods import PodInfo

PROFILES = {"default-scheduler": default_profile("default-scheduler")}
COUNTS = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "r", "controller": True}


def pod(name: str, cpu: str = "1", node: str = "", **more: Any) -> PodInfo:
    meta = {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}, "ownerReferences": [OWNER]}
    spec = {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]} | ({"nodeName": node} if node else {})
    tree = {"metadata": meta | more.pop("metadata", {}), "spec": spec | more}
    return PodInfo(msgspec.convert(tree, core_v1.Pod))


def group(name: str, cpu: str = "2", most: int = 9, price: float = 0.0, **more: Any) -> Group:
    return Group(name, 0, most, NodeSpec(name, cpu=cpu, memory="8Gi", **more), price=price)


def growth(pods: list[PodInfo], sizes: dict[Group, int], expander: str = "random", room: Room | None = None) -> Any:
    return grow(pods, room or Room(PROFILES), sizes, expander, random.Random(1))


def test_as_many_nodes_as_the_pods_need_and_no_more_than_the_group_may_have() -> None:
    pods = [pod(f"p{n}") for n in range(5)]
    choice = growth(pods, {group("a"): 0}).choice
    assert (choice.nodes, len(choice.pods)) == (3, 5)
    choice = growth(pods, {group("a", most=4): 2}).choice
    assert (choice.nodes, len(choice.pods)) == (2, 4)


def test_pods_that_fit_by_now_or_on_a_node_that_boots_ask_for_nothing() -> None:
    room = Room(PROFILES)
    room.add_template(NodeSpec("a-1", cpu="2"))
    assert growth([pod("p"), pod("q")], {group("a"): 1}, room=room) == (None, {})


def test_a_pod_that_no_group_helps_is_told_why_of_each() -> None:
    taint = (core_v1.Taint(key="gpu", effect="NoSchedule"),)
    sizes = {group("small"): 0, group("gpu", taints=taint, cpu="8"): 0, group("full", most=1): 1}
    choice, refused = growth([pod("big", "4")], sizes)
    assert choice is None
    assert refused["big"][1] == {
        "Insufficient cpu": 1, "node(s) had untolerated taint {gpu: }": 1, "max node group size reached": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("expander", "name"), [("price", "small"), ("least-waste", "exact"), ("most-pods", "large")])
def test_expanders(expander: str, name: str) -> None:
    sizes = {group("small", "1500m", 1, 0.1): 0, group("exact", "3", 1, 0.9): 0, group("large", "8", 1, 2.0): 0}
    assert growth([pod(f"p{n}") for n in range(6)], sizes, expander).choice.group.name == name


def test_the_pods_of_daemon_sets_take_their_part_of_a_new_node() -> None:
    container = {"name": "d", "resources": {"requests": {"cpu": "1500m"}}}
    spec = {"selector": {}, "template": {"spec": {"containers": [container]}}}
    tree = {"metadata": {"name": "d", "namespace": "default"}, "spec": spec, "status": dict.fromkeys(COUNTS, 0)}
    daemon = msgspec.convert(tree, apps_v1.DaemonSet)
    choice, refused = growth([pod("p")], {group("a"): 0}, room=Room(PROFILES, daemon_sets=[daemon]))
    assert choice is None and refused["p"][1] == {"Insufficient cpu": 1}


def shrinkage(
    pods: list[PodInfo], nodes: tuple[str, ...] = ("a", "b"), now: float = 0.0, budget: int | None = None, **more: Any
) -> Shrinkage:
    """Of nodes of two cores in one group."""
    made_of = {name: objects.node(NodeSpec(name, cpu="2"), 0, None, 0.0) for name in nodes}
    candidates = [Candidate(made_of[n], "g", tuple(p for p in pods if p.pod.spec.node_name == n)) for n in nodes]
    tree = {"metadata": {"name": "b", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"app": "web"}}},
            "status": {"disruptionsAllowed": budget, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}}  # fmt: skip
    budgets = [] if budget is None else [msgspec.convert(tree, policy_v1.PodDisruptionBudget)]
    spare = {"g": more.pop("spare", len(nodes))}
    options = Options(**more)
    return shrink(candidates, Room(PROFILES, made_of.values(), pods), spare, budgets, {}, now, options)


def test_a_node_goes_once_it_was_not_needed_for_long_enough() -> None:
    pods = [pod("p", "500m", "a"), pod("q", "1500m", "b")]
    first = shrinkage(pods)
    assert first.unneeded == {"a": 0.0} and first.drain is None
    later = shrinkage(pods, unneeded_time=0)
    assert later.drain is not None and later.drain[0].name == "a" and [p.uid for p in later.drain[1]] == ["p"]
    assert shrinkage(pods, unneeded_time=0, spare=0).drain is None


def test_two_half_empty_nodes_do_not_both_go() -> None:
    plan = shrinkage([pod("p", "900m", "a"), pod("q", "900m", "b")])
    assert list(plan.unneeded) == ["a"] and plan.blocked == {"b": "default/q would fit on no other node"}


def test_empty_nodes_go_together_and_before_one_is_drained() -> None:
    plan = shrinkage([pod("p", "500m", "a"), pod("q", "1500m", "b")], ("a", "b", "c", "d"), unneeded_time=0, spare=9)
    assert [c.name for c in plan.empty] == ["c", "d"] and plan.drain is None


SAFE = "cluster-autoscaler.kubernetes.io/safe-to-evict"


@pytest.mark.parametrize(
    ("more", "budget", "why"),
    [
        ({"metadata": {"ownerReferences": []}}, None, "it has no controller"),
        ({"metadata": {"ownerReferences": [], "annotations": {SAFE: "true"}}}, None, ""),
        ({"metadata": {"annotations": {SAFE: "false"}}}, None, "not safe to evict"),
        ({"volumes": [{"name": "v", "emptyDir": {}}]}, None, "local storage"),
        ({"metadata": {"namespace": "kube-system"}}, None, "kube-system"),
        ({}, 0, "not enough pod disruption budget"),
        ({}, 1, ""),
        ({"metadata": {"ownerReferences": [OWNER | {"kind": "DaemonSet"}]}}, 0, ""),
        ({"nodeSelector": {"kubernetes.io/hostname": "a"}}, None, "would fit on no other node"),
    ],
)
def test_what_keeps_a_node(more: dict[str, Any], budget: int | None, why: str) -> None:
    plan = shrinkage([pod("p", "500m", "a", **more), pod("q", "1500m", "b")], budget=budget)
    assert ("a" in plan.unneeded) == (not why)
    assert why in plan.blocked.get("a", "")
