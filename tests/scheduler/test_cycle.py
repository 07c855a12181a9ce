"""Decisions: where pods go, and what is said of those that fit nowhere."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api import resources
from navarch.api.affinity import pod_matches_node, untolerated
from navarch.api.types import core_v1, meta_v1
from scheduler.framework.cycle import schedule
from scheduler.framework.profiles import default_profile
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo


def node(name: str, cpu: str = "1", memory: str = "1Gi", pods: str = "110", **more: object) -> core_v1.Node:
    labels = more.pop("labels", None)
    return core_v1.Node(
        metadata=meta_v1.ObjectMeta(name=name, labels=labels),
        spec=core_v1.NodeSpec(**more),
        status=core_v1.NodeStatus(allocatable={"cpu": cpu, "memory": memory, "pods": pods}),
    )


_uid = 0


def pod(cpu: str = "", memory: str = "", port: int = 0, **spec: object) -> PodInfo:
    global _uid
    _uid += 1
    requests = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}
    ports = [core_v1.ContainerPort(container_port=80, host_port=port)] if port else None
    container = core_v1.Container(name="c", resources=core_v1.ResourceRequirements(requests=requests), ports=ports)
    return PodInfo(
        core_v1.Pod(
            metadata=meta_v1.ObjectMeta(name=f"p{_uid}", namespace="d", uid=str(_uid)),
            spec=core_v1.PodSpec(containers=[container], **spec),
        )
    )


def table(*nodes: core_v1.Node) -> NodeTable:
    out = NodeTable()
    for n in nodes:
        out.set_node(n)
    return out


def decide(p: PodInfo, t: NodeTable):
    return schedule(p, t, default_profile(), random.Random(1))


def test_spreads_over_the_least_allocated():
    t = table(node("a"), node("b"), node("c"))
    placed = []
    for _ in range(6):
        p = pod("100m", "100Mi")
        d = decide(p, t)
        t.add_pod(p, d.node)
        placed.append(d.node)
    assert sorted(placed) == ["a", "a", "b", "b", "c", "c"]


def test_message_lists_every_reason():
    taint = core_v1.Taint(key="k", value="v", effect="NoSchedule")
    t = table(node("a", cpu="100m"), node("b", taints=[taint]), node("c", unschedulable=True), node("d", memory="1Mi"))
    d = decide(pod("500m", "10Mi"), t)
    assert d.node == ""
    assert d.message() == (
        "0/4 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, "
        "1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable."
    )
    assert decide(pod(), table()).message() == "no nodes available to schedule pods"


def test_affinity_ports_and_names():
    t = table(node("a", labels={"disk": "ssd"}), node("b"))
    assert decide(pod(node_selector={"disk": "ssd"}), t).node == "a"
    first = pod(port=80, node_selector={"disk": "ssd"})
    t.add_pod(first, "a")
    d = decide(pod(port=80, node_selector={"disk": "ssd"}), t)
    assert "1 node(s) didn't have free ports for the requested pod ports" in d.message()
    t.remove_pod(first.uid)
    assert decide(pod(port=80, node_selector={"disk": "ssd"}), t).node == "a"
    assert t.ports == {}


def test_what_is_not_supported_is_refused():
    claim = core_v1.PodResourceClaim(name="c", resource_claim_name="c")
    d = decide(pod(resource_claims=[claim]), table(node("a")))
    assert d.node == "" and "does not support" in d.message()


AMOUNT = st.integers(0, 8)


def plain_fits(p: PodInfo, nodes: list[core_v1.Node], here: dict[str, tuple[PodInfo, str]]) -> list[str]:
    """The nodes that a naive loop finds; ``here``: uid -> (pod, node) of all that are bound."""
    fits = []
    for n in nodes:
        used = {"cpu": 0, "memory": 0}
        for other, where in here.values():
            if where == n.metadata.name:
                for r in used:
                    used[r] += other.requests.get(r, 0)
        free = resources.amounts(n.status.allocatable)
        spec = p.pod.spec
        if (
            all(p.requests.get(r, 0) == 0 or used[r] + p.requests[r] <= free[r] for r in used)
            and pod_matches_node(spec, n.metadata.name, n.metadata.labels or {})
            and untolerated(spec.tolerations, n.spec.taints) is None
        ):
            fits.append(n.metadata.name)
    return fits


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(AMOUNT, AMOUNT, st.booleans(), st.booleans()), min_size=1, max_size=8),
    st.lists(st.tuples(AMOUNT, AMOUNT, st.booleans(), st.booleans()), max_size=30),
    st.randoms(use_true_random=False),
)
def test_filters_equal_a_plain_check_node_by_node(nodes, pods, chance):
    """The columns, after arbitrary deltas, let a pod onto exactly the nodes that a naive loop finds."""
    taint = core_v1.Taint(key="k", effect="NoSchedule")
    made = [
        node(f"n{i}", f"{c * 100}m", f"{m}Mi", labels={"l": "1"} if lab else None, taints=[taint] if tainted else None)
        for i, (c, m, lab, tainted) in enumerate(nodes)
    ]
    t = table(*made)
    here: dict[str, tuple[PodInfo, str]] = {}
    for c, m, wants, tolerates in pods:
        p = pod(
            f"{c * 100}m",
            f"{m}Mi",
            node_selector={"l": "1"} if wants else None,
            tolerations=[core_v1.Toleration(key="k", operator="Exists")] if tolerates else None,
        )
        fits = plain_fits(p, made, here)
        d = decide(p, t)
        assert d.feasible == len(fits)
        assert (d.node in fits) if fits else d.node == ""
        if d.node:
            t.add_pod(p, d.node)
            here[p.uid] = (p, d.node)
        if here and chance.random() < 0.3:
            uid = chance.choice(list(here))
            t.remove_pod(uid)
            del here[uid]
        if chance.random() < 0.2:
            n = chance.choice(made)
            t.remove_node(n.metadata.name)
            t.set_node(n)
