"""The watch cache over every store: own writes are never missed, whatever happens beside them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from apiserver.cache.encoded import encode
from apiserver.storage.etcd import EtcdStore
from apiserver.storage.store import Compare, Put, Store, StoreUnavailable
from navarch.world import RealWorld
from tests.apiserver.cache.test_cache import PODS, pod, put, running
from tests.apiserver.storage.etcd_server import Etcd
from tests.apiserver.storage.stores import KINDS, run_with_store


@pytest.mark.parametrize("kind", KINDS)
def test_64_writers_read_what_they_wrote(kind: str) -> None:
    async def test(store: Store) -> None:
        async with asyncio.timeout(30), running(store) as cache:
            every = cache.watch(PODS)

            async def write(n: int) -> None:
                name, key = f"p{n}", f"{PODS}default/p{n}"
                mine = cache.watch(PODS, "default", name)
                last = 0
                for round in range(4):
                    value = encode(pod(name, round=str(round)))
                    result = await store.txn([Compare(key, last)], [Put(key, value)])
                    assert result.succeeded
                    last = result.revision
                    await cache.current()
                    entry = cache.get(PODS, "default", name)
                    assert entry is not None and (entry.revision, entry.labels) == (last, {"round": str(round)})
                    found = await cache.list_at(PODS, last, "default")
                    assert [e.revision for e in found.entries if e.name == name] == [last]
                    event = await anext(mine)
                    assert (event.type, event.revision) == ("MODIFIED" if round else "ADDED", last)
                last = (await store.txn([Compare(key, last)], [], [key])).revision
                await cache.current(last)
                assert cache.get(PODS, "default", name) is None
                event = await anext(mine)
                assert (event.type, event.revision) == ("DELETED", last)

            await asyncio.gather(*(write(n) for n in range(64)))
            assert cache.list(PODS).entries == []
            revisions = [event.revision for event in await every.batch()]
            assert len(revisions) == 64 * 5 and revisions == sorted(revisions)

    run_with_store(kind, test)


async def test_etcd_is_killed_and_comes_back(tmp_path: Path) -> None:
    world = RealWorld()

    with Etcd(tmp_path) as etcd:
        store = EtcdStore(world, [etcd.endpoint])
        async with asyncio.timeout(20), running(store) as cache:
            first = await put(store, pod("a"))
            watcher = cache.watch(PODS)
            assert (await anext(watcher)).revision == first
            etcd.stop()
            with pytest.raises(StoreUnavailable):  # it may have been sent before the loss was noticed
                await put(store, pod("b"))
            waiting = asyncio.ensure_future(put(store, pod("b")))
            entry = cache.get(PODS, "default", "a")
            assert entry is not None and entry.revision == first
            etcd.start()
            second = await waiting
            event = await anext(watcher)
            assert (event.type, event.revision) == ("ADDED", second)
            await cache.current()
            assert [e.name for e in cache.list(PODS).entries] == ["a", "b"]
        await store.close()
