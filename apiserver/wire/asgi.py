"""The little that we need above raw ASGI: a request with lazily read parts, and replies in one or two messages.

A framework's request object would cost more than all our own work on a GET.
"""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import orjson

from apiserver.offload import Offload
from apiserver.wire.negotiation import JSON
from navarch.api.errors import BadRequest, RequestEntityTooLarge, StatusError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_LIMIT = 3 * 1024 * 1024
GZIP_COST = 32  # a byte of gzip may stand for a thousand
GZIP_FROM = 128 * 1024  # bytes; upstream's threshold
WARNINGS_LIMIT, WARNING_LIMIT = 4096, 256  # characters: of all, and of each if all would be more; upstream's
PEOPLE = ("curl", "Wget", "Mozilla/5.0")
Headers = list[tuple[bytes, bytes]]


class Disconnected(Exception):
    """The client went away in the middle of its request."""


class Request:
    """One HTTP request. ``query`` holds the first value of each parameter."""

    __slots__ = (
        "_headers", "_query", "expired", "extra", "method", "offload", "path", "raw", "receive", "release", "scope",
        "send", "started", "status", "ticket",
    )  # fmt: skip

    def __init__(self, offload: Offload, scope: Scope, receive: Receive, send: Send) -> None:
        self.offload = offload  # for what takes long with large bodies
        self.scope, self.receive, self.send = scope, receive, send
        self.method: str = scope.get("method", "GET")
        self.path: str = scope["path"]
        self._query: dict[str, str] | None = None
        self._headers: dict[bytes, bytes] | None = None
        self.started = False
        self.status = 0  # of the reply, once it began
        self.extra: Headers = []  # headers of every reply to this request
        self.ticket: Any = None  # its place in flow control
        self.raw = False  # replies are sent as they are, whatever the client would like to look at
        self.expired = False  # its time was up before it was done
        self.release: Callable[[], None] | None = None  # gives the seat back before the end: a watch has begun

    @property
    def query(self) -> dict[str, str]:
        if self._query is None:
            raw = self.scope.get("query_string") or b""
            self._query = {}
            if raw:
                for key, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
                    self._query.setdefault(key, value)
        return self._query

    def queries(self, name: str) -> list[str]:
        """Every value of a parameter that may come several times."""
        raw = (self.scope.get("query_string") or b"").decode("latin-1")
        return [value for key, value in parse_qsl(raw, keep_blank_values=True) if key == name]

    def header(self, name: bytes) -> str:
        """The header's value, "" when absent; ``name`` in lower case."""
        if self._headers is None:
            self._headers = dict(self.scope["headers"])
        return self._headers.get(name, b"").decode("latin-1")

    async def body(self, limit: int = BODY_LIMIT) -> bytes:
        """The whole body. Raises RequestEntityTooLarge (413) above ``limit`` bytes."""
        length = self.header(b"content-length")
        if length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            parts, size = [body], len(body)
            while message.get("more_body"):
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit:
                    raise _too_large(limit)
            body = b"".join(parts)
        if len(body) > limit:
            raise _too_large(limit)
        encoding = self.header(b"content-encoding")
        if encoding == "gzip":
            return await self.offload(len(body) * GZIP_COST, _gunzip, body, limit)
        return body

    def decoded(self, tree: Any) -> None:
        """Told of a body that was neither JSON nor YAML; an audited request wants to know (:mod:`apiserver.audit`)."""

    async def reply(self, status: int, body: bytes, content_type: bytes = b"application/json", headers: Headers = []) -> None:  # noqa: B006
        """Sends a whole reply; compresses a large one for a client far away that takes gzip."""
        if content_type == b"application/json" and not self.raw and self.pretty:
            body = await self.offload(len(body), _indented, body)
        sent: Headers = [(b"content-type", content_type), *self.extra, *headers]
        if len(body) >= GZIP_FROM and self.wants_gzip:
            # zlib releases the GIL: other requests go on meanwhile.
            body = await asyncio.get_running_loop().run_in_executor(None, _gzip, body)
            sent += [(b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding")]
        sent.append((b"content-length", b"%d" % len(body)))
        self.started, self.status = True, status
        await self.send({"type": "http.response.start", "status": status, "headers": sent})
        await self.send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def reply_pieces(
        self, status: int, length: int, pieces: Iterable[bytes], content_type: bytes, headers: Headers
    ) -> None:
        """Sends a large reply of ``length`` bytes piece by piece, as fast as the client takes it."""
        self.started, self.status = True, status
        sent = [(b"content-type", content_type), *self.extra, *headers, (b"content-length", b"%d" % length)]
        await self.send({"type": "http.response.start", "status": status, "headers": sent})
        for piece in pieces:
            await self.write(piece)
        await self.send({"type": "http.response.body", "body": b""})

    @property
    def wants_gzip(self) -> bool:
        """Whether a large reply is compressed."""
        return "gzip" in self.header(b"accept-encoding") and self._far()

    @property
    def pretty(self) -> bool:
        """Whether JSON is to be indented: people who look at it with a browser or curl need not ask."""
        if self._query and (wish := self._query.get("pretty")):
            # No option as others are, but a word that Go reads; what it cannot read is false.
            return wish in ("1", "t", "T", "true", "TRUE", "True")
        return self.header(b"user-agent").startswith(PEOPLE)

    def _far(self) -> bool:
        """Whether the client is on another network. To a near one, sending takes less time than compressing."""
        client = self.scope.get("client")
        try:
            return client is not None and not ipaddress.ip_address(client[0]).is_private
        except ValueError:
            return False

    async def reply_tree(self, status: int, tree: Any, headers: Headers = []) -> None:  # noqa: B006
        await self.reply(status, orjson.dumps(tree), JSON.encode(), headers)

    async def reply_error(self, error: StatusError, headers: Headers = []) -> None:  # noqa: B006
        """Sends the error as a Status."""
        sent = list(headers)
        retry = error.details.get("retryAfterSeconds")
        if retry:
            sent.append((b"retry-after", b"%d" % retry))
        await self.reply_tree(error.http_code, error.status(), sent)

    async def start_stream(self, status: int, content_type: bytes, headers: Headers = []) -> None:  # noqa: B006
        """Begins a reply that is sent piece by piece with :meth:`write`."""
        self.started, self.status = True, status
        sent = [(b"content-type", content_type), *self.extra, *headers]
        await self.send({"type": "http.response.start", "status": status, "headers": sent})
        # Servers hold the head back until the first body message; watchers wait for the head.
        await self.send({"type": "http.response.body", "body": b"", "more_body": True})

    async def write(self, data: bytes) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self) -> None:
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    def abort(self) -> None:
        """Cuts the connection, where there is one."""
        connection = self.scope.get("navarch.connection")
        if connection is not None:
            connection.abort()

    def when_lost(self, call: Callable[[], object] | None) -> None:
        """Has the connection, if there is one, call this once the client is gone; None: not any more."""
        connection = self.scope.get("navarch.connection")
        if connection is not None:
            connection.when_lost = call

    async def disconnected(self) -> None:
        """Returns when the client has gone. Call it only after the body was read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


def _indented(body: bytes) -> bytes:
    return orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2)


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, 1, mtime=0)


def _too_large(limit: int) -> RequestEntityTooLarge:
    return RequestEntityTooLarge(f"Request entity too large: limit is {limit}")


def _gunzip(body: bytes, limit: int) -> bytes:
    import zlib

    unpacker = zlib.decompressobj(wbits=31)
    try:
        out = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadRequest(f"the body is not gzip: {error}") from None
    if len(out) > limit:
        raise _too_large(limit)
    return out


def warning_headers(warnings: list[str]) -> Headers:
    """Warnings as kubectl shows them: ``Warning: 299 - "text"``; long ones are cut if all together are too long."""
    if not warnings:
        return []
    texts = ["".join(c if c.isprintable() else " " for c in text) for text in warnings]
    if sum(map(len, texts)) > WARNINGS_LIMIT:
        room, shortened = WARNINGS_LIMIT, []
        for text in texts:
            if room <= 0:
                break
            shortened.append(text[:WARNING_LIMIT])
            room -= len(shortened[-1])
        texts = shortened
    return [(b"warning", b'299 - "%b"' % t.replace("\\", "\\\\").replace('"', '\\"').encode()) for t in texts]


def truth(value: str) -> bool:
    """A boolean option of a request: "0" and "false" in any case are false, all else is true, nothing at all too."""
    return value != "0" and value.lower() != "false"


def flag(query: Mapping[str, str], name: str) -> bool | None:
    """A boolean query parameter, None when absent."""
    value = query.get(name)
    return None if value is None else truth(value)
