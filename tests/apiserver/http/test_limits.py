"""What a client cannot do to the server: take for ever, send too much, stop reading, stay when it stops."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.flowcontrol.levels import Flow
from apiserver.http import protocol, watch
from apiserver.server import APIServer
from apiserver.storage.memory import MemoryStore
from navarch.api.durations import parse_duration
from navarch.client.transport import HTTPSTransport
from navarch.virtual import SimulatedWorld
from tests.apiserver.http.test_pages import ADMIN
from tests.apiserver.http.test_server import serving as serving_https
from tests.apiserver.registry.widget import Caller

MAPS = "/api/v1/namespaces/default/configmaps"
JSON_PATCH = "application/json-patch+json"


async def for_ever(*_: Any) -> None:
    await asyncio.sleep(1e6)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1m30s", 90.0), ("250ms", 0.25), ("0", 0.0), ("1.5h", 5400.0), ("-2s", -2.0), ("1us", 1e-6)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "1s2", "--1s", " 1s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


async def test_a_request_ends_after_a_minute_or_when_the_client_says(world: SimulatedWorld) -> None:
    server = assemble(world, MemoryStore(), Config())
    async with world.task_group() as group:
        group.start(server.run(listen=False))
        while not server.ready:
            await world.sleep(0.01)
        call = Caller(server, ADMIN)
        ready = (await call("GET", "/version", timeout="10s")).code
        server.app.pages.handle = for_ever  # type: ignore[method-assign]
        took = []
        for query in ({}, {"timeout": "5s"}, {"timeout": "10h"}):
            began = world.monotonic()
            answer = await call("GET", "/version", **query)
            took.append(round(world.monotonic() - began))
            assert (answer.code, answer.tree["reason"]) == (504, "Timeout")
            assert answer.tree["message"] == "Timeout: request did not complete within the allotted timeout"
        assert ready == 200 and took == [60, 5, 60]
        bad = await call("GET", "/version", timeout="soon")
        assert bad.code == 400 and bad.tree["message"].startswith("invalid timeout specified in the request URL")
        server.stop()


async def test_what_is_too_large(call: Caller) -> None:
    huge = await call("POST", MAPS, {"metadata": {"name": "huge"}, "data": {"a": "x" * (3 << 20)}})
    assert (huge.code, huge.tree["reason"]) == (413, "RequestEntityTooLarge")
    assert huge.tree["message"] == "Request entity too large: limit is 3145728"
    secret = {"metadata": {"name": "big"}, "spec": {"x": 1}}
    large = await call("POST", "/api/v1/namespaces/default/podtemplates", secret | {
        "template": {"metadata": {"annotations": {f"a{i}": "x" * 200_000 for i in range(1)}},
                     "spec": {"containers": [{"name": "c", "image": "i", "env": [
                         {"name": f"e{i}", "value": "x" * 200_000} for i in range(10)]}]}},
    })  # fmt: skip
    assert (large.code, large.tree["message"]) == (500, "etcdserver: request is too large")
    assert (await call("POST", MAPS, {"metadata": {"name": "a"}})).code == 201
    operations = [{"op": "add", "path": "/data", "value": {}}] * 10_001
    many = await call("PATCH", MAPS + "/a", operations, JSON_PATCH)
    assert (many.code, many.tree["reason"]) == (413, "RequestEntityTooLarge")


async def test_indented_for_people(call: Caller) -> None:
    for agent, query, indented in (
        ("kubectl/v1.34.0", {}, False), ("kubectl/v1.34.0", {"pretty": "true"}, True), ("curl/8", {}, True),
        ("Mozilla/5.0 (X11)", {}, True), ("curl/8", {"pretty": "false"}, False),
    ):  # fmt: skip
        answer = await call.transport.request(
            "GET", "/api/v1/namespaces/default", query=list(query.items()), headers={"user-agent": agent}
        )
        assert (b'\n  "metadata": {\n' in answer.body) is indented
        assert json.loads(answer.body)["kind"] == "Namespace"
    answer = await call.transport.request(
        "GET", "/openapi/v3", headers={"user-agent": "curl/8", "accept-encoding": "gzip"}
    )
    assert answer.status == 200 and answer.headers["content-encoding"] == "gzip"


async def test_new_requests_are_sent_elsewhere_before_the_end(call: Caller) -> None:
    call.server.app.turning_away = True
    answer = await call("GET", "/api/v1/namespaces")
    assert (answer.code, answer.headers["retry-after"], answer.headers["connection"]) == (429, "5", "close")
    call.server.lifecycle.stopping.set()
    ready = await call("GET", "/readyz")
    assert ready.code == 500 and "[-]shutdown failed" in ready.tree
    assert (await call("GET", "/livez")).code == 200


def test_a_request_that_runs_is_finished_when_the_server_stops(tmp_path: Path) -> None:
    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        began, go_on = asyncio.Event(), asyncio.Event()
        handle = server.app.pages.handle

        async def slow(*arguments: Any) -> None:
            began.set()
            await go_on.wait()
            await handle(*arguments)

        server.app.pages.handle = slow  # type: ignore[method-assign]
        running = asyncio.create_task(transport.request("GET", "/version"))
        await began.wait()
        server.stop()
        await asyncio.sleep(0)
        go_on.set()
        assert (await running).status == 200

    serving_https(tmp_path, test)


# --- on the wire ------------------------------------------------------------------------------------------------------


async def connect(server: APIServer, transport: HTTPSTransport) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare TLS connection with the administrator's certificate."""
    known = transport.config
    context = ssl.create_default_context(cadata=known.ca.decode())
    with tempfile.NamedTemporaryFile() as file:
        file.write(known.client_certificate + b"\n" + known.client_key)
        file.flush()
        context.load_cert_chain(file.name)
    host, _, port = known.server.removeprefix("https://").partition(":")
    return await asyncio.open_connection(host, int(port), ssl=context, limit=1024)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


Wire = Callable[[APIServer, HTTPSTransport], Awaitable[None]]


def test_a_watcher_that_does_not_read_is_dropped_and_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STALL_SECONDS", 0.05)

    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        server.cache._buffer = 20
        reader, writer = await connect(server, transport)
        writer.write(f"GET {MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: bool(server.watches.open))
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        (mine,) = server.watches.open
        body = {"metadata": {"name": "a"}, "data": {"a": "x" * 500_000}}
        answer = await transport.request("POST", MAPS, body=json.dumps(body).encode())
        assert answer.status == 201
        for number in range(1000):
            if not server.watches.open:
                break
            patch = json.dumps({"data": {"b": str(number)}}).encode()
            answer = await transport.request(
                "PATCH", MAPS + "/a", body=patch, content_type="application/merge-patch+json"
            )
            assert answer.status == 200
        await until(lambda: not server.watches.open)
        assert mine.overflowed and mine.closed and not server.watches.stalled
        writer.transport.abort()

    serving_https(tmp_path, test)


async def test_bytes_that_wait_for_a_watcher_are_bounded(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    from apiserver.cache import watchers

    monkeypatch.setattr(watchers, "MAX_BYTES", 300_000)

    watcher = call.server.cache.watch("/registry/configmaps/")
    body = {"metadata": {"name": "a"}, "data": {"a": "x" * 1000}}
    assert (await call("POST", MAPS, body)).code == 201
    for number in range(400):
        await call("PATCH", MAPS + "/a", {"data": {"b": str(number)}}, "application/merge-patch+json")
        await call.server.cache.current()
    assert watcher.overflowed and not watcher.take()


async def test_what_waits_for_many_watchers_counts_once_and_is_bounded_in_all(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apiserver.cache import watchers

    monkeypatch.setattr(watchers, "MAX_TOTAL", 500_000)

    cache = call.server.cache
    both = [cache.watch("/registry/configmaps/", "default") for _ in range(10)]
    quick = cache.watch("/registry/configmaps/", "default", "a0")
    assert (await call("POST", MAPS, {"metadata": {"name": "a0"}, "data": {"a": "x" * 50_000}})).code == 201
    await cache.current()
    assert 50_000 < cache.backlog.bytes < 60_000 and cache.backlog.watchers == 11
    (event,) = await both[0].batch(1)
    assert event.type == "ADDED" and cache.backlog.watchers == 10 and cache.backlog.bytes > 50_000
    assert len(quick.take()) == 1
    for number in range(1, 12):
        body = {"metadata": {"name": f"a{number}"}, "data": {"a": "x" * 50_000}}
        assert (await call("POST", MAPS, body)).code == 201
    await cache.current()
    assert all(watcher.overflowed for watcher in both) and not quick.overflowed
    assert cache.backlog.bytes == 0 and cache.backlog.watchers == 0, "what nobody waits for is given back"
    quick.close()


async def test_a_batch_has_a_size(call: Caller) -> None:
    cache = call.server.cache
    for number in range(5):
        assert (await call("POST", MAPS, {"metadata": {"name": f"a{number}"}, "data": {"a": "x" * 1000}})).code == 201
    await cache.current()
    watcher = cache.watch("/registry/configmaps/", "default")
    for number in range(5, 10):
        assert (await call("POST", MAPS, {"metadata": {"name": f"a{number}"}, "data": {"a": "x" * 1000}})).code == 201
    await cache.current()
    sizes, names = [], []
    while len(names) < 10:
        events = await watcher.batch(3000)
        sizes.append(len(events))
        names += [event.entry.name for event in events if event.entry is not None]
    assert sizes == [2, 2, 1, 2, 2, 1] and names == [f"a{n}" for n in range(10)]
    watcher.close()
    assert await watcher.batch(3000) == [] and cache.backlog.bytes == 0


def test_slow_watchers_share_what_waits_for_them(tmp_path: Path) -> None:
    """Forty that do not read, and a large object that changes often: each has its own copy of one change at most."""

    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        writers = []
        for number in range(1, 41):
            reader, writer = await connect(server, transport)
            writer.write(f"GET {MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await until(lambda number=number: len(server.watches.open) == number)  # type: ignore[misc]
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writers.append(writer)
        body = {"metadata": {"name": "a"}, "data": {"a": "x" * 200_000}}
        assert (await transport.request("POST", MAPS, body=json.dumps(body).encode())).status == 201
        before = resident()
        for number in range(100):
            patch = json.dumps({"data": {"b": str(number)}}).encode()
            merge = "application/merge-patch+json"
            assert (await transport.request("PATCH", MAPS + "/a", body=patch, content_type=merge)).status == 200
        assert len(server.watches.open) == 40, "they are slow, not lost"
        # 100 changes are 20 MB, and 40 clients have less than 1 MB each; copies for each of them would be 800 MB.
        assert resident() - before < 200 << 20
        assert server.cache.backlog.bytes < 25 << 20
        for writer in writers:
            writer.transport.abort()
        await until(lambda: not server.watches.open)
        assert server.cache.backlog.bytes == 0

    serving_https(tmp_path, test)


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_heads_that_do_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(protocol, "HEAD_BYTES", 200_000)

    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        reader, writer = await connect(server, transport)
        writer.write(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r")[0])
        await reader.readexactly(length)
        writer.write(b"GET /version HT")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        reader, writer = await connect(server, transport)
        writer.write(b"GET /version HTTP/1.1\r\n")
        for _ in range(40):
            writer.write(b"X-A: " + b"a" * 10_000 + b"\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 431")
        writer.close()

    serving_https(tmp_path, test)


def test_who_leaves_waits_no_longer_for_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        flows, name = server.gates.flows, "global-default"
        await until(lambda: name in flows.schemas)  # the default objects are made in the background
        monkeypatch.setattr(flows, "patience", 1000.0)
        flow, now = Flow(flows.schemas[name], flows.levels[name], "all"), server.world.monotonic()
        monkeypatch.setattr(flows, "flow_of", lambda user, info: flow)
        while flows.enter(flow, now).turn is None:
            pass  # all seats are taken, and one request waits
        assert flow.schema.waiting == 1
        _, writer = await connect(server, transport)
        writer.write(b"GET /api/v1/namespaces HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: flow.schema.waiting == 2)
        writer.transport.abort()
        await until(lambda: flow.schema.waiting == 1)

    serving_https(tmp_path, test)
