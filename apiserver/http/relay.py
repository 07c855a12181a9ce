"""Relays between a client's upgraded connection and a backend's: bytes to bytes, messages to messages, messages to bytes.

Each runs until either side ends; what has been received by then is passed on. Nothing is buffered beyond the sockets: a
side that does not read stops the other.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any

from apiserver.http.protocol import TAKE_OVER
from apiserver.http.websockets import Dialect
from apiserver.wire.asgi import Request
from navarch.client.transport import TransportError
from navarch.client.upgrade import BUFFER, Upgraded, hang_up, relay
from navarch.client.wire import WebSocket
from navarch.world import World

_HOP = ("connection", "upgrade", "date")


async def until_either(world: World, down: Coroutine[Any, Any, None], up: Coroutine[Any, Any, None]) -> None:
    """Runs both until one is done."""
    async with world.task_group() as group:
        first, second = group.start(down, "relay-down"), group.start(up, "relay-up")
        first.add_done_callback(lambda _: second.cancel())
        second.add_done_callback(lambda _: first.cancel())


async def bytes_to_bytes(world: World, request: Request, other: Upgraded, protocol: str) -> None:
    """The client asked for the same upgrade: answers it as the backend did, and joins the two."""
    reader, writer = request.scope[TAKE_OVER]()
    request.started, request.status = True, 101
    try:
        writer.write(_head(protocol, other.headers))
        await until_either(world, relay(other.reader, writer), relay(reader, other.writer))
    finally:
        await hang_up(writer)


def _head(protocol: str, headers: Mapping[str, str]) -> bytes:
    lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", f"Upgrade: {protocol}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name not in _HOP]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def messages_to_bytes(world: World, request: Request, other: Upgraded, subprotocol: str) -> None:
    """A byte stream that the client tunnels through binary WebSocket messages."""

    async def down() -> None:
        with suppress(OSError):
            while data := await other.reader.read(BUFFER):
                await request.send({"type": "websocket.send", "bytes": data})

    async def up() -> None:
        with suppress(OSError):
            while (message := await request.receive())["type"] == "websocket.receive":
                other.writer.write(message.get("bytes") or b"")
                await other.writer.drain()

    await accepted(world, request, subprotocol, down(), up())


async def messages_to_messages(world: World, request: Request, other: WebSocket, dialect: Dialect) -> None:
    """Messages pass through, channel bytes and all, in the dialect of each side."""

    async def down() -> None:
        with suppress(TransportError, OSError):
            while (data := await other.receive()) is not None:
                if (message := dialect.to_client(data)) is not None:
                    await request.send(message)

    async def up() -> None:
        with suppress(TransportError, OSError, ValueError):
            while (message := await request.receive())["type"] == "websocket.receive":
                await other.send(dialect.to_agent(message))

    await accepted(world, request, dialect.name, down(), up())


async def accepted(
    world: World, request: Request, subprotocol: str, down: Coroutine[Any, Any, None], up: Coroutine[Any, Any, None]
) -> None:
    """Accepts the client's WebSocket, then runs both directions until one is done."""
    request.started, request.status = True, 101
    try:
        await request.send({"type": "websocket.accept", "subprotocol": subprotocol or None})
    except BaseException:
        down.close()
        up.close()
        raise
    await until_either(world, down, up)
    with suppress(OSError):  # the client has gone
        await request.send({"type": "websocket.close", "code": 1000})


def upgrade_of(request: Request) -> str:
    """The protocol to which the client wants to upgrade (not WebSocket), in lower case; "" for a plain request."""
    return request.header(b"upgrade").lower() if TAKE_OVER in request.scope else ""
