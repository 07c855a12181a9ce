"""The scheduler's decisions alone (CASES F8)."""

from __future__ import annotations

import random

from lab.simulation import Cycle, node_specs, only
from nodeagent.hollow.objects import NodeSpec
from scheduler.framework.plugin import NodePlugin, NodeView
from scheduler.state.pods import PodInfo


def tree(name: str, cpu: str = "500m", **more: object) -> dict[str, object]:
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", **more},
        "spec": {"containers": [{"name": "c", "image": "c:1", "resources": {"requests": {"cpu": cpu}}}]},
    }  # fmt: skip


class Fullest(NodePlugin):
    name = "Fullest"

    def score_node(self, pod: PodInfo, view: NodeView) -> float:
        return -view.free["cpu"]


def test_pods_are_placed_until_nothing_is_left_and_told_why():
    cycle = Cycle(node_specs(3), seed=1)
    got = [cycle.place(tree(f"p{n}", "2")) for n in range(7)]
    assert all(p.node for p in got[:6]) and not got[6].node
    assert got[6].reasons == {"Insufficient cpu": 3}
    assert got[6].message == "0/3 nodes are available: 3 Insufficient cpu."
    assert cycle.requested("cpu") == cycle.allocatable("cpu") == 12_000
    assert cycle.remove("uid-1") and not cycle.remove("uid-1")
    assert cycle.place(tree("again", "2")).node == got[0].node


def test_one_seed_gives_the_same_and_policies_differ():
    def run(seed: int, **more: object) -> list[str]:
        cycle = Cycle(node_specs(10), seed=seed, **more)  # type: ignore[arg-type]
        return [cycle.place(tree(f"p{n}", f"{random.Random(n).randrange(1, 9) * 100}m")).node for n in range(60)]

    assert run(1) == run(1) != run(2)
    packed, spread = run(1, policy=only(Fullest()), ties="name"), run(1)
    assert len(set(packed)) < len(set(spread)) == 10
    assert packed == run(7, policy=only(Fullest()), ties="name")
    text = "profiles: [{plugins: {score: {disabled: [{name: '*'}], enabled: [{name: Fullest}]}}}]"
    assert run(1, policy=text, user=[Fullest], ties="name") == packed


def test_nodes_come_and_go():
    cycle = Cycle([NodeSpec("a", cpu="1")])
    assert cycle.place(tree("p", "1")).node == "a"
    assert not cycle.place(tree("q", "1", uid="q")).node
    cycle.set_node({"metadata": {"name": "b"}, "status": {"allocatable": {"cpu": "1", "pods": "3", "memory": "1Gi"}}})
    assert cycle.place(tree("q", "1", uid="q")).node == "b" and cycle.node_of("q") == "b"
    cycle.remove_node("b")
    assert cycle.allocatable("cpu") == 1000
