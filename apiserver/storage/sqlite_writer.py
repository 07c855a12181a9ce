"""The thread that writes the SQLite file: commits what queued up in one go, and compacts in small steps between."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

# The row number is revision << SHIFT plus the position in the transaction, so rows lie in the order of their revisions.
SHIFT = 10

Row = tuple[int, int, str, int, float, bytes | None]
"""n, revision, key, created, expires (Unix time, 0 never), value (None: deleted)"""

SCHEMA = """
CREATE TABLE IF NOT EXISTS revisions (
    n INTEGER PRIMARY KEY, revision INTEGER NOT NULL, key TEXT NOT NULL, created INTEGER NOT NULL,
    expires REAL NOT NULL, value BLOB
);
CREATE UNIQUE INDEX IF NOT EXISTS by_key ON revisions (key, revision);
CREATE TABLE IF NOT EXISTS numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS probe (data BLOB);
INSERT OR IGNORE INTO numbers VALUES ('format', 1), ('revision', 1), ('compacted', 1), ('swept', 1);
"""
PROBE_BYTES = 1 << 17
STEP = 500  # rows that a compaction looks at in one commit


def connect(path: Path) -> sqlite3.Connection:
    """A connection with our settings, usable from any one thread at a time."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=32)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA journal_size_limit = 16777216")
    return connection


class Writer:
    """``committed(count, error)`` is called in the loop, in order: the next ``count`` submissions are on disk.

    With an error everything submitted and not yet reported failed; nothing more is committed until :meth:`forget`.
    """

    def __init__(
        self, path: Path, loop: asyncio.AbstractEventLoop, committed: Callable[[int, Exception | None], None]
    ) -> None:
        self._connection = connect(path)
        self._connection.executescript(SCHEMA)
        self._loop, self._report = loop, committed
        self._wake = threading.Condition()
        self._queue: list[list[Row]] = []
        self._compact_to = self._number("compacted")
        self._compactions: list[Future[None]] = []
        self._probes: list[Future[None]] = []
        self._sweeping = True  # there may be old rows left to remove
        self._failed = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="navarch-sqlite-write", daemon=True)
        self._thread.start()

    @property
    def compacted(self) -> int:
        return self._compact_to

    def last_revision(self) -> int:
        """Call only while nothing is queued."""
        newest = self._connection.execute("SELECT max(n) FROM revisions").fetchone()[0] or 0
        return max(int(newest) >> SHIFT, self._number("revision"))

    def submit(self, rows: list[Row]) -> None:
        with self._wake:
            self._queue.append(rows)
            self._wake.notify()

    def compact(self, revision: int) -> Future[None]:
        """Removes what nobody can read any more when history begins at ``revision``; done when that is on disk."""
        done: Future[None] = Future()
        with self._wake:
            self._compact_to = max(self._compact_to, revision)
            self._compactions.append(done)
            self._wake.notify()
        return done

    def probe(self) -> Future[None]:
        """Writes ``PROBE_BYTES`` and removes them again; fails with what that fails with."""
        done: Future[None] = Future()
        with self._wake:
            self._probes.append(done)
            self._wake.notify()
        return done

    def forget(self) -> None:
        """After a failure: drops what is queued and goes on."""
        with self._wake:
            self._queue.clear()
            self._failed = False

    def close(self) -> None:
        """Commits what is queued and ends the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(self._work)
                queue, self._queue = ([], self._queue) if self._failed else (self._queue, [])
                compactions, self._compactions = self._compactions, []
                probes, self._probes = self._probes, []
                closing = self._closing
            if queue:
                self._write(queue)
            for probe in probes:
                self._probe(probe)
            if compactions:
                self._settle(compactions)
                self._sweeping = True
            elif closing and not queue and not probes:
                return
            elif self._sweeping:
                self._sweeping = self._sweep()

    def _work(self) -> bool:
        return bool(self._compactions or self._probes or self._closing or self._sweeping or (self._queue and not self._failed))

    def _write(self, queue: list[list[Row]]) -> None:
        error: Exception | None = None
        try:
            self._commit([("INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?)", [r for rows in queue for r in rows])])
        except sqlite3.Error as e:
            error = e
            with self._wake:
                self._failed = True
        self._tell(lambda: self._report(len(queue), error))

    def _commit(self, statements: list[tuple[str, list[tuple[object, ...]]]]) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in statements:
                self._connection.executemany(statement, rows)
            execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise

    def _probe(self, done: Future[None]) -> None:
        """Only what is committed reaches the disk; a second transaction removes it."""
        try:
            self._commit([("INSERT INTO probe VALUES (?)", [(bytes(PROBE_BYTES),)])])
            self._commit([("DELETE FROM probe WHERE ?", [(True,)])])
        except sqlite3.Error as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    def _settle(self, compactions: list[Future[None]]) -> None:
        """Writes down how far history is compacted; the rows themselves go later, step by step."""
        error: Exception | None = None
        try:
            set_number = "UPDATE numbers SET value = max(value, ?) WHERE name = ?"
            self._commit([(set_number, [(self._compact_to, "compacted"), (self._compact_to, "revision")])])
        except sqlite3.Error as e:
            error = e
        for done in compactions:
            done.set_exception(error) if error else done.set_result(None)

    def _sweep(self) -> bool:
        """One step of removing old rows; False when there is nothing left to do.

        What has to go is what a change at or below the compacted revision replaced: so the work grows with the
        number of changes, not of objects.
        """
        target, swept = self._number("compacted"), self._number("swept")
        if swept >= target:
            return False
        query = "SELECT n, key, revision, value IS NULL FROM revisions WHERE n >= ? AND n < ? ORDER BY n LIMIT ?"
        rows = self._connection.execute(query, (swept + 1 << SHIFT, target + 1 << SHIFT, STEP)).fetchall()
        # The last revision of a full page may be cut; a transaction never has STEP rows, so progress is sure.
        upto = rows[-1][2] - 1 if len(rows) == STEP else target
        rows = [row for row in rows if row[2] <= upto]
        try:
            self._commit(
                [
                    ("DELETE FROM revisions WHERE key = ? AND revision < ?", [(row[1], row[2]) for row in rows]),
                    ("DELETE FROM revisions WHERE n = ?", [(row[0],) for row in rows if row[3]]),
                    ("UPDATE numbers SET value = ? WHERE name = 'swept'", [(upto,)]),
                ]
            )
        except sqlite3.Error:
            return False  # full disk, most likely: the next compaction takes it up
        return upto < target

    def _number(self, name: str) -> int:
        return int(self._connection.execute("SELECT value FROM numbers WHERE name = ?", (name,)).fetchone()[0])

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more
