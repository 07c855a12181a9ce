"""What every store must do."""

from __future__ import annotations

import asyncio

import pytest

from apiserver.storage.store import Batch, Compacted, Compare, FutureRevision, Put, Store, StoreEvent
from tests.apiserver.storage.stores import KINDS, STEPS, run_with_store

pytestmark = pytest.mark.parametrize("kind", KINDS)


async def take(store: Store, prefix: str, start: int, until: int) -> list[StoreEvent]:
    """Events from ``start`` on until the watch has reached revision ``until``."""
    out: list[StoreEvent] = []
    async with asyncio.timeout(10):
        async for batch in store.watch(prefix, start):
            out += batch.events
            if batch.revision >= until:
                return out
    raise AssertionError("the watch ended")


def test_a_write_makes_one_revision(kind: str) -> None:
    async def test(store: Store) -> None:
        start, step = await store.current_revision(), STEPS[kind]
        assert await store.get("/a") == (None, start)
        made = await store.txn([Compare("/a", 0)], [Put("/a", b"1"), Put("/b", b"2")])
        assert made == (True, start + 1 * step)
        found, revision = await store.get("/a")
        assert found == ("/a", b"1", start + 1 * step, start + 1 * step) and revision == start + 1 * step
        assert await store.txn([Compare("/a", 0)], [Put("/a", b"x")]) == (False, start + 1 * step)
        assert await store.txn([Compare("/a", start + 1 * step), Compare("/c", 0)], [Put("/a", b"3")], ["/b"]) == (
            True,
            start + 2 * step,
        )
        assert (await store.get("/a"))[0] == ("/a", b"3", start + 2 * step, start + 1 * step)
        assert (await store.get("/b"))[0] is None
        # What changes nothing makes no revision.
        assert await store.txn([], [], ["/b"]) == (True, start + 2 * step)
        assert await store.txn([Compare("/a", start + 2 * step)]) == (True, start + 2 * step)
        assert await store.txn([Compare("/a", start)], [], ["/a"]) == (False, start + 2 * step)
        # A key that comes back is a new one.
        await store.txn([], [], ["/a"])
        await store.txn([], [Put("/a", b"4")])
        assert (await store.get("/a"))[0] == ("/a", b"4", start + 4 * step, start + 4 * step)
        with pytest.raises(ValueError):
            await store.txn([], [Put("/a", b"5"), Put("/a", b"6")])
        assert await store.current_revision() == start + 4 * step

    run_with_store(kind, test)


def test_lists(kind: str) -> None:
    async def test(store: Store) -> None:
        names = ["/p/a", "/p/b/1", "/p/b/2", "/p/b-1", "/p/c", "/pp/x", "/q"]
        for name in names:
            await store.txn([], [Put(name, name.encode())])
        first, step = await store.current_revision(), STEPS[kind]
        page = await store.list("/p/")
        assert [i.key for i in page.items] == ["/p/a", "/p/b-1", "/p/b/1", "/p/b/2", "/p/c"]
        assert (page.revision, page.more, page.count) == (first, False, 5)
        page = await store.list("/p/b/")
        assert [(i.key, i.value) for i in page.items] == [("/p/b/1", b"/p/b/1"), ("/p/b/2", b"/p/b/2")]
        await store.txn([], [Put("/p/aa", b"new")], ["/p/b-1"])
        await store.txn([], [Put("/p/c", b"changed")])
        page = await store.list("/p/", limit=2)
        assert [i.key for i in page.items] == ["/p/a", "/p/aa"] and page.more and page.count == 5
        page = await store.list("/p/", start_after="/p/aa", limit=2)
        assert [i.key for i in page.items] == ["/p/b/1", "/p/b/2"] and page.more and page.count == 3
        page = await store.list("/p/", start_after="/p/b/2", limit=2)
        assert [i.key for i in page.items] == ["/p/c"] and not page.more and page.count == 1
        # In the past.
        page = await store.list("/p/", start_after="/p/a", revision=first, limit=4)
        assert [i.key for i in page.items] == ["/p/b-1", "/p/b/1", "/p/b/2", "/p/c"]
        assert page.items[-1].value == b"/p/c" and page.revision == first and page.count == 4
        assert [i.key for i in (await store.list("")).items if not i.key.startswith("/navarch/")] == sorted(
            [*names[:2], names[2], names[4], "/p/aa", *names[5:]]
        )
        with pytest.raises(FutureRevision):
            await store.list("/p/", revision=first + 3 * step)
        await store.compact(first + 1 * step)
        assert [i.key for i in (await store.list("/p/", revision=first + 1 * step)).items][:2] == ["/p/a", "/p/aa"]
        with pytest.raises(Compacted):
            await store.list("/p/", revision=first)
        assert (await store.get("/p/c"))[0].value == b"changed"

    run_with_store(kind, test)


def comparable(events: list[StoreEvent], step: int) -> list[StoreEvent]:
    """Sorted within a transaction, where the order is free; etcd does not tell when a deleted key was created, and gives a
    deletion a revision of its own."""
    alike = [e._replace(created=e.created if e.value else 0, revision=e.revision // step) for e in events]
    return sorted(alike, key=lambda e: (e.revision, e.key))


def test_a_watch_begins_in_the_past(kind: str) -> None:
    async def test(store: Store) -> None:
        start, step = await store.current_revision(), STEPS[kind]
        one = (await store.txn([], [Put("/p/a", b"1"), Put("/q", b"1"), Put("/p/b", b"1")])).revision
        two = (await store.txn([Compare("/p/a", one)], [Put("/p/a", b"2")], ["/p/b"])).revision
        expected = [
            StoreEvent("/p/a", b"1", one, None, one),
            StoreEvent("/p/b", b"1", one, None, one),
            StoreEvent("/p/a", b"2", two, b"1", one),
            StoreEvent("/p/b", None, two, b"1", one),
        ]
        assert comparable(await take(store, "/p/", start + 1, two), step) == comparable(expected, step)
        assert comparable(await take(store, "/p/", one + 1, two), step) == comparable(expected[2:], step)
        assert len(await take(store, "", start + 1, two)) == 5

    run_with_store(kind, test)


def test_a_watch_that_waits(kind: str) -> None:
    """It gets what comes later, in whole revisions and in order; after a compaction it begins behind that."""

    async def test(store: Store) -> None:
        start, step = await store.current_revision(), STEPS[kind]

        async def follow() -> list[Batch]:
            batches = []
            async for batch in store.watch("", start + 1):
                batches.append(batch)
                if batch.revision >= start + 20 * step:
                    break
            return batches

        following = asyncio.ensure_future(follow())
        for n in range(20):
            await store.txn([], [Put(f"/p/{n}", b"x"), Put(f"/r/{n}", b"y")])
        batches = await asyncio.wait_for(following, 10)
        revisions = [e.revision for b in batches for e in b.events]
        assert revisions == [start + n * step for n in range(1, 21) for _ in range(2)]
        assert all(b.events[-1].revision == b.revision for b in batches)
        await store.compact(start + 8 * step)
        with pytest.raises(Compacted):
            await take(store, "", start + 1, start + 20 * step)
        assert len(await take(store, "", start + 8 * step + 1, start + 20 * step)) == 24

    run_with_store(kind, test)


def test_time_to_live(kind: str) -> None:
    async def test(store: Store) -> None:
        start, step = await store.current_revision(), STEPS[kind]
        await store.txn([], [Put("/short", b"1", ttl=1), Put("/kept", b"1", ttl=1), Put("/long", b"1", ttl=3600)])
        await store.txn([], [Put("/kept", b"2")])  # without a time to live it stays
        events = await take(store, "", start + 1, start + 3 * step)
        assert (events[-1].key, events[-1].value, events[-1].previous) == ("/short", None, b"1")
        assert [i.key for i in (await store.list("/k")).items] == ["/kept"]
        assert [i.key for i in (await store.list("/l")).items] == ["/long"]

    run_with_store(kind, test)


def test_compare_and_swap_from_many_sides(kind: str) -> None:
    async def test(store: Store) -> None:
        await store.txn([], [Put("/n", b"0")])

        async def add() -> None:
            for _ in range(3):
                while True:
                    now, _revision = await store.get("/n")
                    assert now is not None
                    if (
                        await store.txn([Compare("/n", now.revision)], [Put("/n", b"%d" % (int(now.value) + 1))])
                    ).succeeded:
                        break

        await asyncio.gather(*(add() for _ in range(16)))
        now, _revision = await store.get("/n")
        assert now is not None and now.value == b"48"

    run_with_store(kind, test)
