"""Cluster IPs and node ports: never two owners, nothing lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from apiserver.kinds.core.services import ServiceStrategy
from apiserver.kinds.core.services_addresses import Addresses
from apiserver.registry.allocation import GRACE, AddressAllocator, InUse, OutOfRange, PortAllocator, RangeFull
from apiserver.storage.memory import MemoryStore
from navarch.api.errors import InternalError, Invalid
from navarch.world import RealWorld
from tests.apiserver.kinds.support import CONTEXT, created, tree


class World(RealWorld):
    """Real, but its clock can be put forward."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


class Case:
    def __init__(self, cidr: str = "10.96.0.0/24", low: int = 30000, high: int = 30009) -> None:
        self.world, self.store = World(), MemoryStore()
        self.addresses = AddressAllocator(self.world, self.store, cidr)
        self.ports = PortAllocator(self.world, self.store, low, high)
        self.rules = ServiceStrategy(Addresses(self.addresses, self.ports))

    async def create(self, name: str, dry_run: bool = False, **spec: Any) -> dict[str, Any]:
        obj = tree(f"{{metadata: {{name: {name}, namespace: default}}, spec: {{ports: [{{port: 80}}]}}}}")
        obj["spec"] |= spec
        created(self.rules, obj)
        assert self.rules.validate(obj) == []
        end = await self.rules.begin_create(CONTEXT, obj, dry_run)
        assert end is not None
        await end(True)
        return obj

    async def reserved(self) -> set[str]:
        found = await self.store.list("/registry/allocations/")
        return {i.key.rsplit("/", 1)[1] for i in found.items}


def run(body: Any) -> None:
    RealWorld().run(body)


async def test_no_address_twice() -> None:
    case = Case("10.96.0.0/26")
    # A second server on the same store, which knows nothing of the first.
    other = Case("10.96.0.0/26")
    other.addresses.store = other.ports.store = case.store
    objs = await asyncio.gather(*[(case if i % 2 else other).create(f"s{i}") for i in range(62)])
    ips = [o["spec"]["clusterIP"] for o in objs]
    assert len(set(ips)) == 62 and all(o["spec"]["clusterIPs"] == [o["spec"]["clusterIP"]] for o in objs)
    with pytest.raises(RangeFull):
        await case.addresses.choose("default/more")
    await case.rules.after_delete(objs[0])
    assert await case.addresses.choose("default/more") == ips[0]


async def test_asked_for() -> None:
    case = Case()
    await case.create("a", clusterIP="10.96.0.5")
    for address, text in (
        ("10.96.0.5", "provided IP is already allocated"),
        ("10.97.0.5", "the provided IP (10.97.0.5) is not in the valid range. The range of valid IPs is 10.96.0.0/24"),
    ):
        with pytest.raises(Invalid) as error:
            await case.create("b", clusterIP=address)
        assert error.value.message == (
            f'Service "b" is invalid: spec.clusterIPs: Invalid value: ["{address}"]: '
            f"failed to allocate IP {address}: {text}"
        )
    before = await case.reserved()
    with pytest.raises(Invalid) as error:
        await case.create("c", type="NodePort", ports=[{"port": 1, "nodePort": 29999}])
    assert "provided port is not in the valid range. The range of valid ports is 30000-30009" in error.value.message
    assert await case.reserved() == before  # its cluster IP was given back
    for spec in ({"clusterIP": "None"}, {"type": "ExternalName", "externalName": "e.com", "ports": []}):
        await case.create("d", **spec)
    assert await case.reserved() == before
    with pytest.raises(OutOfRange):
        await case.addresses.reserve("10.96.0.255", "x")


async def test_node_ports_and_updates() -> None:
    case = Case()
    ports = [{"port": 53, "name": "a", "protocol": "UDP"}, {"port": 53, "name": "b", "protocol": "TCP"}]
    old = await case.create("a", type="NodePort", ports=ports)
    node_ports = {p["nodePort"] for p in old["spec"]["ports"]}
    assert len(node_ports) == 1 and len(await case.reserved()) == 2
    # A client that sends the manifest again keeps what was allocated.
    new = tree("{metadata: {name: a, namespace: default}, spec: {type: NodePort, ports: []}}")
    new["spec"]["ports"] = [dict(p) for p in ports]
    case.rules.default(new)
    case.rules.prepare_update(CONTEXT, new, old)
    assert new["spec"]["clusterIP"] == old["spec"]["clusterIP"]
    assert case.rules.validate_update(new, old) == []
    end = await case.rules.begin_update(CONTEXT, new, old, False)
    assert end is not None
    await end(True)
    assert {p["nodePort"] for p in new["spec"]["ports"]} == node_ports and len(await case.reserved()) == 2
    # Back to ClusterIP: the port goes back.
    inner = tree("{metadata: {name: a, namespace: default}, spec: {type: ClusterIP}}")
    inner["spec"]["ports"] = [dict(p) for p in new["spec"]["ports"]]
    case.rules.default(inner)
    case.rules.prepare_update(CONTEXT, inner, new)
    assert case.rules.validate_update(inner, new) == []
    end = await case.rules.begin_update(CONTEXT, inner, new, False)
    assert end is not None
    await end(True)
    assert await case.reserved() == {inner["spec"]["clusterIP"]}
    moved = dict(inner, spec=inner["spec"] | {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]})
    assert [c.text() for c in case.rules.validate_update(moved, inner)] == [
        'spec.clusterIPs[0]: Invalid value: ["10.96.0.9"]: may not change once set'
    ]


async def test_crash_leaves_nothing_for_ever() -> None:
    case = Case()
    obj = await case.create("a", type="NodePort")
    address, port = obj["spec"]["clusterIP"], str(obj["spec"]["ports"][0]["nodePort"])
    await case.addresses.reserve("10.96.0.77", "default/lost")  # crashed before the Service was written
    addresses = case.rules.addresses
    assert await addresses.repair([obj]) == []  # it might still be on its way
    case.world.ahead = GRACE + 1
    assert await addresses.repair([obj]) == ["10.96.0.77"]
    assert await case.reserved() == {address, port}
    with pytest.raises(InUse):
        await case.addresses.reserve(address, "default/b")


async def test_dry_run_takes_nothing() -> None:
    case = Case()
    obj = await case.create("a", dry_run=True, type="NodePort")
    assert obj["spec"]["clusterIP"] and obj["spec"]["ports"][0]["nodePort"] and not await case.reserved()


LOCAL = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}


async def updated(case: Case, old: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """As the registry updates; ``spec``: what a client sends that has no idea of what was allocated."""
    new = tree("{metadata: {name: a, namespace: default}, spec: {ports: [{port: 80}]}}")
    new["spec"] |= spec
    case.rules.default(new)
    case.rules.prepare_update(CONTEXT, new, old)
    causes = [c.text() for c in case.rules.validate_update(new, old)]
    if causes:
        raise AssertionError(causes)
    end = await case.rules.begin_update(CONTEXT, new, old, False)
    assert end is not None
    await end(True)
    return new


async def test_health_check_port_is_taken_kept_and_given_back() -> None:
    case = Case()
    plain = await case.create("a", type="LoadBalancer")
    assert "healthCheckNodePort" not in plain["spec"] and len(await case.reserved()) == 2
    local = await updated(case, plain, **LOCAL)
    port = local["spec"]["healthCheckNodePort"]
    assert 30000 <= port <= 30009 and str(port) in await case.reserved() and len(await case.reserved()) == 3
    assert port not in [p["nodePort"] for p in local["spec"]["ports"]]
    again = await updated(case, local, **LOCAL)
    assert again["spec"]["healthCheckNodePort"] == port
    with pytest.raises(AssertionError, match=r"spec.healthCheckNodePort: Forbidden: field is immutable"):
        await updated(case, again, **LOCAL, healthCheckNodePort=port % 10 + 29999)
    for other in ({"type": "LoadBalancer"}, {"type": "NodePort", "externalTrafficPolicy": "Local"}, {"type": "ClusterIP"}):
        back = await updated(case, again, **other)
        assert "healthCheckNodePort" not in back["spec"] and str(port) not in await case.reserved()
        again = await updated(case, back, **LOCAL)
        port = again["spec"]["healthCheckNodePort"]
    await case.rules.after_delete(again)
    assert await case.reserved() == set()


async def test_health_check_port_that_was_asked_for() -> None:
    case = Case()
    asked = await case.create("a", **LOCAL, healthCheckNodePort=30004)
    assert asked["spec"]["healthCheckNodePort"] == 30004
    before = await case.reserved()
    for port, why in (
        (30004, "provided port is already allocated"),
        (29999, "provided port is not in the valid range. The range of valid ports is 30000-30009"),
    ):
        with pytest.raises(InternalError, match=f"failed to allocate requested HealthCheck NodePort {port}: {why}"):
            await case.create("b", **LOCAL, healthCheckNodePort=port)
    with pytest.raises((Invalid, InternalError), match="provided port is already allocated"):  # it cannot be both
        await case.create("b", **LOCAL, ports=[{"port": 1, "nodePort": 30008}], healthCheckNodePort=30008)
    with pytest.raises(Invalid, match="provided port is already allocated"):
        await updated(case, asked, **LOCAL, ports=[{"port": 80, "nodePort": 30004}])
    assert await case.reserved() == before
    dry = await case.create("c", dry_run=True, **LOCAL)
    assert dry["spec"]["healthCheckNodePort"] and await case.reserved() == before
    # A lost reservation is given back, that of a Service is not.
    lost = next(str(port) for port in range(30000, 30010) if str(port) not in before)
    await case.ports.reserve(lost, "default/lost")
    case.world.ahead = GRACE + 1
    assert await case.rules.addresses.repair([asked]) == [lost] and "30004" in await case.reserved()
