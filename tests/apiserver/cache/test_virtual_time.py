"""The memory store and the cache in a simulation: no threads, no clock of their own, the same history every time."""

from __future__ import annotations

import asyncio

from apiserver.cache.cache import Cache, extract_metadata
from apiserver.cache.encoded import encode
from apiserver.storage.compaction import keep_compacted
from apiserver.storage.memory import MemoryStore
from apiserver.storage.store import Put
from navarch.virtual import SimulatedWorld
from tests.apiserver.cache.test_cache import PODS, pod


def history(seed: int) -> list[tuple[float, str, int, str, int]]:
    """What five watchers of a busy hour saw: when, what, at which revision."""
    world = SimulatedWorld(seed)
    out: list[tuple[float, str, int, str, int]] = []

    async def main() -> None:
        store = MemoryStore()
        cache = Cache(world, store, resources={PODS: extract_metadata})
        async with world.task_group() as group:
            group.start(cache.run())
            group.start(keep_compacted(world, store, interval=300))
            await cache.wait_ready()

            async def watch(n: int) -> None:
                with cache.watch(PODS, "default" if n % 2 else None, bookmarks=True) as watcher:
                    async for event in watcher:
                        out.append((world.now(), event.type, n, event.entry.key if event.entry else "", event.revision))

            async def write() -> None:
                while True:
                    await world.sleep(world.random.expovariate(1 / 20))
                    name = f"p{world.random.randrange(10)}"
                    key = f"{PODS}default/{name}"
                    if world.random.random() < 0.3:
                        await store.txn([], [], [key])
                    else:
                        await store.txn([], [Put(key, encode(pod(name)), ttl=world.random.choice([0, 60]))])
                    await cache.current()
                    cache.check()

            for n in range(5):
                group.start(watch(n))
            for _ in range(5):
                group.start(write())
            await world.sleep(3600)
            group.cancel()
        await store.close()

    world.run(main)
    return out


def test_the_same_every_time() -> None:
    first = history(1)
    kinds = [event[1] for event in first]
    assert len(first) > 2000 and kinds.count("BOOKMARK") > 200 and kinds.count("DELETED") > 500
    assert history(1) == first
    assert history(2) != first


async def test_a_list_survives_an_interval_of_compaction(world: SimulatedWorld) -> None:
    store = MemoryStore()
    compacting = asyncio.ensure_future(keep_compacted(world, store, interval=300))
    await store.txn([], [Put("/a", b"1")])
    revision = await store.current_revision()
    await world.sleep(310)
    await store.txn([], [Put("/a", b"2")])
    await world.sleep(280)
    assert (await store.list("/", revision=revision)).items[0].value == b"1"
    await world.sleep(700)
    assert (await store.list("/")).items[0].value == b"2" and len(store._keys["/a"]) == 1
    compacting.cancel()
    await asyncio.gather(compacting, return_exceptions=True)
    await store.close()
