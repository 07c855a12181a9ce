"""How the embedded stores (memory, sqlite) feed their watchers: a log of batches, and one cursor a watcher.

A watcher holds no queue of its own: it reads the shared log from its cursor, so a slow one costs nothing but the
log's own length, and compaction is what ends it (with Compacted, as in etcd).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator

from apiserver.storage.store import Batch, Compacted


def prefix_end(prefix: str) -> str | None:
    """The first key behind all keys that start with ``prefix``; None if there is no such key."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else None


class Feed:
    """The batches of the newest revisions, one revision a batch, in order.

    ``revision`` is the newest revision when the feed starts: the log holds later ones only. ``keep`` limits its
    length, 0 means that only compaction does.
    """

    def __init__(self, revision: int, *, compacted: int = 0, keep: int = 0) -> None:
        self.compacted = compacted or revision  # values at this revision are kept, events at it and below are not
        self._floor = revision  # events at it and below are not in the log
        self._keep = keep
        self._log: list[Batch] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._error: Exception | None = None

    def publish(self, batch: Batch) -> None:
        self._log.append(batch)
        if self._keep and len(self._log) > 2 * self._keep:
            self._floor = self._log[-self._keep - 1].revision
            del self._log[: -self._keep]
        self._wake()

    def has(self, revision: int) -> bool:
        """Whether :meth:`watch` can start at ``revision``."""
        return revision > self._floor and revision > self.compacted

    def compact(self, revision: int) -> None:
        """Forgets the events at ``revision`` and below."""
        if revision > self.compacted:
            self.compacted = revision
            self._floor = max(self._floor, revision)
            del self._log[: self._position(revision + 1)]
            self._wake()

    def fail(self, error: Exception) -> None:
        """Ends every watcher, now and later, with ``error``."""
        self._error = error
        self._wake()

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Batch]:
        """Batches at ``from_revision`` and later, cut down to the keys under ``prefix``.

        A batch that holds none of them is skipped. Raises Compacted, also if it is so slow that the log has lost
        what comes next.
        """
        cursor = from_revision
        while True:
            if self._error is not None:
                raise self._error
            if not self.has(cursor):
                raise Compacted(self.compacted + 1)
            at = self._position(cursor)
            if at == len(self._log):
                future = asyncio.get_running_loop().create_future()
                self._waiting.append(future)
                await future
                continue
            batches = self._log[at:]
            for batch in batches:
                events = batch.events
                if prefix:
                    events = [event for event in events if event.key.startswith(prefix)]
                if events:
                    yield Batch(events, batch.revision)
            cursor = batches[-1].revision + 1

    def _position(self, revision: int) -> int:
        if self._log and revision > self._log[-1].revision:
            return len(self._log)
        return bisect_left(self._log, revision, key=lambda batch: batch.revision)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
