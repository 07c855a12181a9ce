"""SPDY on aiohttp's server: the connection is taken from aiohttp once the upgrade is agreed on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from navarch.client.spdy.connection import Connection
from navarch.client.upgrade import hang_up, keep_alive

BUFFER = 256 * 1024
SPDY = "spdy/3.1"
VERSION = "X-Stream-Protocol-Version"


def wants_spdy(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == SPDY


def agree(request: web.Request, protocols: Sequence[str]) -> str:
    """The first protocol that the client offers and we know. Raises HTTPForbidden."""
    offered = [p.strip() for value in request.headers.getall(VERSION, []) for p in value.split(",")]
    chosen = next((p for p in offered if p in protocols), None)
    if chosen is None:
        text = (
            f"unable to upgrade: unable to negotiate protocol: client supports {offered}, server accepts {list(protocols)}"
        )
        raise web.HTTPForbidden(text=text)
    return chosen


class _Adopted(asyncio.StreamReaderProtocol):
    """aiohttp still counts the connection as its own: it must hear of its end."""

    def __init__(self, reader: asyncio.StreamReader, before: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._before = before

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._before.connection_lost(exc)


class Spdy(web.StreamResponse):
    """An upgraded connection, as the response of its handler. ``close`` it at the end."""

    def __init__(self, request: web.Request, protocol: str) -> None:
        super().__init__(status=101)
        transport = request.transport
        if transport is None:
            raise web.HTTPBadRequest(text="the connection is gone")
        reader = asyncio.StreamReader(BUFFER)
        adopted = _Adopted(reader, request.protocol)
        self._writer = asyncio.StreamWriter(transport, adopted, reader, asyncio.get_running_loop())
        keep_alive(transport)
        transport.set_protocol(adopted)
        adopted.connection_made(transport)
        head = f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{VERSION}: {protocol}\r\n\r\n"
        self._writer.write(head.encode())
        self.connection = Connection(reader, self._writer, client=False)

    async def close(self) -> None:
        await hang_up(self._writer)

    # aiohttp prepares and ends what a handler returns; this was answered long ago.

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None

    @property
    def prepared(self) -> bool:
        return True
