"""What a server that starts does to default roles that somebody changed."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from apiserver.assembly import assemble
from apiserver.bootstrap.objects import bootstrap
from apiserver.config import Config
from apiserver.request import LOOPBACK
from apiserver.storage.memory import MemoryStore
from navarch.client.client import Client
from navarch.client.transport import InProcessTransport
from navarch.virtual import SimulatedWorld

GROUP = "rbac.authorization.k8s.io"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLES, BINDINGS, NAMESPACED = f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings", f"{RBAC}/namespaces/kube-system"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"


async def get(client: Client, path: str) -> dict[str, Any]:
    tree: dict[str, Any] = await client.get_json(path)
    return tree


async def patch(client: Client, path: str, body: str) -> None:
    await client.request("PATCH", path, body=body.encode(), content_type="application/merge-patch+json")


async def damage(client: Client) -> dict[str, Any]:
    """Changes default roles and bindings in every way; the binding of kube-dns, whose labels somebody may change."""
    own = '{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}'
    await patch(client, f"{ROLES}/system:kube-dns", f'{{"rules": [{own}]}}')
    mine = f'"metadata": {{"annotations": {{"{AUTOUPDATE}": "false"}}}}'
    await patch(client, f"{ROLES}/system:heapster", f'{{{mine}, "rules": []}}')
    await patch(client, f"{BINDINGS}/system:monitoring", '{"subjects": [{"kind": "User", "name": "me"}]}')
    await patch(client, f"{NAMESPACED}/roles/system:controller:token-cleaner", '{"rules": []}')
    await client.request("DELETE", f"{ROLES}/system:controller:job-controller")
    bare = '{"labels": null, "annotations": {"a": "b"}}'
    await patch(client, f"{ROLES}/view", f'{{"aggregationRule": null, "metadata": {bare}}}')
    labels = '{"metadata": {"labels": {"kubernetes.io/bootstrapping": "mine", "x": "y"}}}'
    await patch(client, f"{BINDINGS}/system:kube-dns", labels)
    dns = await get(client, f"{BINDINGS}/system:kube-dns")
    other = {"roleRef": dns["roleRef"], "subjects": [{"kind": "User", "name": "me", "apiGroup": GROUP}]}
    for name, notes in (("system:discovery", {}), ("cluster-admin", {AUTOUPDATE: "false"})):
        await client.request("DELETE", f"{BINDINGS}/{name}")
        body = other | {"metadata": {"name": name, "annotations": notes}}
        await client.request("POST", BINDINGS, body=orjson.dumps(body))
    return dns


async def check_repaired(client: Client, dns: dict[str, Any]) -> None:
    rules = (await get(client, f"{ROLES}/system:kube-dns"))["rules"]
    assert [r["resources"] for r in rules] == [["endpoints", "services"], ["pods"]]
    assert not (await get(client, f"{ROLES}/system:heapster")).get("rules")  # asked to be left alone
    subjects = (await get(client, f"{BINDINGS}/system:monitoring"))["subjects"]
    assert [s["name"] for s in subjects] == ["me", "system:monitoring"]
    assert len((await get(client, f"{NAMESPACED}/roles/system:controller:token-cleaner"))["rules"]) == 2
    assert (await get(client, f"{ROLES}/system:controller:job-controller"))["rules"]
    view = await get(client, f"{ROLES}/view")
    assert view["aggregationRule"]["clusterRoleSelectors"] and len(view["metadata"]["labels"]) == 2
    assert view["metadata"]["annotations"] == {"a": "b", AUTOUPDATE: "true"}
    assert await get(client, f"{BINDINGS}/system:kube-dns") == dns  # other values are kept
    made_anew = await get(client, f"{BINDINGS}/system:discovery")
    assert made_anew["roleRef"]["name"] == "system:discovery"
    assert [s["name"] for s in made_anew["subjects"]] == ["system:authenticated"]
    assert (await get(client, f"{BINDINGS}/cluster-admin"))["roleRef"]["name"] == "system:kube-dns"


def test_default_roles_are_given_back_what_they_lack() -> None:
    world = SimulatedWorld(0)

    async def main() -> None:
        server, ready = assemble(world, MemoryStore(), Config()), asyncio.Event()
        client = Client(InProcessTransport(server.app, LOOPBACK), world, "test")

        async with world.task_group() as group:
            group.start(server.run(lambda bound: ready.set(), listen=False))
            await ready.wait()
            fresh = {path: await get(client, path) for path in (ROLES, BINDINGS, f"{RBAC}/roles", f"{RBAC}/rolebindings")}
            await bootstrap(server.resources)
            for path, before in fresh.items():  # nothing is written where nothing is missing
                assert (await get(client, path))["items"] == before["items"]

            dns = await damage(client)
            await bootstrap(server.resources)
            await check_repaired(client, dns)
            group.cancel()

    world.run(main)
