"""The embedded store: one SQLite file of append-only revisions, for exactly one API server.

A transaction is decided in the event loop, against an index of all keys in memory, and gets its revision there. A
writer thread then commits everything that queued up meanwhile at once (group commit, synchronous=FULL), and only
then is it published: results, events and reads never show what a crash could take back. If a commit fails, all that
queued behind it fails too, and the index is read again from the file.
"""

from __future__ import annotations

import asyncio
import fcntl
import heapq
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from apiserver.storage.feed import Feed, prefix_end
from apiserver.storage.sqlite_writer import PROBE_BYTES, SHIFT, Row, Writer, connect
from apiserver.storage.store import (
    MAX_OPERATIONS,
    Batch,
    Compacted,
    Compare,
    FutureRevision,
    KeyValue,
    Page,
    Put,
    StoreEvent,
    StoreFull,
    StoreUnavailable,
    TxnResult,
    check_txn,
    nothing,
)
from navarch.world import World

log = logging.getLogger(__name__)

END = "\U0010ffff"  # behind every key
MAX_BATCHES = 4096  # batches that the feed holds in memory; older ones are read from the file


class StoreLocked(Exception):
    """Another process has the file open."""


class SqliteStore:
    """A :class:`~apiserver.storage.store.Store` in a file.

    Nothing else in this process may open the file, not even to read its bytes: the close would take away the locks that
    SQLite holds for the whole process, and another program could then remove the write-ahead log. Other processes may.
    """

    kind = "sqlite"
    on_rewind: Callable[[], None] = staticmethod(nothing)

    def __init__(self, world: World, path: Path) -> None:
        """Opens or creates the file, readable by its owner only; use within a running event loop."""
        self._world = world
        self._lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise StoreLocked(f"{path} is in use by another API server") from None
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._loop = asyncio.get_running_loop()
        self._reader = connect(path)
        self._readers = ThreadPoolExecutor(1, "navarch-sqlite-read")
        self._list_connection: sqlite3.Connection | None = None
        self._path = path
        self._file = _identity(path)
        self._trouble: StoreUnavailable | StoreFull | None = None  # why the last commit failed
        self._closed = False
        self._index: dict[str, tuple[int, int]] = {}  # key -> (revision, created), with what is not committed yet
        self._due: list[tuple[float, str, int]] = []  # heap of (Unix time of expiry, key, revision)
        self._timer: asyncio.TimerHandle | None = None
        self._writer = Writer(path, self._loop, self._committed)
        self._pending: list[tuple[list[Row], asyncio.Future[int]]] = []  # submitted, oldest first
        self._read_index()
        self._feed = Feed(self._revision, compacted=self._writer.compacted, keep=MAX_BATCHES)
        self._set_timer()

    def _read_index(self) -> None:
        """Takes keys, revisions and expiry times from the file."""
        self._revision = self._submitted = self._writer.last_revision()
        self._index.clear()
        self._due.clear()
        query = "SELECT key, max(revision), created, expires, value IS NULL FROM revisions GROUP BY key"
        for key, revision, created, expires, deleted in self._reader.execute(query):
            if not deleted:
                self._index[key] = (revision, created)
                if expires:
                    self._due.append((expires, key, revision))
        heapq.heapify(self._due)

    # Reading

    async def get(self, key: str) -> tuple[KeyValue | None, int]:
        self._check()
        revision = self._revision
        # A point read in the loop: about 10 us, cheaper than any thread, and the writer never blocks it.
        row = self._reader.execute(
            "SELECT value, revision, created FROM revisions WHERE key = ? AND revision <= ? ORDER BY revision DESC LIMIT 1",
            (key, revision),
        ).fetchone()
        return (None if row is None or row[0] is None else KeyValue(key, *row)), revision

    async def list(self, prefix: str, *, start_after: str = "", revision: int = 0, limit: int = 0) -> Page:
        while True:
            self._check()
            if revision > self._revision:
                raise FutureRevision(f"revision {revision} does not exist yet")
            at = revision or self._revision
            if at >= self._feed.compacted:
                page = await self._loop.run_in_executor(self._readers, self._list, prefix, start_after, at, limit)
                # A compaction in between may have taken away what was to be read.
                if at >= self._feed.compacted:
                    return page
            if revision:
                raise Compacted(self._feed.compacted)

    def _list(self, prefix: str, start_after: str, revision: int, limit: int) -> Page:
        connection = self._connection()
        beyond = bool(start_after) and start_after >= prefix
        where = f"""FROM revisions AS r WHERE key {">" if beyond else ">="} ? AND key < ? AND value IS NOT NULL AND revision =
            (SELECT max(revision) FROM revisions AS s WHERE s.key = r.key AND s.revision <= ?)"""
        bounds = (start_after if beyond else prefix, prefix_end(prefix) or END, revision)
        rows = connection.execute(
            f"SELECT key, value, revision, created {where} ORDER BY key LIMIT ?", (*bounds, limit + 1 if limit else -1)
        ).fetchall()
        items = [KeyValue(*row) for row in rows]
        if not limit or len(items) <= limit:
            return Page(items, revision, False, len(items))
        count = connection.execute(f"SELECT count(*) {where}", bounds).fetchone()[0]
        return Page(items[:limit], revision, True, count)

    def earlier(self, revision: int, writes: int) -> int:
        return max(1, revision - writes)

    def _connection(self) -> sqlite3.Connection:
        """The reading thread's own connection."""
        if self._list_connection is None:
            self._list_connection = connect(self._path)
        return self._list_connection

    async def current_revision(self) -> int:
        self._check()
        return self._revision

    def known_revision(self) -> int | None:
        try:
            self._check()
        except StoreUnavailable:
            return None
        return self._revision

    # Writing

    async def txn(
        self, compares: Sequence[Compare], puts: Sequence[Put] = (), deletes: Sequence[str] = ()
    ) -> TxnResult:
        self._check()
        check_txn(puts, deletes)
        index = self._index
        for key, expected in compares:
            if index.get(key, (0, 0))[0] != expected:
                await self._settled()
                return TxnResult(False, self._revision)
        revision = self._submitted + 1
        rows: list[Row] = []
        for put in puts:
            created = index.get(put.key, (0, revision))[1]
            expires = self._world.now() + put.ttl if put.ttl else 0.0
            index[put.key] = (revision, created)
            rows.append((revision << SHIFT | len(rows), revision, put.key, created, expires, put.value))
            if expires:
                heapq.heappush(self._due, (expires, put.key, revision))
        for key in deletes:
            if (old := index.pop(key, None)) is not None:
                rows.append((revision << SHIFT | len(rows), revision, key, old[1], 0.0, None))
        if not rows:
            await self._settled()
            return TxnResult(True, self._revision)
        self._submitted = revision
        future: asyncio.Future[int] = self._loop.create_future()
        self._pending.append((rows, future))
        self._writer.submit(rows)
        if self._due:
            self._set_timer()
        return TxnResult(True, await future)

    async def _settled(self) -> None:
        """Waits until what was submitted so far is committed: an answer must not tell of what could vanish."""
        if self._pending:
            await asyncio.shield(self._pending[-1][1])

    def _committed(self, count: int, error: Exception | None) -> None:
        """The writer committed the next ``count`` transactions, or none of them because of ``error``."""
        if error is not None:
            self._fail(error)
            return
        self._trouble = None
        done, self._pending = self._pending[:count], self._pending[count:]
        for rows, future in done:
            revision = rows[0][1]
            events = [StoreEvent(key, value, revision, None, created) for _, _, key, created, _, value in rows]
            self._revision = revision
            self._feed.publish(Batch(events, revision))
            if not future.done():
                future.set_result(revision)

    def _fail(self, error: Exception) -> None:
        log.error("a commit failed: %s", error)
        self._trouble = _trouble(error)
        failed, self._pending = self._pending, []
        self._writer.forget()
        self._read_index()
        for _, future in failed:
            if not future.done():
                future.set_exception(type(self._trouble)(str(self._trouble)))
                future.exception()  # whoever waits still gets it; nobody may

    # Watching

    async def watch(self, prefix: str, from_revision: int, *, previous: bool = True) -> AsyncIterator[Batch]:
        cursor = from_revision
        while True:
            if self._feed.has(cursor):
                try:
                    async for batch in self._feed.watch(prefix, cursor):
                        yield await self._with_previous(batch) if previous else batch
                        cursor = batch.revision + 1
                except Compacted:
                    pass  # or so slow that the feed no longer has what comes next; the file may
            self._check()
            if cursor <= self._feed.compacted:
                raise Compacted(self._feed.compacted + 1)
            batches = await self._loop.run_in_executor(self._readers, self._past, cursor, self._revision)
            if cursor <= self._feed.compacted:
                raise Compacted(self._feed.compacted + 1)
            for batch in batches:
                events = [event for event in batch.events if event.key.startswith(prefix)]
                if events:
                    batch = Batch(events, batch.revision)
                    yield await self._with_previous(batch) if previous else batch
                cursor = batch.revision + 1

    def _past(self, start: int, end: int) -> Sequence[Batch]:
        """Some of the events at ``start`` to ``end`` from the file, whole revisions only."""
        end = min(end, start + 500)
        query = "SELECT revision, key, created, value FROM revisions WHERE n >= ? AND n < ? ORDER BY n"
        by_revision: dict[int, list[StoreEvent]] = {}
        for revision, key, created, value in self._connection().execute(query, (start << SHIFT, end + 1 << SHIFT)):
            by_revision.setdefault(revision, []).append(StoreEvent(key, value, revision, None, created))
        return [Batch(by_revision.get(revision, []), revision) for revision in range(start, end + 1)]

    async def _with_previous(self, batch: Batch) -> Batch:
        query = "SELECT value FROM revisions WHERE key = ? AND revision < ? ORDER BY revision DESC LIMIT 1"
        events = []
        for event in batch.events:
            if event.created != event.revision:
                row = self._reader.execute(query, (event.key, event.revision)).fetchone()
                event = event._replace(previous=row[0] if row else None)
            events.append(event)
        return Batch(events, batch.revision)

    # Time to live

    def _set_timer(self) -> None:
        if self._timer is None and self._due and not self._closed:
            # Half a second of slack: what expires together goes in one transaction.
            delay = max(0.0, self._due[0][0] - self._world.now()) + 0.5
            self._timer = self._loop.call_later(min(delay, 60.0), self._expire)

    def _expire(self) -> None:
        self._timer = None
        now, due = self._world.now(), self._due
        while due and due[0][0] <= now:
            dead: dict[str, None] = {}
            while due and due[0][0] <= now and len(dead) < MAX_OPERATIONS:
                _, key, revision = heapq.heappop(due)
                if self._index.get(key, (0, 0))[0] == revision:
                    dead[key] = None
            if dead:
                self._delete_expired(list(dead))
        self._set_timer()

    def _delete_expired(self, keys: Sequence[str]) -> None:
        revision = self._submitted + 1
        rows: list[Row] = [
            (revision << SHIFT | n, revision, key, self._index.pop(key)[1], 0.0, None) for n, key in enumerate(keys)
        ]
        self._submitted = revision
        self._pending.append((rows, self._loop.create_future()))
        self._writer.submit(rows)

    # The rest

    async def check(self) -> None:
        self._check()
        self._check_file()
        disk = os.statvfs(self._path)
        if self._trouble is not None or disk.f_bavail * disk.f_frsize < 2 * PROBE_BYTES:
            try:
                await asyncio.wrap_future(self._writer.probe())
            except sqlite3.Error as error:
                self._trouble = _trouble(error)
                raise self._trouble from None
            self._trouble = None

    async def compact(self, revision: int) -> None:
        self._check()
        revision = min(revision, self._revision)
        if revision > self._feed.compacted:
            self._feed.compact(revision)
            try:
                await asyncio.wrap_future(self._writer.compact(revision))
            except sqlite3.Error as error:
                raise StoreUnavailable(f"the compaction failed: {error}") from error

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._timer:
            self._timer.cancel()
        await self._loop.run_in_executor(None, self._writer.close)
        await self._loop.run_in_executor(self._readers, lambda: self._connection().close())
        self._readers.shutdown()
        self._feed.fail(StoreUnavailable("the store is closed"))
        self._fail_rest()
        self._reader.close()
        os.close(self._lock)

    def _fail_rest(self) -> None:
        for _, future in self._pending:
            if not future.done():
                future.set_exception(StoreUnavailable("the store is closed"))
                future.exception()

    def _check(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def _check_file(self) -> None:
        """Raises StoreUnavailable if what is written would be lost: the file is gone, or another one lies in its place."""
        if _identity(self._path) != self._file:
            raise StoreUnavailable(f"{self._path} was removed or replaced while it was in use: restart the API server")


def _trouble(error: Exception) -> StoreUnavailable | StoreFull:
    """The exception for a failed commit. Nothing of it is in the file: SQLite has rolled it back."""
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
        return StoreFull(f"the store has no room: {error}")
    return StoreUnavailable(f"the commit failed: {error}")


def _identity(path: Path) -> tuple[int, int] | None:
    """Of the file under a name, None if there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
