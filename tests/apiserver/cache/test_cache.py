"""The watch cache over the memory store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from apiserver.cache.cache import Cache, Watcher, extract_fields, extract_metadata
from apiserver.cache.encoded import decode, encode, with_revision
from apiserver.cache.history import Event
from apiserver.storage.memory import MemoryStore
from apiserver.storage.store import FutureRevision, Put, Store
from navarch.api.errors import Expired
from navarch.world import RealWorld

PODS, NODES = "/registry/pods/", "/registry/nodes/"


class Equals:
    """A selector: these values must be equal."""

    def __init__(self, **wanted: str) -> None:
        self.exact = {key.replace("__", "."): value for key, value in wanted.items()}

    def matches(self, values: Mapping[str, str]) -> bool:
        return all(values.get(key) == value for key, value in self.exact.items())

    @property
    def empty(self) -> bool:
        return not self.exact


def pod(name: str, namespace: str = "default", node: str = "", **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": node}}


async def put(store: Store, tree: dict[str, Any]) -> int:
    key = f"{PODS}{tree['metadata']['namespace']}/{tree['metadata']['name']}"
    return (await store.txn([], [Put(key, encode(tree))])).revision


async def delete(store: Store, name: str, namespace: str = "default") -> int:
    return (await store.txn([], [], [f"{PODS}{namespace}/{name}"])).revision


@asynccontextmanager
async def running(store: Store, **options: Any) -> AsyncIterator[Cache]:
    world = RealWorld()
    pods = extract_fields(lambda tree: {"spec.nodeName": tree["spec"].get("nodeName", "")})
    resources = {PODS: pods, NODES: extract_metadata}
    cache = Cache(world, store, resources=resources, indexes={PODS: "spec.nodeName"}, **options)
    async with world.task_group() as group:
        task = group.start(cache.run())
        await cache.wait_ready()
        yield cache
        task.cancel()


def run(test: Callable[[MemoryStore, Cache], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        store = MemoryStore()
        async with asyncio.timeout(20), running(store, **options) as cache:
            await test(store, cache)
            cache.check()
        await store.close()

    RealWorld().run(main)


async def take(watcher: Watcher, count: int) -> list[tuple[str, str, int]]:
    out: list[tuple[str, str, int]] = []
    async with asyncio.timeout(5):
        while len(out) < count:
            event = await anext(watcher)
            out.append((event.type, event.entry.name if event.entry else "", event.revision))
    return out


def test_encoding() -> None:
    tree = pod("a", x="1") | {"metadata": {"resourceVersion": "7", "name": "a"}}
    value = encode(tree)
    assert b"resourceVersion" not in value and tree["metadata"]["resourceVersion"] == "7"
    for revision in (1, 1234, 5):
        value = with_revision(value, revision)
        assert decode(value) == tree | {"metadata": {"name": "a", "resourceVersion": str(revision)}}
    assert decode(with_revision(encode({"kind": "X", "metadata": {}}), 3))["metadata"] == {"resourceVersion": "3"}


@pytest.mark.parametrize("history", [1000, 0])  # old lists come from the cache's history, or from the store
def test_get_and_list(history: int) -> None:
    async def test(store: MemoryStore, cache: Cache) -> None:
        for name, namespace, node in [("a", "x", "n1"), ("b", "x", "n2"), ("b", "x-y", "n1"), ("c", "y", "")]:
            revision = await put(store, pod(name, namespace, node, app=name))
        assert await cache.current() == revision
        entry = cache.get(PODS, "x", "b")
        assert entry is not None and entry.tree()["metadata"]["resourceVersion"] == str(revision - 2)
        assert (entry.uid, entry.labels, entry.fields) == ("uid-b", {"app": "b"}, {"spec.nodeName": "n2"})
        assert cache.get(PODS, "x", "zz") is None

        def keys(**options: Any) -> list[str]:
            return [e.key for e in cache.list(PODS, **options).entries]

        assert keys() == ["x-y/b", "x/a", "x/b", "y/c"]  # the order of the store's keys
        assert keys(namespace="x") == ["x/a", "x/b"]
        assert keys(labels=Equals(app="b")) == ["x-y/b", "x/b"]
        assert keys(fields=Equals(spec__nodeName="n1")) == ["x-y/b", "x/a"]
        assert keys(fields=Equals(spec__nodeName="n1"), namespace="x") == ["x/a"]
        assert keys(fields=Equals(metadata__name="b"), start_after="x-y/b") == ["x/b"]
        first = cache.list(PODS, limit=3)
        assert (first.more, first.remaining, first.revision) == (True, 1, revision)
        # The second page is of the same revision, whatever happened since.
        rest = await cache.list_at(PODS, first.revision, start_after=first.entries[-1].key, limit=3)
        assert [e.key for e in rest.entries] == ["y/c"] and not rest.more
        await put(store, pod("d", "y"))
        await delete(store, "c", "y")
        await cache.current()
        rest = await cache.list_at(PODS, first.revision, start_after=first.entries[-1].key, limit=3)
        assert [(e.key, e.revision) for e in rest.entries] == [("y/c", revision)] and rest.revision == revision
        page = await cache.list_at(PODS, first.revision, namespace="x", limit=1)
        assert [e.key for e in page.entries] == ["x/a"] and (page.more, page.remaining) == (True, 1)
        assert keys(namespace="y") == ["y/d"]
        with pytest.raises(FutureRevision):
            await cache.current(revision + 100)

    run(test, wait_seconds=0.05, history_least=history, history_seconds=1000 if history else 0)


def test_watch_sees_selector_transitions() -> None:
    async def test(store: MemoryStore, cache: Cache) -> None:
        start = await cache.current()
        everything = cache.watch(PODS, from_revision=start)
        red = cache.watch(PODS, "default", labels=Equals(color="red"), from_revision=start)
        node = cache.watch(PODS, fields=Equals(spec__nodeName="n1"), from_revision=start)
        named = cache.watch(PODS, "default", fields=Equals(metadata__name="a"), from_revision=start)
        other = cache.watch(PODS, "other", from_revision=start)
        await put(store, pod("a", color="red"))
        await put(store, pod("b", color="blue"))
        await put(store, pod("a", color="blue", node="n1"))
        await put(store, pod("a", color="red", node="n1"))
        await put(store, pod("a", color="red", node="n2"))
        await delete(store, "a")
        await put(store, pod("z", "other"))
        assert [(t, n, r - start) for t, n, r in await take(everything, 7)] == [
            ("ADDED", "a", 1), ("ADDED", "b", 2), ("MODIFIED", "a", 3), ("MODIFIED", "a", 4), ("MODIFIED", "a", 5),
            ("DELETED", "a", 6), ("ADDED", "z", 7),
        ]  # fmt: skip
        wanted = [("ADDED", "a", 1), ("DELETED", "a", 3), ("ADDED", "a", 4), ("MODIFIED", "a", 5), ("DELETED", "a", 6)]
        assert [(t, n, r - start) for t, n, r in await take(red, 5)] == wanted
        on_node = [("ADDED", "a", 3), ("MODIFIED", "a", 4), ("DELETED", "a", 5)]
        assert [(t, n, r - start) for t, n, r in await take(node, 3)] == on_node
        assert [(t, r - start) for t, n, r in await take(named, 5)] == [
            ("ADDED", 1), ("MODIFIED", 3), ("MODIFIED", 4), ("MODIFIED", 5), ("DELETED", 6),
        ]  # fmt: skip
        assert await take(other, 1) == [("ADDED", "z", start + 7)]
        # The past replayed is what was seen live.
        with cache.watch(PODS, labels=Equals(color="red"), from_revision=start) as again:
            events: list[Event] = await again.batch()
        assert [(e.type, e.revision - start) for e in events] == [(t, r) for t, _, r in wanted]
        gone = decode(events[1].frame)
        assert gone["type"] == "DELETED" and gone["object"]["metadata"]["labels"] == {"color": "red"}
        assert gone["object"]["metadata"]["resourceVersion"] == str(start + 3)

    run(test)


def test_initial_events_and_bookmarks() -> None:
    async def test(store: MemoryStore, cache: Cache) -> None:
        await put(store, pod("b"))
        revision = await put(store, pod("a"))
        await cache.current()
        watcher = cache.watch(PODS, bookmarks=True, initial_end=True)
        assert await take(watcher, 3) == [
            ("ADDED", "a", revision),
            ("ADDED", "b", revision - 1),
            ("BOOKMARK", "", revision),
        ]
        await store.txn([], [Put("/registry/nodes/n", encode({"metadata": {"name": "n"}}))])
        # A bookmark carries revisions of other resources too.
        while (await take(watcher, 1))[0] != ("BOOKMARK", "", revision + 1):
            pass
        watcher.close()
        with pytest.raises(StopAsyncIteration):
            await anext(watcher)

    run(test, bookmark_seconds=0.05)


def test_history_ends_and_slow_watchers_are_dropped() -> None:
    async def test(store: MemoryStore, cache: Cache) -> None:
        start = await cache.current()
        slow = cache.watch(PODS, from_revision=start)
        for n in range(8):
            await put(store, pod(f"p{n}"))
        await cache.current()
        assert slow.overflowed and await slow.batch() == []
        with pytest.raises(Expired, match=rf"too old resource version: {start + 2} \({start + 3}\)"):
            cache.watch(PODS, from_revision=start + 2)
        assert len(await cache.watch(PODS, from_revision=start + 3).batch()) == 5
        # A resource that did not change can be watched from the time of the load.
        cache.watch(NODES, from_revision=start).close()

    run(test, buffer=5, history_least=5, history_seconds=0)


def test_extraction_of_parts() -> None:
    def see(tree: dict[str, Any]) -> dict[str, str]:
        assert set(tree) <= {"metadata", "spec", "source", "status"}
        return {"tree": repr({key: value for key, value in tree.items() if key != "metadata"})}

    extract = extract_fields(
        see, ["spec.nodeName", "spec.absent", "source", "status.conditions.from", "nothing.at.all"]
    )
    tree = pod("a", node="n", app="x") | {"source": {"a": 1}, "status": None, "other": [1]}
    found = extract(encode(tree))
    assert found[:2] == ("default", {"app": "x"})
    assert found.fields["tree"] == repr({"spec": {"nodeName": "n"}, "source": {"a": 1}, "status": None})


def test_what_is_no_object_does_no_harm() -> None:
    async def test(store: MemoryStore, cache: Cache) -> None:
        for value in (b"{}", b"what", b'{"metadata":{"labels":3}}'):
            await store.txn([], [Put(PODS + "default/broken", value)])
            revision = await put(store, pod("a"))
            assert await cache.current() == revision
            assert [e.name for e in cache.list(PODS).entries] == ["a"]
        async with running(store) as again:
            assert [e.name for e in again.list(PODS).entries] == ["a"]

    run(test)


def test_resources_come_and_go() -> None:
    async def test(store: MemoryStore, cache: Cache) -> None:
        prefix = "/registry/example.com/things/"
        value = encode({"kind": "Thing", "metadata": {"name": "t", "namespace": "d"}})
        revision = (await store.txn([], [Put(prefix + "d/t", value)])).revision
        await cache.current()
        for _ in range(2):
            cache.add_resource(prefix, extract_metadata)
            entry = cache.get(prefix, "d", "t")
            assert entry is not None and entry.revision == revision
            watcher = cache.watch(prefix)
            assert await take(watcher, 1) == [("ADDED", "t", revision)]
            cache.remove_resource(prefix)
            assert watcher.closed

    run(test)


@pytest.mark.parametrize("what", ["index spec.nodeName", "not what its last change"])
async def test_a_cache_that_contradicts_itself_is_seen(what: str) -> None:
    store = MemoryStore()
    async with running(store) as cache:
        await put(store, pod("a", node="n1"))
        await cache.current()
        cache.check()
        objects = cache._resources[PODS].objects
        if what.startswith("index"):
            objects._indexed.pop("n1")
        else:
            objects.remove("default/a")
        with pytest.raises(AssertionError, match=what):
            cache.check()
    await store.close()
