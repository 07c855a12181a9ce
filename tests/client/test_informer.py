"""The informer's cache equals the server's state whatever happens to the watch, and its handlers miss nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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


class Followed:
    """A server with the pods a/one, on node n1, and b/two; an informer of its pods, and what its handler was told."""

    def __init__(self) -> None:
        self.server = Double()
        self.server.put(*pod("a", "one", "n1"))
        self.server.put(*pod("b", "two"))
        client = Client(InProcessTransport(self.server, None), RealWorld())
        self.informer = Informer(client[core_v1.Pod], indexers={"node": by_node})
        self.told: list[tuple[str, str]] = []
        self.informer.add_handler(lambda kind, old, new: self.told.append((kind, new.metadata.name or "")))
        self.informer.add_handler(lambda kind, old, new: 1 / 0)  # another's mistake harms nobody

    def lists(self) -> int:
        return sum(method == "GET" for method, _ in self.server.requests)


@asynccontextmanager
async def following() -> AsyncIterator[Followed]:
    followed = Followed()
    async with RealWorld().task_group() as group:
        group.start(followed.informer.run())
        await followed.informer.wait_synced()
        yield followed
        group.cancel()


async def test_follows_changes() -> None:
    async with following() as followed:
        server, informer = followed.server, followed.informer
        assert informer.keys() == ["a/one", "b/two"] and len(informer.list("a")) == 1
        assert [p.metadata.name for p in informer.by_index("node", "n1")] == ["one"]

        server.put(*pod("a", "one", "n2"))
        server.remove("/api/v1/namespaces/b/pods/two")
        await until(lambda: len(informer) == 1)
        assert informer.by_index("node", "n1") == [] and len(informer.by_index("node", "n2")) == 1
        assert informer.get("b", "two") is None and informer.list("b") == []
    assert followed.told == [("ADDED", "one"), ("ADDED", "two"), ("MODIFIED", "one"), ("DELETED", "two")]


async def test_a_watch_that_ends_goes_on_where_it_stopped() -> None:
    async with following() as followed:
        followed.server.end_watches()
        lists = followed.lists()
        followed.server.put(*pod("a", "three"))
        await until(lambda: len(followed.informer) == 3)
        assert followed.lists() == lists + 1, "a watch, without a list"
    assert followed.told == [("ADDED", "one"), ("ADDED", "two"), ("ADDED", "three")]


async def test_a_failure_is_waited_out_and_what_is_gone_is_listed_again() -> None:
    async with following() as followed:
        server, informer = followed.server, followed.informer
        server.end_watches()
        server.put(*pod("a", "three"))
        await until(lambda: len(informer) == 3)

        server.fail = [(500, {}), (410, {})]
        server.put(*pod("a", "four"))
        server.remove("/api/v1/namespaces/a/pods/three")
        server.remove("/api/v1/namespaces/b/pods/two")
        server.remove("/api/v1/namespaces/a/pods/one")
        server.put(*pod("a", "one", "n9"))
        server.expire()
        await until(lambda: len(informer.by_index("node", "n9")) == 1)
        assert sorted(informer.keys()) == ["a/four", "a/one"]
        late: list[str] = []
        informer.add_handler(lambda kind, old, new: late.append(kind))
        assert late == ["ADDED", "ADDED"]
    # "one" is another object now: told as such
    assert followed.told.count(("DELETED", "one")) == 1 and followed.told.count(("ADDED", "one")) == 2


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
