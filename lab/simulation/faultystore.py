"""A store that can be slow, or fail: a wrapper around another one, for simulations.

While nothing is amiss it passes everything on. A failing store answers nothing that asks it (StoreUnavailable), as an etcd that
has lost its quorum; ``writes`` alone may fail, too, as those of an etcd whose disk is full. Watches that are open stay open:
they are silent, for nothing is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from apiserver.storage.memory import MemoryStore
from apiserver.storage.store import Batch, Compare, KeyValue, Page, Put, StoreFull, StoreUnavailable, TxnResult
from navarch.world import World

FAILURES = ("all", "writes")


class FaultyStore:
    """``delay`` in seconds, for each question and each write; ``fails`` is "", "all" or "writes"."""

    def __init__(self, inner: MemoryStore, world: World) -> None:
        self.inner, self.world = inner, world
        self.kind = inner.kind
        self.delay = 0.0
        self.fails = ""

    @property
    def on_rewind(self) -> Callable[[], None]:
        return self.inner.on_rewind

    @on_rewind.setter
    def on_rewind(self, callback: Callable[[], None]) -> None:
        self.inner.on_rewind = callback

    async def _pass(self, writes: bool = False) -> None:
        if self.delay:
            await self.world.sleep(self.delay)
        if self.fails == "all":
            raise StoreUnavailable("the experiment has the store fail")
        if self.fails and writes:
            raise StoreFull("the experiment has the store's writes fail: etcdserver: mvcc: database space exceeded")

    async def get(self, key: str) -> tuple[KeyValue | None, int]:
        await self._pass()
        return await self.inner.get(key)

    async def list(self, prefix: str, *, start_after: str = "", revision: int = 0, limit: int = 0) -> Page:
        await self._pass()
        return await self.inner.list(prefix, start_after=start_after, revision=revision, limit=limit)

    def earlier(self, revision: int, writes: int) -> int:
        return self.inner.earlier(revision, writes)

    async def txn(
        self, compares: Sequence[Compare], puts: Sequence[Put] = (), deletes: Sequence[str] = ()
    ) -> TxnResult:
        await self._pass(writes=True)
        return await self.inner.txn(compares, puts, deletes)

    def watch(self, prefix: str, from_revision: int, *, previous: bool = True) -> AsyncIterator[Batch]:
        return self.inner.watch(prefix, from_revision, previous=previous)

    async def compact(self, revision: int) -> None:
        await self._pass()
        await self.inner.compact(revision)

    async def current_revision(self) -> int:
        await self._pass()
        return await self.inner.current_revision()

    def known_revision(self) -> int | None:
        return None if self.delay or self.fails == "all" else self.inner.known_revision()

    async def check(self) -> None:
        await self._pass()
        await self.inner.check()

    async def close(self) -> None:
        await self.inner.close()
