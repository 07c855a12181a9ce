"""Every dialect of WebSocket that upstream takes: exec and attach, port-forward, logs and watches."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from apiserver.http.websockets import COMMANDS, PORTS, ending
from apiserver.server import APIServer
from navarch.client.transport import HTTPSTransport
from tests.apiserver.http.test_server import POD, serving, with_agent

MAPS = "/api/v1/namespaces/default/configmaps"


@asynccontextmanager
async def connected(
    transport: HTTPSTransport, path: str, *protocols: str
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    host, port, tls = transport.endpoint()
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"wss://{host}:{port}{path}", protocols=protocols, ssl=tls or True) as socket,
    ):
        yield socket


async def received(socket: aiohttp.ClientWebSocketResponse) -> list[Any]:
    """All messages until the end: bytes or text."""
    return [message.data async for message in socket]


@pytest.mark.parametrize("protocol", [*COMMANDS])
@pytest.mark.parametrize("subresource", ["exec", "attach"])
def test_commands(tmp_path: Path, protocol: str, subresource: str) -> None:
    encoded, dialect = "base64" in protocol, COMMANDS[protocol]

    def said(channel: int, data: bytes) -> str | bytes:
        return str(channel) + base64.b64encode(data).decode() if encoded else bytes([channel]) + data

    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        async def streams() -> None:
            path = f"{POD}/{subresource}?command=echo&stdin=true"
            async with connected(transport, path, *([protocol] if protocol else [])) as socket:
                assert (socket.protocol or "") == protocol
                messages = []
                for data in (b"hello", b"exit"):
                    text = said(0, data)
                    await (socket.send_str(text) if isinstance(text, str) else socket.send_bytes(text))
                messages = await received(socket)
            expected = [said(1, b"command=echo&stdin=true"), said(1, b"HELLO"), said(1, b"EXIT")]
            # Before v4 nothing is said at the end, if all went well.
            expected += [] if dialect.wordy else [said(3, b'{"status":"Success"}')]
            assert messages == expected

        await with_agent(server, transport, streams)

    serving(tmp_path, test)


def test_what_nobody_speaks_is_refused(tmp_path: Path) -> None:
    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        async def streams() -> None:
            for path, protocol in (
                ("/exec?command=a", "v9.channel.k8s.io"), ("/portforward?ports=1", "channel.k8s.io"), ("/log", "x.k8s.io"),
            ):  # fmt: skip
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    async with connected(transport, POD + path, protocol):
                        pass
                assert refused.value.status == 400
            # The first that both know is taken.
            offered = ("x.k8s.io", "base64.channel.k8s.io", "channel.k8s.io")
            async with connected(transport, POD + "/exec?command=a", *offered) as socket:
                assert socket.protocol == "base64.channel.k8s.io"
            for protocols in (["v4.base64.channel.k8s.io"], ["v4.channel.k8s.io"], []):
                async with connected(transport, POD + "/portforward?ports=1", *protocols) as socket:
                    assert (socket.protocol or "") == (protocols or [""])[0]
                    first = await socket.receive()
                    assert (first.type == WSMsgType.TEXT) == ("base64" in "".join(protocols))

        await with_agent(server, transport, streams)

    serving(tmp_path, test)


@pytest.mark.parametrize("size", [9_000, 100_000, 900_000])
def test_a_long_command(tmp_path: Path, size: int) -> None:
    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        async def streams() -> None:
            command = "command=" + "a" * size
            async with connected(transport, f"{POD}/exec?{command}", "v4.channel.k8s.io") as socket:
                assert (await socket.receive()).data == b"\x01" + command.encode()

        await with_agent(server, transport, streams)

    serving(tmp_path, test)


KEY = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
HEADS = ["Sec-WebSocket-Version: 13", KEY.replace("13", "8"), f"Content-Length: 5\r\n{KEY}"]
HEADS.append(f"Transfer-Encoding: chunked\r\n{KEY}")


@pytest.mark.parametrize("head", HEADS, ids=["no key", "old version", "body", "chunks"])
def test_a_handshake_that_cannot_be_read_is_answered(tmp_path: Path, head: str) -> None:
    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        host, port, tls = transport.endpoint()
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        start = f"GET {MAPS}?watch=1 HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        writer.write(f"{start}{head}\r\n\r\n".encode())
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()

    serving(tmp_path, test)


@pytest.mark.parametrize("protocol", ["", "binary.k8s.io", "base64.binary.k8s.io"])
@pytest.mark.parametrize("follow", ["false", "true"])
def test_logs(tmp_path: Path, protocol: str, follow: str) -> None:
    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        async def streams() -> None:
            path = f"{POD}/log?follow={follow}"
            async with connected(transport, path, *([protocol] if protocol else [])) as socket:
                assert (socket.protocol or "") == protocol
                messages = await received(socket)
            assert not messages[0], "the first message is empty"
            parts = [base64.b64decode(m) if "base64" in protocol else m for m in messages]
            text = b"".join(parts)
            assert text.startswith(b"/containerLogs/default/p/c?") and text.endswith(b"more\n" if follow == "true" else b"\n")
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with connected(transport, f"{POD}/log?container=x"):
                    pass
            assert refused.value.status == 400

        await with_agent(server, transport, streams)

    serving(tmp_path, test)


@pytest.mark.parametrize("protocols", [[], ["something"]])
def test_a_watch(tmp_path: Path, protocols: list[str]) -> None:
    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        for name in ("a", "b"):
            body = json.dumps({"metadata": {"name": name}}).encode()
            assert (await transport.request("POST", MAPS, body=body)).status == 201
        await server.cache.current()
        async with connected(transport, f"{MAPS}?watch=true&allowWatchBookmarks=true", *protocols) as socket:
            assert [socket.protocol] == (protocols or [None])
            events = [json.loads((await socket.receive()).data) for _ in range(2)]
            assert [e["object"]["metadata"]["name"] for e in events] == ["a", "b"]
            assert (await transport.request("DELETE", MAPS + "/a")).status == 200
            event = json.loads((await socket.receive()).data)
            assert event["type"] == "DELETED" and event["object"]["metadata"]["name"] == "a"
            (watcher,) = server.watches.open
        async with connected(transport, f"{MAPS}?watch=true&timeoutSeconds=1&resourceVersion=99999999") as socket:
            (message,) = await received(socket)
            assert json.loads(message)["object"]["code"] == 410
        while not watcher.closed:  # the client has gone
            await server.world.sleep(0.01)
        for path, code in ((MAPS, 404), (f"{MAPS}?watch=1&labelSelector=a%3D%3D%3D", 400), ("/api/v1/nothing?watch=1", 404)):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with connected(transport, path):
                    pass
            assert refused.value.status == code, path

    serving(tmp_path, test)


def test_words() -> None:
    assert ending(b'{"status":"Success"}') == b""
    assert ending(b'{"status":"Failure","message":"exit code 3"}') == b"exit code 3"
    assert ending(b"not json") == b"not json" and ending(b"[]") == b""
    old = COMMANDS["base64.channel.k8s.io"]
    assert old.to_client(b'\x03{"status":"Failure","message":"no"}') == {"type": "websocket.send", "text": "3bm8="}
    assert COMMANDS[""].to_client(b"\x03") == {"type": "websocket.send", "bytes": b"\x03"}
    assert old.to_agent({"text": "0aGk="}) == b"\x00hi" and old.to_agent({"bytes": b"0aGk="}) == b"\x00hi"
    assert PORTS["v4.base64.channel.k8s.io"].to_client(b"\x01no") == {"type": "websocket.send", "text": "1bm8="}
    for wrong in ("0***", "!aGk="):
        with pytest.raises(ValueError):
            old.to_agent({"text": wrong})
