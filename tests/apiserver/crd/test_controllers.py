"""Controllers and custom resources: garbage collection, and namespaces that go. On virtual time."""

from __future__ import annotations

from typing import Any

from navarch.api.kinds import Kind
from navarch.client.client import Client
from tests.apiserver.crd.support import CRONTAB, crontab, crontabs
from tests.controllers.cluster import Cluster, run_cluster

KIND = Kind("stable.example.com", "v1", "CronTab", "crontabs")
assert CRONTAB


async def define(cluster: Cluster) -> None:
    definitions = cluster.client.tree(
        Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False)
    )
    await definitions.create(crontabs())

    async def established() -> bool:
        found: dict[str, Any] = await definitions.get("crontabs.stable.example.com")
        conditions = found["status"].get("conditions") or ()
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    await cluster.until(established)


async def names(client: Client, namespace: str, kind: Kind = KIND) -> list[str]:
    return [o["metadata"]["name"] for o in (await client.tree(kind).list(namespace)).items]


def test_owned_by_a_custom_resource() -> None:
    async def test(cluster: Cluster) -> None:
        await define(cluster)
        maps = Kind("", "v1", "ConfigMap", "configmaps")
        client = cluster.client
        owner = await client.tree(KIND).create(crontab("owner"), "default")
        reference = {
            "apiVersion": "stable.example.com/v1",
            "kind": "CronTab",
            "name": "owner",
            "uid": owner["metadata"]["uid"],
        }
        child = crontab("child")
        child["metadata"]["ownerReferences"] = [reference]
        await client.tree(KIND).create(child, "default")
        await client.tree(maps).create({"metadata": {"name": "m", "ownerReferences": [reference]}}, "default")
        await client.tree(KIND).delete("owner", "default", propagation_policy="Background")

        async def gone() -> bool:
            return await names(client, "default") == [] and "m" not in await names(client, "default", maps)

        await cluster.until(gone)

    run_cluster(test)


def test_a_namespace_that_goes_takes_them_along() -> None:
    async def test(cluster: Cluster) -> None:
        await define(cluster)
        client = cluster.client
        spaces = Kind("", "v1", "Namespace", "namespaces", False)
        await client.tree(spaces).create({"metadata": {"name": "short"}})
        await client.tree(KIND).create(crontab("a"), "short")
        await client.tree(KIND).create(crontab("b"), "default")
        await client.tree(spaces).delete("short")

        async def gone() -> bool:
            return "short" not in [o["metadata"]["name"] for o in (await client.tree(spaces).list()).items]

        await cluster.until(gone)
        assert await names(client, "short") == [] and await names(client, "default") == ["b"]

    run_cluster(test)
