"""A watch as an async iterator of typed events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec

from navarch.api.errors import from_status
from navarch.client.codec import Codec, Partial
from navarch.client.transport import Stream, TransportError, UndecodableAnswer, error_of
from navarch.client.undecodable import DECODE_ERRORS, Undecodable
from navarch.world import describe

T = TypeVar("T")

ADDED, MODIFIED, DELETED, BOOKMARK, ERROR = "ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"


class WatchEvent(NamedTuple, Generic[T]):
    """One change. Of a BOOKMARK only ``resource_version`` means something, its object is a Partial. A tolerant watch gives
    an Undecodable for an object that does not fit."""

    type: str
    object: T
    resource_version: str


Decode = Callable[[bytes | msgspec.Raw], T | Undecodable]


class _Frame(msgspec.Struct):
    type: str
    object: msgspec.Raw


_frame_decoder = msgspec.json.Decoder(_Frame)
_partial_decoder = msgspec.json.Decoder(Partial)


class Watch(Generic[T]):
    """Iterate over it with ``async for``; it ends when the server ends it.

    Leave the loop early only inside ``async with watch as events``, which hangs up. An ERROR event is raised as its
    exception (Expired when the resource version is gone); a broken connection as TransportError, and so is an object
    that cannot be decoded (UndecodableAnswer) unless the watch is ``tolerant``.
    """

    def __init__(
        self,
        opening: AbstractAsyncContextManager[Stream],
        codec: Codec[T],
        tolerant: bool = False,
        decode: Decode[T] | None = None,
    ) -> None:
        self._opening = opening
        self._codec = codec
        self._decode = decode or codec.decode_one
        self._tolerant = tolerant
        self._chunks: AsyncIterator[bytes] | None = None
        self._rest = b""  # the beginning of a line whose end has not come yet
        self._lines: list[bytes] = []  # complete lines, the next one last
        self._open = False
        self._closed = False

    async def start(self) -> None:
        """Sends the request; iterating does it too. Raises StatusError if the server refuses."""
        if self._open or self._closed:
            return
        stream = await self._opening.__aenter__()
        self._open = True
        if stream.status >= 400:
            body = await stream.read()
            await self.aclose()
            raise error_of(stream.status, body)
        self._chunks = stream.chunks()

    def __aiter__(self) -> Watch[T]:
        return self

    async def __anext__(self) -> WatchEvent[T]:
        try:
            await self.start()
            while not self._lines:
                if self._closed or self._chunks is None:
                    raise StopAsyncIteration
                await self._fill()
            return self._event(self._lines.pop())
        except BaseException:
            await self.aclose()
            raise

    async def _fill(self) -> None:
        chunk = await anext(cast(AsyncIterator[bytes], self._chunks))
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = self._rest + lines[0]
            self._rest = rest
            self._lines = [line for line in reversed(lines) if line]
        else:
            self._rest += rest

    def _event(self, line: bytes) -> WatchEvent[T]:
        try:
            frame = _frame_decoder.decode(line)
            if frame.type == ERROR:
                raise from_status(msgspec.json.decode(frame.object))
            if frame.type == BOOKMARK:
                partial = _partial_decoder.decode(frame.object)
                return WatchEvent(BOOKMARK, cast(Any, partial), partial.metadata.resource_version or "")
            obj = self._decode(frame.object)
        except DECODE_ERRORS as error:
            raise TransportError(f"the watch sent what is no event: {describe(error)}") from None
        if not isinstance(obj, Undecodable):
            return WatchEvent(frame.type, obj, self._codec.resource_version(obj))
        if self._tolerant:
            return WatchEvent(frame.type, cast(Any, obj), obj.resource_version)
        raise UndecodableAnswer(f"{obj.key} cannot be decoded: {obj.reason}")

    async def __aenter__(self) -> Watch[T]:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Hangs up. May be called again."""
        self._closed = True
        if self._open:
            self._open = False
            chunks, self._chunks = self._chunks, None
            if chunks is not None:
                await chunks.aclose()  # type: ignore[attr-defined]
            await self._opening.__aexit__(None, None, None)
