"""The wire between a simulated component and the API server: it has a latency, and it can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Unpack

from navarch.client.transport import (
    Query,
    RequestOptions,
    Response,
    Stream,
    StreamOptions,
    Transport,
    TransportError,
    WebSocket,
)  # fmt: skip
from navarch.world import World

TIMEOUT = 30.0  # seconds after which a request over a cut link is given up


class Link:
    """A transport that takes ``latency`` seconds longer than ``inner``, both ways together.

    While it is cut, nothing passes: requests time out, open streams fall silent and then break.
    """

    def __init__(self, inner: Transport, world: World, latency: float = 0.0, may_be_cut: bool = True) -> None:
        self.may_be_cut = may_be_cut
        self.inner, self.world, self.latency = inner, world, latency
        self._first_latency = latency
        self.reads = self.writes = 0  # requests so far
        self._whole = asyncio.Event()
        self._whole.set()
        self._cut = asyncio.Event()

    @property
    def is_cut(self) -> bool:
        return self._cut.is_set()

    def cut(self) -> None:
        """Raises ValueError if what is at its end sends no heartbeats: nobody would notice."""
        if not self.may_be_cut:
            raise ValueError("a link of nodes whose heartbeats are left out cannot be cut: simulate with heartbeats")
        self._cut.set()
        self._whole.clear()

    def mend(self) -> None:
        """Whole again, and as fast as it was made."""
        self.latency = self._first_latency
        self._cut.clear()
        self._whole.set()

    async def _pass(self, what: str, timeout: float | None) -> None:
        if self.is_cut:
            await self.world.sleep(min(TIMEOUT, timeout or TIMEOUT))
            raise TransportError(f"{what}: timed out")
        if self.latency:
            await self.world.sleep(self.latency)

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> Response:
        if method == "GET":
            self.reads += 1
        else:
            self.writes += 1
        await self._pass(f"{method} {path}", options.get("timeout"))
        answer = await self.inner.request(method, path, **options)
        if self.is_cut:  # the request arrived, its answer does not
            await self._pass(f"{method} {path}", options.get("timeout"))
        return answer

    @contextlib.asynccontextmanager
    async def stream(self, method: str, path: str, **options: Unpack[StreamOptions]) -> AsyncIterator[Stream]:
        self.reads += 1
        await self._pass(f"{method} {path}", None)
        async with self.inner.stream(method, path, **options) as inner:
            yield _LinkStream(self, inner)

    def websocket(
        self, path: str, *, query: Query = (), protocols: Sequence[str] = (), headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[WebSocket]:
        return self.inner.websocket(path, query=query, protocols=protocols, headers=headers)

    async def close(self) -> None:
        await self.inner.close()


class _LinkStream:
    def __init__(self, link: Link, inner: Stream) -> None:
        self.status = inner.status
        self.headers = inner.headers
        self._link = link
        self._inner = inner

    async def chunks(self) -> AsyncIterator[bytes]:
        source = self._inner.chunks()
        try:
            async for chunk in source:
                if self._link.is_cut:
                    await self._link._pass("stream", None)
                yield chunk
        finally:
            await source.aclose()  # type: ignore[attr-defined]

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])
