"""Watches of the schema-only kind, as streams of lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from navarch.client.transport import Stream
from tests.apiserver.registry.widget import ALL, PATH, Caller, serving, widget

MERGE = "application/merge-patch+json"


async def events(stream: Stream) -> AsyncIterator[Any]:
    rest = b""
    async for chunk in stream.chunks():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)


def shown(event: Any) -> tuple[str, str]:
    return event["type"], event["object"]["metadata"].get("name", "")


def query(**values: Any) -> list[tuple[str, str]]:
    return [("watch", "1"), *((k, str(v)) for k, v in values.items())]


async def take(iterator: AsyncIterator[Any], count: int) -> list[Any]:
    async with asyncio.timeout(10):
        return [await anext(iterator) for _ in range(count)]


async def test_everything_from_a_revision(call: Caller) -> None:
    first = await call.make("a", color="red")
    version = first["metadata"]["resourceVersion"]
    async with call.transport.stream("GET", PATH, query=query(resourceVersion=version)) as stream:
        assert stream.status == 200
        seen = events(stream)
        await call.make("b")
        await call("PATCH", PATH + "/b", {"spec": {"color": "x"}}, MERGE)
        gone = await call("DELETE", PATH + "/a")
        assert gone.code == 200
        got = await take(seen, 3)
        assert [shown(e) for e in got] == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "a")]
        versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in got]
        assert versions == sorted(versions) and versions[0] > int(version)
        call.server.watches.stop()
        assert [e async for e in seen] == []


async def test_selectors_enter_and_leave(call: Caller) -> None:
    await call.make("a", color="red")
    async with call.transport.stream("GET", ALL, query=query(fieldSelector="spec.color=red")) as stream:
        seen = events(stream)
        assert shown((await take(seen, 1))[0]) == ("ADDED", "a")
        await call("PATCH", PATH + "/a", {"spec": {"color": "blue"}}, MERGE)
        await call.make("b", color="red")
        left, entered = await take(seen, 2)
        assert shown(left) == ("DELETED", "a") and left["object"]["spec"]["color"] == "red"
        assert shown(entered) == ("ADDED", "b")


async def test_initial_events_bookmark_and_timeout(call: Caller) -> None:
    await call.make("a")
    wanted = query(
        sendInitialEvents="true", resourceVersionMatch="NotOlderThan", allowWatchBookmarks="true", timeoutSeconds=1
    )
    async with call.transport.stream("GET", PATH, query=wanted) as stream:
        got = [e async for e in events(stream)]  # ends by itself
    assert [e["type"] for e in got[:2]] == ["ADDED", "BOOKMARK"]
    assert got[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert got[1]["object"]["kind"] == "Widget"
    assert (await call("GET", PATH, watch="1", sendInitialEvents="true")).code == 422
    assert (await call("GET", PATH, watch="1", resourceVersionMatch="Exact")).code == 422


async def test_lost_past(call: Caller) -> None:
    made = await call.make("a")
    history = call.server.cache._resources["/registry/widgets/"].history
    history.floor = int(made["metadata"]["resourceVersion"]) + 5
    async with call.transport.stream("GET", PATH, query=query(resourceVersion="1")) as stream:
        (event,) = [e async for e in events(stream)]
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")


async def test_tables(call: Caller) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    async with call.transport.stream("GET", PATH, query=query(), accept=accept) as stream:
        seen = events(stream)
        await call.make("a", color="red")
        await call.make("b")
        first, second = await take(seen, 2)
        assert first["object"]["columnDefinitions"][1]["name"] == "Color"
        assert first["object"]["rows"][0]["cells"] == ["a", "red"]
        assert second["object"]["columnDefinitions"] is None


async def test_metadata_only(call: Caller) -> None:
    accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
    wanted = query(
        sendInitialEvents="true", resourceVersionMatch="NotOlderThan", allowWatchBookmarks="true", timeoutSeconds=5
    )
    await call.make("a", color="red")
    async with call.transport.stream("GET", PATH, query=wanted, accept=accept) as stream:
        seen = events(stream)
        added, bookmark = await take(seen, 2)
        await call.make("b")
        await call("DELETE", PATH + "/a")
        later = await take(seen, 2)
    for event in (added, *later):
        assert set(event["object"]) == {"kind", "apiVersion", "metadata"}
        assert event["object"]["kind"] == "PartialObjectMetadata"
        assert event["object"]["apiVersion"] == "meta.k8s.io/v1"
    assert [shown(e) for e in (added, *later)] == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_many_watchers_see_every_write() -> None:
    async def test(call: Caller) -> None:
        async def watch() -> list[str]:
            async with call.transport.stream("GET", PATH, query=query()) as stream:
                started.release()
                return sorted(shown(e)[1] for e in await take(events(stream), 50))

        started = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(watch()) for _ in range(20)]
        for _ in tasks:
            await started.acquire()
        await asyncio.gather(*(call("POST", PATH, widget(f"w{i}")) for i in range(50)))
        expected = sorted(f"w{i}" for i in range(50))
        assert all(names == expected for names in await asyncio.gather(*tasks))

    serving(test)
