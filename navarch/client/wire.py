"""Transports: the protocol that both ways to an API server follow, and the words they share.

Paths are plain text, not percent-encoded; queries are (name, value) pairs, because ``exec`` repeats ``command``. Header
names in a :class:`Response` are lower case. Nothing here knows what an object is.
"""

from __future__ import annotations

import contextlib
import json
import urllib.parse
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol, TypedDict

from navarch.api.errors import StatusError, from_status

Query = Sequence[tuple[str, str]]

JSON = "application/json"
# Characters that a path segment may hold as they are (RFC 3986 pchar), and the slash between segments.
PATH_SAFE = "/:@!$&'()*+,;=~"


class TransportError(Exception):
    """The server did not answer, or not to the end. Whether a write took place is unknown."""


class UndecodableAnswer(TransportError):
    """The server answered with something that is not the object that was asked for. A write may have taken place."""


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Stream(Protocol):
    """A response whose body is read while it arrives."""

    status: int
    headers: Mapping[str, str]

    def chunks(self) -> AsyncIterator[bytes]:
        """Pieces of the body as they come. Raises TransportError if it breaks off."""
        ...

    async def read(self) -> bytes:
        """All that is left of the body."""
        ...


class WebSocket(Protocol):
    protocol: str  # the subprotocol agreed on, "" if none

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes | None:
        """The next message, None once the other side closed."""
        ...

    async def close(self) -> None: ...


class StreamOptions(TypedDict, total=False):
    """The options of :meth:`Transport.stream`, for those that pass them on."""

    query: Query
    body: bytes | None
    content_type: str
    accept: str
    headers: Mapping[str, str] | None


class RequestOptions(StreamOptions, total=False):
    """The options of :meth:`Transport.request`. ``timeout`` in seconds."""

    timeout: float | None


class Transport(Protocol):
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
        """One request and its whole answer. ``timeout`` in seconds. Raises TransportError."""
        ...

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[Stream]:
        """A request whose answer has no foreseeable end; leaving the context hangs up. Raises TransportError."""
        ...

    def websocket(
        self, path: str, *, query: Query = (), protocols: Sequence[str] = (), headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[WebSocket]:
        """Raises StatusError if the server refuses, TransportError if it does not answer."""
        ...

    async def close(self) -> None: ...


def error_of(status: int, body: bytes) -> StatusError:
    """The exception for an answer of 400 or more: its Status, or, if the body is something else, its text."""
    with contextlib.suppress(ValueError):
        tree = json.loads(body)
        if isinstance(tree, dict) and tree.get("kind") == "Status":
            return from_status(tree, status)
    text = body[:2048].decode("utf-8", "replace").strip()
    return from_status({"message": text or f"the server answered {status}"}, status)


def raw_target(path: str, query: Query) -> str:
    """Path and query as they stand in the request line."""
    target = urllib.parse.quote(path, safe=PATH_SAFE)
    return f"{target}?{urllib.parse.urlencode(query)}" if query else target
