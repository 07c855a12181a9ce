"""The process that makes requests over HTTP: counts, latencies, timeouts, kept connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lab.experiments.drivers.httpload import HTTPLoad, Nodes, Order, read_head
from lab.experiments.load import sample
from navarch.world import RealWorld

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Answer = Callable[[int], Awaitable[bytes]]


async def requests(answer: Answer, count: int, **options: object) -> tuple[HTTPLoad, int]:
    """The load after ``count`` requests have ended, and how many connections it made. ``answer``: of the n-th request."""
    world, connections, number = RealWorld(brief=True), 0, 0

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections, number
        connections += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                number += 1
                writer.write(await answer(number))
                await writer.drain()
        except (EOFError, OSError):
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    order = Order("127.0.0.1", port, "200/s", **{"timeout": 5.0, "seed": "x", "inits": {}} | options)  # type: ignore[arg-type]
    load = HTTPLoad(order, Nodes({}), world)
    async with world.task_group() as group:
        group.start(load.run(group))
        while len(load.answers) < count:
            await world.sleep(0.01)
        group.cancel()
    server.close()
    return load, connections


async def good(number: int) -> bytes:
    return OK


async def never_third(number: int) -> bytes:
    if number == 3:
        await asyncio.Event().wait()
    return OK


async def every_second(number: int) -> bytes:
    return OK if number % 2 else await refused(number)


async def refused(number: int) -> bytes:
    return b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"


def test_requests_are_counted_with_their_latencies() -> None:
    load, connections = asyncio.run(requests(good, 20))
    values = sample(load.answers)
    assert values["failed"] == 0 and values["ok"] == values["sent"] >= 20
    assert connections >= values["sent"]
    assert sum(v for k, v in values.items() if k.startswith("le_")) == values["ok"]


def test_kept_connections_are_used_again() -> None:
    load, connections = asyncio.run(requests(good, 40, clients=5))
    assert connections < len(load.answers)  # a client that is busy makes another connection
    assert all(latency is not None for latency in load.answers)


def test_a_late_answer_and_an_error_are_failures() -> None:
    load, _ = asyncio.run(requests(never_third, 100, timeout=0.1))
    assert load.answers.count(None) >= 1
    load, _ = asyncio.run(requests(refused, 5))
    assert set(load.answers) == {None}


def test_a_failure_is_tried_again() -> None:
    load, _ = asyncio.run(requests(every_second, 20, retries=3, backoff=0.01))
    assert load.retries > 0 and load.answers.count(None) < 5
    values = load.sample()
    assert values["retries"] > 0 and load.answers == [] and load.retries == 0


def test_the_rate_can_be_changed() -> None:
    load, _ = asyncio.run(requests(good, 5))
    load.change("ramp(1/s, 1000/s, 1s)")
    assert load.shape.peak == 1000 and load.due >= load.began


@pytest.mark.parametrize(("head", "meaning"), [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n", (200, 7, True)),
    (b"HTTP/1.0 404 No\r\n\r\n", (404, None, False)),
])  # fmt: skip
def test_heads(head: bytes, meaning: tuple[int, int | None, bool]) -> None:
    assert read_head(head) == meaning


def test_what_is_no_http_is_a_failure() -> None:
    with pytest.raises(ValueError, match="no HTTP"):
        read_head(b"SSH-2.0-x\r\n\r\n")
