"""The informer's cache equals the server's state whatever happens to the watch, and its handlers miss nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.informer import Informer, SharedInformers
from navarch.client.transport import InProcessTransport
from navarch.world import RealWorld
from tests.client.double import Double


def pod(namespace: str, name: str, node: str = "") -> tuple[str, dict[str, Any]]:
    tree = {"metadata": {"name": name, "namespace": namespace}, "spec": {"containers": [], "nodeName": node}}
    return f"/api/v1/namespaces/{namespace}/pods/{name}", tree


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def by_node(obj: core_v1.Pod) -> list[str]:
    return [obj.spec.node_name] if obj.spec and obj.spec.node_name else []


async def test_follows_through_interruptions() -> None:
    world = RealWorld()

    server = Double()
    server.put(*pod("a", "one", "n1"))
    server.put(*pod("b", "two"))
    client = Client(InProcessTransport(server, None), world)
    informer = Informer(client[core_v1.Pod], indexers={"node": by_node})
    told: list[tuple[str, str]] = []
    informer.add_handler(lambda kind, old, new: told.append((kind, new.metadata.name or "")))
    informer.add_handler(lambda kind, old, new: 1 / 0)  # another's mistake harms nobody
    async with world.task_group() as group:
        group.start(informer.run())
        await informer.wait_synced()
        assert informer.keys() == ["a/one", "b/two"] and len(informer.list("a")) == 1
        assert [p.metadata.name for p in informer.by_index("node", "n1")] == ["one"]

        server.put(*pod("a", "one", "n2"))
        server.remove("/api/v1/namespaces/b/pods/two")
        await until(lambda: len(informer) == 1)
        assert informer.by_index("node", "n1") == [] and len(informer.by_index("node", "n2")) == 1
        assert informer.get("b", "two") is None and informer.list("b") == []

        server.end_watches()  # goes on where it stopped, without a list
        lists = sum(m == "GET" for m, _ in server.requests)
        server.put(*pod("a", "three"))
        await until(lambda: len(informer) == 2)
        assert sum(m == "GET" for m, _ in server.requests) == lists + 1

        server.fail = [(500, {}), (410, {})]  # a failure is waited out; what is gone is listed again
        server.put(*pod("a", "four"))
        server.remove("/api/v1/namespaces/a/pods/three")
        server.remove("/api/v1/namespaces/a/pods/one")
        server.put(*pod("a", "one", "n9"))
        server.expire()
        await until(lambda: len(informer.by_index("node", "n9")) == 1)
        assert sorted(informer.keys()) == ["a/four", "a/one"]
        late: list[str] = []
        informer.add_handler(lambda kind, old, new: late.append(kind))
        assert late == ["ADDED", "ADDED"]
        group.cancel()
    assert told[:4] == [("ADDED", "one"), ("ADDED", "two"), ("MODIFIED", "one"), ("DELETED", "two")]
    # "one" is another object now: told as such
    assert told.count(("DELETED", "one")) == 1 and told.count(("ADDED", "one")) == 2


async def test_shared_informers_run_what_is_asked_for_later() -> None:
    world = RealWorld()

    server = Double()
    server.put(*pod("a", "one", "n1"))
    shared = SharedInformers(Client(InProcessTransport(server, None), world), world)
    pods = shared.informer(core_v1.Pod)
    async with world.task_group() as group:
        group.start(shared.run())
        await shared.wait_synced()
        assert shared.informer(core_v1.Pod, indexers={"node": by_node}) is pods
        assert len(pods.by_index("node", "n1")) == 1
        nodes = shared.informer(core_v1.Node)
        assert not shared.synced
        await nodes.wait_synced()
        group.cancel()
