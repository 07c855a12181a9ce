"""The controllers' wire to the API server, on which everything can go wrong: crashes between two writes, lost answers,
refusals, conflicts, and watches that fall behind (stale caches)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Unpack

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

if TYPE_CHECKING:
    from navarch.world import World

READS = ("GET", "HEAD")


class Fate:
    """A transport that counts writes. ``behind`` says until when (monotonic seconds) the watches of a resource are late."""

    def __init__(self, inner: Transport, world: World) -> None:
        self.inner, self.world = inner, world
        self.behind: dict[str, float] = {}
        self.writes = 0
        self._troubles: list[tuple[int, Callable[[], None] | None, bool]] = []

    def crash(self, after: int, arrives: bool, crash: Callable[[], None]) -> None:
        """Calls ``crash`` at the ``after``-th write from now on; the write itself ``arrives`` or does not."""
        self._troubles.append((self.writes + after, crash, arrives))

    def lose(self, after: int, arrives: bool) -> None:
        """Loses the ``after``-th write from now on, or only its answer if the write ``arrives``."""
        self._troubles.append((self.writes + after, None, arrives))

    def lag(self, resource: str, seconds: float) -> None:
        """Holds the watches of a resource back for so long."""
        self.behind[resource] = self.world.monotonic() + seconds

    def calm(self) -> None:
        """Ends all troubles."""
        self._troubles.clear()
        self.behind.clear()

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> Response:
        if method in READS or "/events" in path or "/leases/" in path:
            return await self.inner.request(method, path, **options)
        self.writes += 1
        due = [t for t in self._troubles if t[0] <= self.writes]
        if not due:
            return await self.inner.request(method, path, **options)
        self._troubles = [t for t in self._troubles if t not in due]
        if any(arrives for _, _, arrives in due):
            await self.inner.request(method, path, **options)
        for _, crash, _ in due:
            if crash:
                crash()
        raise TransportError(f"{method} {path}: the connection broke")

    @contextlib.asynccontextmanager
    async def stream(self, method: str, path: str, **options: Unpack[StreamOptions]) -> AsyncIterator[Stream]:
        async with self.inner.stream(method, path, **options) as inner:
            yield _Late(self, path.rsplit("/", 1)[-1], inner)

    def websocket(
        self, path: str, *, query: Query = (), protocols: Sequence[str] = (), headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[WebSocket]:
        return self.inner.websocket(path, query=query, protocols=protocols, headers=headers)

    async def close(self) -> None:
        await self.inner.close()


class _Late:
    def __init__(self, fate: Fate, resource: str, inner: Stream) -> None:
        self.status, self.headers = inner.status, inner.headers
        self._fate, self._resource, self._inner = fate, resource, inner

    async def chunks(self) -> AsyncIterator[bytes]:
        source = self._inner.chunks()
        try:
            async for chunk in source:
                world = self._fate.world
                while (until := self._fate.behind.get(self._resource, 0.0)) > world.monotonic():
                    await world.sleep(min(0.25, until - world.monotonic()))
                yield chunk
        finally:
            await source.aclose()  # type: ignore[attr-defined]

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])
