"""Ranges of service addresses, the addresses as objects; on virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api.errors import AlreadyExists, Invalid
from navarch.api.types import core_v1, networking_v1
from tests.controllers.cluster import Cluster, run_cluster
from tests.controllers.test_persistentvolumes import make
from tests.within import Within

Address = networking_v1.IPAddress
Range = networking_v1.ServiceCIDR


def service(name: str, **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": 80}], **spec}}


def service_range(name: str, cidr: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name}, "spec": {"cidrs": [cidr]},
    }  # fmt: skip


async def parents(cluster: Cluster) -> dict[str, str]:
    """Address -> the Service that it belongs to."""
    out = {}
    for address in (await cluster.client[Address].list()).items:
        parent = address.spec.parent_ref if address.spec is not None else None
        out[address.metadata.name or ""] = parent.name if parent is not None else ""
    return out


async def condition(cluster: Cluster, name: str) -> tuple[str, str]:
    """(status, reason) of a range's condition Ready."""
    status = (await cluster.client[Range].get(name)).status
    return next(((c.status, c.reason) for c in (status.conditions if status else None) or ()), ("", ""))


def test_addresses_are_objects_that_follow_services(cluster: Within) -> None:
    async def body(cluster: Cluster) -> None:
        await make(cluster, service("web"), service("bare", clusterIP="None"))
        ip = (await cluster.client[core_v1.Service].get("web", "default")).spec.cluster_ip or ""

        async def follows() -> bool:
            return sorted((await parents(cluster)).values()) == ["kubernetes", "web"]

        await cluster.until(follows)
        assert (await parents(cluster))[ip] == "web"
        await cluster.client[Address].delete(ip)
        await cluster.until(follows)
        await cluster.client[core_v1.Service].delete("web", "default")

        async def left() -> bool:
            return list((await parents(cluster)).values()) == ["kubernetes"]

        await cluster.until(left)

    run_cluster(body)


def test_a_range_gives_addresses_and_stays_while_they_are_used() -> None:
    async def body(cluster: Cluster) -> None:
        with pytest.raises(Invalid, match=r"The range of valid IPs is 10.96.0.0/16"):
            await make(cluster, service("early", clusterIP="10.200.0.5"))
        await make(cluster, service_range("more", "10.200.0.0/24"))

        async def ready() -> bool:
            return await condition(cluster, "more") == ("True", "")

        await cluster.until(ready)
        await make(cluster, service("web", clusterIP="10.200.0.5"))

        async def listed() -> bool:
            return (await parents(cluster)).get("10.200.0.5") == "web"

        await cluster.until(listed)
        await cluster.client[Range].delete("more")

        async def terminates() -> bool:
            return await condition(cluster, "more") == ("False", "Terminating")

        await cluster.until(terminates)
        with pytest.raises(Invalid):
            await make(cluster, service("late", clusterIP="10.200.0.6"))
        await cluster.client[core_v1.Service].delete("web", "default")

        async def is_gone() -> bool:
            return [r.metadata.name for r in (await cluster.client[Range].list()).items] == ["kubernetes"]

        await cluster.until(is_gone)

    run_cluster(body)


def test_when_one_range_is_full_the_next_one_serves() -> None:
    async def body(cluster: Cluster) -> None:
        kinds = cluster.server.resources["", "services"].strategy
        allocator = kinds.addresses.addresses
        await make(cluster, service_range("more", "10.200.0.0/28"))

        async def ready() -> bool:
            return await condition(cluster, "more") == ("True", "")

        await cluster.until(ready)
        for number in range(allocator.size):  # the first range has nothing left
            allocator.in_use[allocator.text(number)] = None
        allocator.loaded = True
        await make(cluster, service("web"))
        ip = (await cluster.client[core_v1.Service].get("web", "default")).spec.cluster_ip or ""
        assert ip.startswith("10.200.0.")

    run_cluster(body)


def test_an_address_made_by_hand_is_reserved() -> None:
    async def body(cluster: Cluster) -> None:
        by_hand = {
            "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": "10.96.0.77"},
            "spec": {"parentRef": {"resource": "gateways", "group": "example.com", "namespace": "default", "name": "g"}},
        }  # fmt: skip
        await make(cluster, by_hand)
        with pytest.raises(Invalid, match="already allocated"):
            await make(cluster, service("web", clusterIP="10.96.0.77"))
        await cluster.world.sleep(400)  # repairs leave it
        with pytest.raises(Invalid, match="already allocated"):
            await make(cluster, service("web", clusterIP="10.96.0.77"))
        await cluster.client[Address].delete("10.96.0.77")
        await make(cluster, service("web", clusterIP="10.96.0.77"))
        with pytest.raises(AlreadyExists):
            await make(cluster, by_hand)

    run_cluster(body)
