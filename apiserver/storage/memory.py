"""The store in memory: for tests, simulations and as the model that the other stores are compared with.

Every key keeps its versions since the last compaction, so that any kept revision can be listed. No threads and no
clock but the event loop's, so it is deterministic under virtual time.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from sortedcontainers import SortedDict

from apiserver.storage.feed import Feed, prefix_end
from apiserver.storage.store import (
    Batch,
    Compacted,
    Compare,
    FutureRevision,
    KeyValue,
    Page,
    Put,
    StoreEvent,
    StoreUnavailable,
    TxnResult,
    check_txn,
    nothing,
)


class Version(NamedTuple):
    """The value of a key from ``revision`` on; ``value`` is None from its deletion on."""

    revision: int
    value: bytes | None
    created: int


class MemoryStore:
    """A :class:`~apiserver.storage.store.Store` whose data ends with the process."""

    kind = "memory"
    on_rewind: Callable[[], None] = staticmethod(nothing)

    def __init__(self, first_revision: int = 1) -> None:
        self._revision = first_revision
        self._keys: SortedDict = SortedDict()  # key -> [Version], oldest first, never empty
        self._feed = Feed(first_revision)
        self._expiry: dict[str, asyncio.TimerHandle] = {}  # key -> when its time to live ends
        self._closed = False

    async def get(self, key: str) -> tuple[KeyValue | None, int]:
        self._check()
        return self._now(key), self._revision

    async def list(self, prefix: str, *, start_after: str = "", revision: int = 0, limit: int = 0) -> Page:
        self._check()
        if revision > self._revision:
            raise FutureRevision(f"revision {revision} does not exist yet")
        if revision and revision < self._feed.compacted:
            raise Compacted(self._feed.compacted)
        revision = revision or self._revision
        items: list[KeyValue] = []
        count = 0
        beyond = bool(start_after) and start_after >= prefix
        keys = self._keys.irange(start_after if beyond else prefix, prefix_end(prefix), (not beyond, False))
        for key in keys:
            version = _at(self._keys[key], revision)
            if version is None or version.value is None:
                continue
            count += 1
            if not limit or len(items) < limit:
                items.append(KeyValue(key, version.value, version.revision, version.created))
        return Page(items, revision, count > len(items), count)

    def earlier(self, revision: int, writes: int) -> int:
        return max(1, revision - writes)

    async def txn(
        self, compares: Sequence[Compare], puts: Sequence[Put] = (), deletes: Sequence[str] = ()
    ) -> TxnResult:
        self._check()
        check_txn(puts, deletes)
        for compare in compares:
            now = self._now(compare.key)
            if (now.revision if now else 0) != compare.revision:
                return TxnResult(False, self._revision)
        revision = self._revision + 1
        events = [self._put(put, revision) for put in puts]
        events += [event for key in deletes if (event := self._delete(key, revision))]
        if events:
            self._revision = revision
            self._feed.publish(Batch(events, revision))
        return TxnResult(True, self._revision)

    def watch(self, prefix: str, from_revision: int, *, previous: bool = True) -> AsyncIterator[Batch]:
        return self._feed.watch(prefix, from_revision)

    async def compact(self, revision: int) -> None:
        self._check()
        revision = min(revision, self._revision)
        if revision <= self._feed.compacted:
            return
        self._feed.compact(revision)
        dead = []
        for key, versions in self._keys.items():
            at = bisect_right(versions, revision, key=lambda v: v.revision) - 1
            if at > 0:
                del versions[:at]
            if len(versions) == 1 and versions[0].value is None:
                dead.append(key)
        for key in dead:
            del self._keys[key]

    async def current_revision(self) -> int:
        self._check()
        return self._revision

    def known_revision(self) -> int | None:
        try:
            self._check()
        except StoreUnavailable:
            return None
        return self._revision

    async def check(self) -> None:
        self._check()

    async def close(self) -> None:
        self._closed = True
        for handle in self._expiry.values():
            handle.cancel()
        self._expiry.clear()
        self._feed.fail(StoreUnavailable("the store is closed"))

    def _check(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def _now(self, key: str) -> KeyValue | None:
        versions = self._keys.get(key)
        if not versions or versions[-1].value is None:
            return None
        last = versions[-1]
        return KeyValue(key, last.value, last.revision, last.created)

    def _put(self, put: Put, revision: int) -> StoreEvent:
        old = self._now(put.key)
        created = old.created if old else revision
        self._keys.setdefault(put.key, []).append(Version(revision, put.value, created))
        self._set_expiry(put.key, put.ttl)
        return StoreEvent(put.key, put.value, revision, old.value if old else None, created)

    def _delete(self, key: str, revision: int) -> StoreEvent | None:
        old = self._now(key)
        if old is None:
            return None
        self._keys[key].append(Version(revision, None, old.created))
        self._set_expiry(key, 0)
        return StoreEvent(key, None, revision, old.value, old.created)

    def _set_expiry(self, key: str, ttl: float) -> None:
        if handle := self._expiry.pop(key, None):
            handle.cancel()
        if ttl > 0:
            self._expiry[key] = asyncio.get_running_loop().call_later(ttl, self._expire, key)

    def _expire(self, key: str) -> None:
        self._expiry.pop(key, None)
        event = self._delete(key, self._revision + 1)
        if event:
            self._revision += 1
            self._feed.publish(Batch([event], self._revision))


def _at(versions: list[Version], revision: int) -> Version | None:
    if versions[-1].revision <= revision:
        return versions[-1]
    at = bisect_right(versions, revision, key=lambda v: v.revision) - 1
    return versions[at] if at >= 0 else None
