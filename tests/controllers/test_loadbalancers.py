"""Services of type LoadBalancer on virtual time: addresses, sharing, the node that answers, what is given back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.config import Config
from controllers.loadbalancer.plan import ANNOUNCED_BY, CLASS, Pool, Refused, announcer, candidates
from navarch.api.types import core_v1, discovery_v1, meta_v1
from tests.controllers.cluster import Cluster, run_cluster

RANGE = "load-balancer-range=192.0.2.0/29"  # six addresses: .1 to .6
Service = core_v1.Service


def balanced(name: str, port: int = 80, **spec: Any) -> Service:
    return Service(
        metadata=meta_v1.ObjectMeta(name=name, namespace="default"),
        spec=core_v1.ServiceSpec(type="LoadBalancer", ports=[core_v1.ServicePort(port=port, protocol="TCP")], **spec),
    )


async def given_(cluster: Cluster, name: str, wanted: str | None = None) -> Service:
    """The service once it has an address (that one), and a node that answers for it."""

    async def check() -> Service | None:
        found = await cluster.client[Service].get(name, "default")
        ingress = (found.status.load_balancer.ingress if found.status.load_balancer else None) or []
        noted = (found.metadata.annotations or {}).get(ANNOUNCED_BY)
        return found if ingress and noted and wanted in (None, ingress[0].ip) else None

    return await cluster.until(check, 30)


async def nothing(cluster: Cluster, name: str) -> None:
    async def check() -> bool:
        found = await cluster.client[Service].get(name, "default")
        return not (found.status.load_balancer and found.status.load_balancer.ingress)

    await cluster.until(check, 30)


def test_addresses_come_go_and_are_kept() -> None:
    async def test(cluster: Cluster) -> None:
        services = cluster.client[Service]
        for name in ("a", "b"):
            await services.create(balanced(name))
            await given_(cluster, name)
        first = await given_(cluster, "a", "192.0.2.1")
        assert first.status.load_balancer.ingress[0].ip_mode == "VIP"
        await given_(cluster, "b", "192.0.2.2")
        for verb in ("Ensuring", "Ensured"):
            assert f"{verb} load balancer" in await cluster.events(f"{verb}LoadBalancer")
        # Another class is another's; a range that is named is obeyed; one outside of the pool is refused.
        await services.create(balanced("other", load_balancer_class="example.com/x"))
        await services.create(balanced("ours", load_balancer_class=CLASS, load_balancer_ip="192.0.2.5"))
        await given_(cluster, "ours", "192.0.2.5")
        await services.create(balanced("far", load_balancer_ip="198.51.100.1"))
        await cluster.until(lambda: cluster.events("SyncLoadBalancerFailed"), 30)
        assert "not in the pool 192.0.2.0/29" in (await cluster.events("SyncLoadBalancerFailed"))[0]
        await nothing(cluster, "other")
        # A change of type and a deletion give back; whoever waits gets it.
        await services.patch("b", "default", {"spec": {"type": "ClusterIP"}})
        await nothing(cluster, "b")
        assert "Deleted load balancer" in await cluster.events("DeletedLoadBalancer")
        assert ANNOUNCED_BY not in ((await services.get("b", "default")).metadata.annotations or {})
        await services.create(balanced("waits", load_balancer_ip="192.0.2.1"))
        await cluster.world.sleep(5)
        await nothing(cluster, "waits")
        await services.delete("a", "default")
        await given_(cluster, "waits", "192.0.2.1")

    run_cluster(test, RANGE)


def test_sharing_and_a_pool_that_is_used_up() -> None:
    async def test(cluster: Cluster) -> None:
        services = cluster.client[Service]
        await services.create(balanced("a", 80, load_balancer_ip="192.0.2.3"))
        await services.create(balanced("b", 443, load_balancer_ip="192.0.2.3"))
        both = [await given_(cluster, name, "192.0.2.3") for name in ("a", "b")]
        assert len({s.metadata.annotations[ANNOUNCED_BY] for s in both}) == 1, "one node answers for an address"
        await services.create(balanced("c", 443, load_balancer_ip="192.0.2.3"))
        await services.create(balanced("d", 444, load_balancer_ip="192.0.2.3", external_traffic_policy="Local"))
        await cluster.world.sleep(5)
        texts = " ".join(await cluster.events("SyncLoadBalancerFailed"))
        assert "port 443/TCP of 192.0.2.3 is taken by default/b" in texts and "externalTrafficPolicy Cluster" in texts
        await services.delete("b", "default")
        await given_(cluster, "c", "192.0.2.3")
        for number in range(5):
            await services.create(balanced(f"more{number}"))
            await given_(cluster, f"more{number}")
        await services.create(balanced("last"))
        await cluster.world.sleep(5)
        assert any("all 6 addresses of the pool" in t for t in await cluster.events("SyncLoadBalancerFailed"))
        await services.delete("more2", "default")
        await given_(cluster, "last")

    run_cluster(test, RANGE)


def test_another_node_answers_when_one_goes_silent() -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.client[Service].create(balanced("a"))
        node = (await given_(cluster, "a")).metadata.annotations[ANNOUNCED_BY]
        cluster.nodes.dead[node] = None

        async def moved() -> bool:
            return (await given_(cluster, "a")).metadata.annotations[ANNOUNCED_BY] != node

        await cluster.until(moved, 120)
        after = (await given_(cluster, "a")).metadata.annotations[ANNOUNCED_BY]
        del cluster.nodes.dead[node]
        await cluster.world.sleep(60)
        assert (await given_(cluster, "a")).metadata.annotations[ANNOUNCED_BY] == after, "it stays where it is"

    run_cluster(test, RANGE)


def node(name: str, ready: bool = True, **labels: str) -> core_v1.Node:
    made = core_v1.Node(metadata=meta_v1.ObjectMeta(name=name, labels=labels))
    made.status.conditions = [core_v1.NodeCondition(type="Ready", status=str(ready))]
    return made


def test_which_nodes_can_answer() -> None:
    hidden = node("hidden")
    hidden.metadata.labels = {"node.kubernetes.io/exclude-from-external-load-balancers": ""}
    nodes = [node("b"), node("a"), node("sick", ready=False), node("simulated", type="hollow"), hidden]
    piece = discovery_v1.EndpointSlice(address_type="IPv4", endpoints=[
        discovery_v1.Endpoint(addresses=["10.0.0.1"], node_name="b", conditions=discovery_v1.EndpointConditions(ready=True)),
        discovery_v1.Endpoint(addresses=["10.0.0.2"], node_name="a", conditions=discovery_v1.EndpointConditions(ready=False)),
    ])  # fmt: skip
    assert candidates(balanced("x"), nodes, [piece]) == ["a", "b"]
    assert candidates(balanced("x", external_traffic_policy="Local"), nodes, [piece]) == ["b"]
    assert announcer("192.0.2.1", "a", ["a", "b"]) == "a" and announcer("192.0.2.1", "z", []) == ""
    assert len({announcer(f"192.0.2.{n}", "", ["a", "b", "c"]) for n in range(20)}) == 3, "addresses spread over the nodes"


@given(st.lists(st.tuples(
    st.sampled_from("abcd"), st.sampled_from([80, 81]), st.sampled_from(["", "192.0.2.1", "192.0.2.2"]),
    st.booleans(), st.booleans()), max_size=20))  # fmt: skip
def test_no_port_of_an_address_is_given_twice(steps: list[tuple[str, int, str, bool, bool]]) -> None:
    pool, has = Pool("192.0.2.0/30"), {}
    for name, port, asked, local, gone in steps:
        service = balanced(name, port, load_balancer_ip=asked or None, external_traffic_policy="Local" if local else "Cluster")
        if gone:
            pool.give_back(name)
            has.pop(name, None)
            continue
        try:
            address = pool.choose(name, service)
        except Refused:
            pool.give_back(name)
            has.pop(name, None)
            continue
        pool.take(name, service, address)
        has[name] = (address, service)
        assert address in pool and pool.address(name) == address
        ports = [(a, p.port) for a, s in has.values() for p in s.spec.ports]
        assert len(ports) == len(set(ports))
        for one, (where, mine) in has.items():
            for other, (there, theirs) in has.items():
                if one != other and where == there:
                    assert mine.spec.load_balancer_ip == theirs.spec.load_balancer_ip == where
    assert {key for use in pool.uses.values() for key in use.services} == has.keys()


def test_the_range_is_checked() -> None:
    assert Config().with_settings([RANGE]).load_balancer_range == "192.0.2.0/29"
    with pytest.raises(ValueError, match="load-balancer-range"):
        Config().with_settings(["load-balancer-range=192.0.2.7/29"])
