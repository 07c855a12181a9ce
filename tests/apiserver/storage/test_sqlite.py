"""What only the store in a file must do: last, lock, survive crashes."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from apiserver.storage.feed import Feed
from apiserver.storage.sqlite import SqliteStore, StoreLocked
from apiserver.storage.store import Batch, Compacted, Compare, Put, StoreEvent, StoreUnavailable
from navarch.world import RealWorld
from tests.apiserver.storage.test_store import take

world = RealWorld()


def run(path: Path, test: Callable[[SqliteStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = SqliteStore(world, path)
        try:
            await test(store)
        finally:
            await store.close()

    world.run(main)


def test_everything_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    async def first(store: SqliteStore) -> None:
        for n in range(5):
            await store.txn([], [Put("/a", b"%d" % n), Put(f"/b{n}", b"x", ttl=0.5 if n == 0 else 0)])
        await store.txn([], [], ["/b4"])
        with pytest.raises(StoreLocked):
            SqliteStore(world, path)

    async def second(store: SqliteStore) -> None:
        assert await store.current_revision() == 7
        assert (await store.get("/a"))[0] == ("/a", b"4", 6, 2)
        assert (await store.txn([Compare("/b4", 0), Compare("/b1", 3)], [Put("/c", b"")])) == (True, 8)
        events = await take(store, "", 4, 9)  # /b0 expires
        assert [(e.key, e.value, e.previous) for e in events if e.revision in (4, 7)] == [
            ("/a", b"2", b"1"), ("/b2", b"x", None), ("/b4", None, b"x"),
        ]  # fmt: skip
        assert [e.revision for e in events] == [4, 4, 5, 5, 6, 6, 7, 8, 9] and events[-1].key == "/b0"
        await store.compact(9)
        await store.txn([], [], ["/c"])
        await store.compact(10)

    async def third(store: SqliteStore) -> None:
        assert await store.current_revision() == 10
        with pytest.raises(Compacted):
            await take(store, "", 9, 10)
        assert [i.key for i in (await store.list("")).items] == ["/a", "/b1", "/b2", "/b3"]
        assert (await store.txn([], [Put("/d", b"")])).revision == 11

    run(path, first)
    assert os.stat(path).st_mode & 0o077 == 0
    run(path, second)
    run(path, third)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM revisions").fetchone() == (5,)


def test_a_feed_that_was_too_slow_goes_on_from_the_file(tmp_path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        store._feed = Feed(1, keep=2)
        watch = store.watch("", 2)
        for n in range(1200):
            await store.txn([], [Put("/a", b"%d" % n)]) if n % 100 == 0 else store._writer.submit([])
        revision = await store.current_revision()
        events: list[StoreEvent] = []
        async for batch in watch:
            events += batch.events
            if batch.revision == revision:
                break
        assert [e.revision for e in events] == list(range(2, revision + 1))
        assert [e.previous for e in events[1:]] == [e.value for e in events[:-1]]

    run(tmp_path / "store.db", test)


def test_a_failed_commit_takes_everything_behind_it_along(tmp_path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await store.txn([], [Put("/a", b"1")])
        blocker = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        store._writer._connection.execute("PRAGMA busy_timeout = 1")
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await store.txn([Compare("/a", 2)], [Put("/a", b"2"), Put("/b", b"1")])
        assert (await store.get("/a"))[0] == ("/a", b"1", 2, 2)
        blocker.execute("ROLLBACK")
        blocker.close()
        assert await store.txn([Compare("/a", 2), Compare("/b", 0)], [Put("/a", b"2")]) == (True, 3)

    run(tmp_path / "store.db", test)


CRASHING = """
import asyncio, sys
from pathlib import Path
from apiserver.storage.sqlite import SqliteStore
from apiserver.storage.store import Put
from navarch.world import RealWorld

async def main():
    store = SqliteStore(RealWorld(), Path(sys.argv[1]))
    async def write(key):
        for n in range(1000000):
            result = await store.txn([], [Put(f"/{key}", b"%d" % n), Put(f"/{key}/{n}", b"x" * 1000)])
            print(key, n, result.revision, flush=True)
    await asyncio.gather(*map(write, range(8)))

RealWorld().run(main)
"""


def test_killed_while_writing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    known: dict[int, int] = {}
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", CRASHING, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        highest = 0
        for _ in range(200):
            key, n, revision = map(int, child.stdout.readline().split())
            known[key] = n
            highest = max(highest, revision)
        child.send_signal(signal.SIGKILL)
        child.stdout.close()
        child.wait()
        with contextlib.closing(sqlite3.connect(path)) as other:
            assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "sound for any other reader"

        async def check(store: SqliteStore) -> None:
            assert await store.current_revision() >= highest  # noqa: B023
            for key, n in known.items():
                found, _ = await store.get(f"/{key}")
                assert found is not None and int(found.value) >= n
                assert (await store.get(f"/{key}/{int(found.value)}"))[
                    0
                ].revision == found.revision  # whole transactions

        run(path, check)
        known.clear()


def test_feed_keeps_a_bounded_log() -> None:
    feed = Feed(10, keep=3)
    for revision in range(11, 30):
        feed.publish(Batch([], revision))
    assert not feed.has(10) and feed.has(29) and feed.has(27) and len(feed._log) <= 6
