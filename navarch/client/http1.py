"""HTTP/1.1 for clients of an API server, as much as that takes: one request at a time on a connection, kept connections,
bodies read while they arrive. The parser is httptools' (llhttp).

A general HTTP client costs twice the CPU for each request, 0.1 s of every command's start and 14 MB of every process.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from typing import cast

import httptools

CONNECT_TIMEOUT = 10.0
# A peer that vanished without a word (a partition, a lost machine) is noticed after so many seconds.
DEAD_AFTER = 30
IDLE_SECONDS = 60.0  # a kept connection that nobody used for so long is not trusted any more
MAX_IDLE = 128
BUFFER = 256 * 1024  # bytes of a streamed body that may wait for their reader


class Broken(ConnectionError):
    """The connection ended before the answer did. ``begun``: part of the answer had come."""

    def __init__(self, text: str, begun: bool) -> None:
        super().__init__(text)
        self.begun = begun


class Exchange:
    """One request's answer as it arrives."""

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        self._connection = connection
        self._parts: list[bytes] = []
        self._size = 0
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._waits_for = ""  # "head", "end" or "more"
        self._streamed = False

    async def head(self) -> None:
        """Until status and headers are here. What comes behind is held back unless it is read."""
        self._streamed = True
        if not self.status:
            await self._wait("head")

    async def whole(self) -> bytes:
        """The whole body, once it is here."""
        self._streamed = False
        self._connection.resume()
        if not self.ended:
            await self._wait("end")
        return self._take()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces as large as have come."""
        self._streamed = True
        while True:
            if not self._parts and not self.ended:
                await self._wait("more")
            if self._parts:
                piece = self._take()
                self._connection.resume()
                yield piece
            elif self.ended:
                return

    def _take(self) -> bytes:
        parts, self._parts, self._size = self._parts, [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _wait(self, what: str) -> None:
        if self._error is not None:
            raise self._error
        self._waits_for = what
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # Told by the connection

    def headed(self, status: int) -> None:
        self.status = status
        self._wake("head")

    def arrived(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._streamed and self._size > BUFFER:
            self._connection.pause()
        self._wake("more")

    def finished(self) -> None:
        self.ended = True
        self._wake("head", "end", "more")

    def failed(self, text: str) -> None:
        self._error = Broken(text, bool(self.status))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._error)

    def _wake(self, *what: str) -> None:
        if self._waiter is not None and self._waits_for in what and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """One connection. It can be used again when :attr:`free`."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.used = False  # has carried an exchange before
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._closed = False
        self._paused = False
        self._headers: dict[str, str] = {}
        self._until_close = False

    @property
    def free(self) -> bool:
        """Open, and no answer is under way."""
        return not self._closed and self._exchange is None and not self._transport.is_closing()

    def send(self, request: bytes) -> Exchange:
        """Sends a whole request and gives what will be its answer."""
        assert self.free
        self._exchange = exchange = Exchange(self)
        self._headers = exchange.headers
        self._transport.write(request)
        return exchange

    def abort(self) -> None:
        self._closed = True
        self._transport.abort()

    def pause(self) -> None:
        if not self._paused and not self._closed:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            if not self._closed:
                self._transport.resume_reading()

    # asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        if (sock := transport.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):
                _tune(sock)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self.abort()  # nobody asked
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._end(f"the answer is not HTTP: {error or type(error).__name__}")
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._closed = True
        if self._exchange is not None and self._until_close and self._exchange.status and error is None:
            exchange, self._exchange = self._exchange, None
            exchange.finished()
            return
        self._end(str(error) if error else "the server closed the connection")

    def _end(self, why: str) -> None:
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.failed(why)

    # httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._headers.clear()  # only a word in between
        elif self._exchange is not None:
            headers = self._headers
            sized = "content-length" in headers or "chunked" in headers.get("transfer-encoding", "")
            self._until_close = not sized and status not in (204, 304)
            self._exchange.headed(status)

    def on_body(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.arrived(data)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200 or self._exchange is None:
            return
        exchange, self._exchange = self._exchange, None
        if not self._parser.should_keep_alive():
            self._closed = True
            self._transport.close()
        exchange.finished()


class Pool:
    """Connections to one server."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, server_name: str = "") -> None:
        self._host, self._port, self._context = host, port, context
        self._server_name = server_name or host
        self._idle: list[Connection] = []
        self._closed = False

    async def get(self) -> Connection:
        """A free connection: the one used last, else a new one. Raises OSError, TimeoutError."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.free and now - connection.idle_since < IDLE_SECONDS:
                return connection
            connection.abort()
        loop = asyncio.get_running_loop()
        name = self._server_name if self._context else None
        async with asyncio.timeout(CONNECT_TIMEOUT):
            _, connection = await loop.create_connection(
                Connection, self._host, self._port, ssl=self._context, server_hostname=name
            )
        return connection

    def put(self, connection: Connection) -> None:
        """Takes a connection back; one in the middle of an answer is hung up."""
        if self._closed or not connection.free or len(self._idle) >= MAX_IDLE:
            connection.abort()
            return
        connection.used = True
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def close(self) -> None:
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()


def _tune(sock: socket.socket) -> None:
    """Small writes at once, and a dead peer noticed: unacknowledged data or keepalives for DEAD_AFTER seconds end it."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_NODELAY", 1),
        ("TCP_KEEPIDLE", DEAD_AFTER // 2),
        ("TCP_KEEPINTVL", DEAD_AFTER // 6),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", DEAD_AFTER * 1000),
    ):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
