"""Requests straight into an ASGI application in the same process, for simulations and tests."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from navarch.client.wire import JSON, PATH_SAFE, Query, Response, Stream, TransportError, WebSocket

Message = MutableMapping[str, Any]
ASGIApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

IN_FLIGHT = 256  # chunks that the application may be ahead of the reader of a stream


class InProcessTransport:
    """Calls an ASGI application directly. ``user`` travels in ``scope["navarch.user"]`` and is trusted there."""

    def __init__(self, app: ASGIApp, user: Any) -> None:
        self.app = app
        self.user = user

    def _scope(
        self,
        method: str,
        path: str,
        query: Query,
        body: bytes | None,
        content_type: str,
        accept: str,
        headers: Mapping[str, str] | None,
    ) -> Message:
        pairs = [(b"host", b"in-process"), (b"accept", accept.encode())]
        if body is not None:
            pairs += [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        pairs += [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in (headers or {}).items()]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": path,
            "raw_path": urllib.parse.quote(path, safe=PATH_SAFE).encode(),
            "query_string": urllib.parse.urlencode(query).encode(),
            "root_path": "",
            "headers": pairs,
            "client": None,
            "server": None,
            "state": {},
            "navarch.user": self.user,
        }

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Response:
        scope = self._scope(method, path, query, body, content_type, accept, headers)
        status = 0
        answered: dict[str, str] = {}
        parts: list[bytes] = []

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answered.update(_headers(message.get("headers", ())))
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        try:
            async with asyncio.timeout(timeout):
                await self.app(scope, _receiver(body), send)
        except TimeoutError:
            raise TransportError(f"{method} {path}: no answer within {timeout} s") from None
        if not status:
            raise TransportError(f"{method} {path}: the application did not answer")
        return Response(status, answered, b"".join(parts))

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Stream]:
        scope = self._scope(method, path, query, body, content_type, accept, headers)
        stream = _InProcessStream(f"{method} {path}")
        task = asyncio.ensure_future(stream.serve(self.app, scope, body))
        try:
            await stream.start()
            yield stream
        finally:
            task.cancel()
            await asyncio.wait((task,))  # not "await task": that would swallow a cancellation of our own

    def websocket(
        self, path: str, *, query: Query = (), protocols: Sequence[str] = (), headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[WebSocket]:
        raise NotImplementedError("the in-process transport has no WebSockets: use HTTPS for exec and attach")

    async def close(self) -> None:
        pass


class _InProcessStream:
    """One streaming call: the application runs in a task of its own and its chunks wait in a bounded queue."""

    def __init__(self, what: str) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._what = what
        self._queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(IN_FLIGHT)
        self._started = asyncio.Event()
        self._ended = False

    async def serve(self, app: ASGIApp, scope: Message, body: bytes | None) -> None:
        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = dict(_headers(message.get("headers", ())))
                self._started.set()
            elif message["type"] == "http.response.body" and message.get("body"):
                await self._queue.put(message["body"])

        end: Exception | None = None
        try:
            await app(scope, _receiver(body), send)
        except Exception as error:
            end = error
        self._started.set()
        await self._queue.put(end)

    async def start(self) -> None:
        await self._started.wait()
        if not self.status:
            raise TransportError(f"{self._what}: the application did not answer")

    async def chunks(self) -> AsyncIterator[bytes]:
        while not self._ended:
            item = await self._queue.get()
            if isinstance(item, bytes):
                yield item
                continue
            self._ended = True
            if item is not None:
                raise TransportError(f"{self._what}: broken off") from item

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in pairs]


def _receiver(body: bytes | None) -> Callable[[], Awaitable[Message]]:
    """An ASGI receive: the body, then silence; who hangs up cancels the application instead."""
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            await asyncio.get_running_loop().create_future()
        sent = True
        return {"type": "http.request", "body": body or b"", "more_body": False}

    return receive
