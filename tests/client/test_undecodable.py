"""Objects that do not fit their struct: informers pass them over, and know that they are there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.informer import Informer
from navarch.client.transport import InProcessTransport, UndecodableAnswer
from navarch.world import RealWorld
from tests.client.double import Double
from tests.client.test_informer import pod, until

Pod = core_v1.Pod
PATH = "/api/v1/namespaces/a/pods/"
Told = list[tuple[str, str]]


def bad(name: str, **spec: Any) -> tuple[str, dict[str, Any]]:
    """A pod as a webhook might leave it: a field of another type."""
    path, tree = pod("a", name)
    return path, {**tree, "spec": {**tree["spec"], **(spec or {"hostNetwork": "yes"})}}


def follow(
    test: Callable[[Double, Informer[Pod], Told], Awaitable[None]], *objects: tuple[str, dict[str, Any]]
) -> None:
    """Runs ``test`` beside a synced informer; the list has what its handler heard."""
    world = RealWorld()

    async def main() -> None:
        server, told = Double(), Told()
        for path, tree in objects:
            server.put(path, tree)
        informer = Informer(
            Client(InProcessTransport(server, None), world)[Pod], indexers={"node": lambda p: [p.spec.node_name or ""]}
        )
        informer.add_handler(lambda kind, old, new: told.append((kind, new.metadata.name or "")))
        informer.add_undecodable_handler(lambda kind, found: told.append((f"{kind} undecodable", found.name)))
        async with world.task_group() as group:
            group.start(informer.run())
            await informer.wait_synced()
            await test(server, informer, told)
            informer.check()
            group.cancel()

    asyncio.run(main())


def test_neighbours_in_list_and_watch_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async def test(server: Double, informer: Informer[Pod], told: Told) -> None:
        assert informer.keys() == ["a/one"] and list(informer.undecodable) == ["a/two"]
        server.put(*bad("three", containers=7))
        server.put(*pod("a", "four"))
        await until(lambda: len(informer) == 2)
        assert list(informer.undecodable) == ["a/two", "a/three"] and informer.synced
        server.expire()  # the same versions again: nobody is told of them a second time
        server.put(*pod("a", "five"))
        await until(lambda: len(informer) == 3)
        assert informer.faults.undecodable == {"pods": 2}
        assert len([r for r in caplog.records if "cannot be decoded" in r.message]) == 2
        assert told.count(("ADDED undecodable", "two")) == 1

    with caplog.at_level(logging.ERROR):
        follow(test, pod("a", "one"), bad("two"))


def test_the_last_state_that_was_understood_stays_until_the_object_goes() -> None:
    async def test(server: Double, informer: Informer[Pod], told: Told) -> None:
        server.put(*bad("one"))
        await until(lambda: "a/one" in informer.undecodable)
        assert informer.get("a", "one") is not None and ("DELETED", "one") not in told  # it is not gone
        server.put(*pod("a", "one", "n1"))
        await until(lambda: not informer.undecodable)
        assert told[-2:] == [("DELETED undecodable", "one"), ("MODIFIED", "one")]
        assert [p.metadata.name for p in informer.by_index("node", "n1")] == ["one"]
        server.put(*bad("one"))
        server.remove(f"{PATH}one")
        await until(lambda: len(informer) == 0)
        assert told[-2:] == [("DELETED undecodable", "one"), ("DELETED", "one")] and not informer.undecodable

    follow(test, pod("a", "one"))


def test_an_object_made_anew_is_another_even_if_it_cannot_be_read() -> None:
    async def test(server: Double, informer: Informer[Pod], told: Told) -> None:
        server.remove(f"{PATH}one")
        server.put(*bad("one"))
        server.expire()
        await until(lambda: "a/one" in informer.undecodable)
        assert len(informer) == 0 and ("DELETED", "one") in told

    follow(test, pod("a", "one"))


@pytest.mark.parametrize(
    "meta",
    [
        {"labels": {"a": 1}},
        {"labels": 5},
        {"ownerReferences": [{"uid": 5}]},
        {"finalizers": "x"},
        {"generation": "many"},
    ],
)
def test_metadata_that_does_not_fit(meta: dict[str, Any]) -> None:
    async def test(server: Double, informer: Informer[Pod], told: Told) -> None:
        path, tree = pod("a", "odd")
        server.put(path, {**tree, "metadata": {**tree["metadata"], **meta}})
        server.put(*pod("a", "last"))
        await until(lambda: len(informer) == 2)
        found = informer.undecodable["a/odd"]
        assert found.metadata is None and found.uid and found.reason
        server.remove(path)
        await until(lambda: not informer.undecodable)

    follow(test, pod("a", "one"))


def test_who_controls_it_is_known() -> None:
    async def test(server: Double, informer: Informer[Pod], told: Told) -> None:
        path, tree = bad("two")
        ref = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "u1", "controller": True}
        server.put(path, {**tree, "metadata": {**tree["metadata"], "ownerReferences": [ref]}})
        await until(lambda: bool(informer.undecodable))
        assert [b.name for b in informer.controlled_undecodable("u1")] == ["two"]
        assert informer.controlled_undecodable("u2") == []
        registry = CollectorRegistry()
        registry.register(informer.faults)  # type: ignore[arg-type]
        assert b'navarch_informer_undecodable_objects_total{resource="pods"} 1.0' in generate_latest(registry)

    follow(test)


def test_an_index_or_a_handler_that_raises_costs_nobody_else_an_event() -> None:
    async def test(server: Double, informer: Informer[Pod], told: Told) -> None:
        informer.add_index("odd", lambda p: [str(1 // (p.metadata.name != "odd"))])
        server.put(*pod("a", "odd", "n1"))
        server.put(*pod("a", "even", "n1"))
        await until(lambda: len(informer) == 3)
        assert len(informer.by_index("node", "n1")) == 2 and len(informer.by_index("odd", "1")) == 2
        assert informer.faults.handlers["pods"] >= 1

    follow(test, pod("a", "one"))


class Garbage(Double):
    """Answers with something that is no list, or no event, so many times."""

    def __init__(self, lists: list[bytes], events: list[bytes]) -> None:
        super().__init__()
        self.lists, self.events = lists, events

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        watch = b"watch" in scope["query_string"]
        odd = self.events if watch else self.lists
        if not odd:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": odd.pop(0), "more_body": False})


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"<html>",
        b"[1]",
        b'{"items": {}}',
        b"null",
        b'{"items": [5]}',
        b"\xff\xfe",
        b"[" * 5000,
        b'{"metadata": 5}',
    ],
)
async def test_answers_that_are_no_list_and_no_event_are_waited_out(odd: bytes) -> None:
    world = RealWorld()

    server = Garbage([odd], [odd + b"\n", b'{"type": 5}\n', b'{"type": "ADDED", "object": 5}\n'])
    server.put(*pod("a", "one"))
    informer = Informer(Client(InProcessTransport(server, None), world)[Pod])
    async with world.task_group() as group:
        task = group.start(informer.run())
        await informer.wait_synced()
        server.put(*pod("a", "two"))
        await until(lambda: len(informer) == 2)
        assert not task.done()
        group.cancel()


async def test_verbs_raise_an_error_that_callers_expect_already() -> None:
    world = RealWorld()

    server = Double()
    server.put(*bad("two"))
    client = Client(InProcessTransport(server, None), world)
    for call in (client[Pod].get("two", "a"), client[Pod].list("a"), client[Pod].patch("two", "a", {"spec": {}})):
        with pytest.raises(UndecodableAnswer, match="hostNetwork"):
            await call
    tolerant = await client[Pod].list("a", tolerant=True)
    assert tolerant.items == [] and [b.key for b in tolerant.undecodable] == ["a/two"]
    async with client[Pod].watch("a", resource_version="1") as events:
        with pytest.raises(UndecodableAnswer):
            await anext(events)
