"""How long events are kept and watches live: settings that the server follows."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest

from apiserver.assembly import assemble
from apiserver.config import parse
from apiserver.storage.memory import MemoryStore
from navarch.client.client import Client
from navarch.client.inprocess import InProcessTransport
from navarch.virtual import SimulatedWorld
from tests.apiserver.http.test_pages import ADMIN

EVENTS = "/api/v1/namespaces/default/events"
EVENT = {
    "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"}, "reason": "Tested",
    "involvedObject": {"namespace": "default"}, "type": "Normal",
}  # fmt: skip


def virtual(settings: list[str], body: Callable[[SimulatedWorld, Client], Awaitable[None]]) -> None:
    """Runs ``body`` against a server in process, on virtual time."""
    world = SimulatedWorld(0)

    async def main() -> None:
        server = assemble(world, MemoryStore(), parse([f"--set={text}" for text in settings]))
        async with world.task_group() as group:
            group.start(server.run(listen=False))
            while not server.ready:
                await world.sleep(0.01)
            await body(world, Client(InProcessTransport(server.app, ADMIN), world, "test"))
            server.stop()

    world.run(main)


@pytest.mark.parametrize(("settings", "seconds"), [([], 3600), (["event-ttl=2m"], 120), (["event-ttl=90s"], 90)])
def test_events_are_kept_as_long_as_is_set(settings: list[str], seconds: int) -> None:
    async def body(world: SimulatedWorld, client: Client) -> None:
        await client.request("POST", EVENTS, body=json.dumps(EVENT).encode())

        async def kept() -> int:
            return len((await client.get_json(EVENTS))["items"])

        await world.sleep(seconds - 5)
        assert await kept() == 1
        await world.sleep(10)
        assert await kept() == 0

    virtual(settings, body)


def test_events_are_kept_for_ever_if_that_is_set() -> None:
    async def body(world: SimulatedWorld, client: Client) -> None:
        await client.request("POST", EVENTS, body=json.dumps(EVENT).encode())
        await world.sleep(1e5)  # the default is an hour
        assert len((await client.get_json(EVENTS))["items"]) == 1

    virtual(["event-ttl=0"], body)


@pytest.mark.parametrize(("settings", "least"), [([], 1800), (["min-request-timeout=10"], 10)])
def test_a_watch_that_names_no_timeout_lives_as_long_as_is_set(settings: list[str], least: int) -> None:
    async def body(world: SimulatedWorld, client: Client) -> None:
        lives = set()
        for _ in range(5):
            began = world.monotonic()
            async with client.stream("GET", "/api/v1/pods", query=[("watch", "true")]) as response:
                async for _chunk in response.chunks():
                    pass
            lives.add(world.monotonic() - began)
        assert all(least <= life <= 2 * least + 1 for life in lives)
        assert len(lives) > 1, "they do not all end at once"

    virtual(settings, body)
