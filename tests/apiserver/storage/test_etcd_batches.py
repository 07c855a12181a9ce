"""Writes that share a transaction in etcd: who goes with whom, and the revision that each of them has."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.storage import etcd_batches
from apiserver.storage.etcd import EtcdStore
from apiserver.storage.etcd_batches import Batches, Write, request, results
from apiserver.storage.etcd_revisions import LAST, PLACES, etcds, events, is_whole, unwrap, whole, wrap
from apiserver.storage.store import (
    Compacted,
    Compare,
    FutureRevision,
    Put,
    StoreEvent,
    StoreFull,
    StoreUnavailable,
    TooLarge,
    TxnResult,
)
from navarch.virtual import SimulatedWorld
from navarch.world import RealWorld
from protos import etcd_pb2 as pb
from tests.apiserver.storage.etcd_server import Etcd

real = RealWorld()


def put(key: str, size: int = 1) -> Write:
    return Write([Compare(key, 0)], [Put(key, b"x" * size)], [], [0])


def deletion(key: str) -> Write:
    return Write([Compare(key, PLACES)], [], [key], [])


# The numbers


@given(st.integers(0, 1 << 40), st.binary(max_size=5), st.integers(0, LAST))
def test_revisions_and_values_there_and_back(revision: int, value: bytes, place: int) -> None:
    assert is_whole(whole(revision)) and etcds(whole(revision)) == revision and etcds(whole(revision) + 1) == revision + 1
    assert unwrap(wrap(value, place)) == (value, place)
    assert unwrap(b'{"kind":"Pod"}') == (b'{"kind":"Pod"}', LAST), "as older versions stored it"


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=etcd_batches.MAX_WRITES))
def test_writer_and_watcher_count_alike(kinds: list[tuple[bool, bool]]) -> None:
    """For any puts and deletions (in this order) of which any succeed: no revision comes twice, and they rise."""
    writes = [put(f"/{n}") if puts else deletion(f"/{n}") for n, (puts, _) in enumerate(kinds)]
    writes.sort(key=lambda write: bool(write.puts))
    response = pb.TxnResponse(header=pb.ResponseHeader(revision=7))
    seen = []
    for write, sent, (_, succeeds) in zip(writes, request(writes).success, kinds, strict=True):
        response.responses.add().txn.succeeded = succeeds
        for operation in sent.txn.success if succeeds else ():
            kind = pb.Event.PUT if write.puts else pb.Event.DELETE
            kv = pb.KeyValue(key=write.keys()[0].encode(), mod_revision=7, create_revision=7, value=operation.put.value)
            seen.append(pb.Event(type=kind, kv=kv))
    told = [result.revision for result in results(writes, response) if result.succeeded]
    assert told == [event.revision for event in events(seen)]
    assert told == sorted(set(told)) and all(etcds(revision) == 7 for revision in told)
    assert all(result.revision == whole(7) for result in results(writes, response) if not result.succeeded)


def test_the_end_of_a_lease_deletes_more_than_there_are_places() -> None:
    parts = [pb.Event(type=pb.Event.DELETE, kv=pb.KeyValue(key=b"/%d" % n, mod_revision=5)) for n in range(200)]
    revisions = [event.revision for event in events(parts)]
    assert revisions == sorted(revisions) and revisions[-1] == whole(5) and etcds(revisions[0]) == 5
    assert len(set(revisions)) == PLACES


# Who goes with whom


class Carrier:
    """Takes writes and keeps them until it is told how it ended."""

    def __init__(self, world: SimulatedWorld, patience: float = 5) -> None:
        self.sent: list[list[str]] = []
        self.ends: list[asyncio.Future[None]] = []
        self.batches = Batches(world, self.send, patience)

    async def send(self, writes: Sequence[Write]) -> list[TxnResult]:
        self.sent.append([write.keys()[0] for write in writes])
        self.ends.append(asyncio.get_running_loop().create_future())
        request(writes)
        await self.ends[-1]
        return [TxnResult(True, write.place) for write in writes]

    def commit(self, *writes: Write) -> list[asyncio.Task[TxnResult]]:
        return [asyncio.ensure_future(self.batches.commit(write)) for write in writes]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_nobody_waits_for_company(world: SimulatedWorld) -> None:
    carrier = Carrier(world)
    tasks = carrier.commit(*(put(f"/{n}") for n in range(4)), deletion("/4"))
    await settle()
    assert carrier.sent == [["/0"]]
    carrier.ends[0].set_result(None)
    await settle()
    assert carrier.sent[1:] == [["/4", "/1", "/2", "/3"]], "deletions come first"
    carrier.ends[1].set_result(None)
    assert [(await task).revision for task in tasks] == [LAST, LAST - 2, LAST - 1, LAST, LAST - 3]
    tasks = carrier.commit(put("/6"))
    await settle()
    assert carrier.sent[2:] == [["/6"]], "what comes later goes at once again"
    carrier.ends[2].set_result(None)
    await tasks[0]


async def test_no_key_comes_twice(world: SimulatedWorld) -> None:
    carrier = Carrier(world)
    reads = Write([Compare("/a", 0)], [Put("/b", b"")], [], [0])
    tasks = carrier.commit(put("/0"), put("/a"), put("/a"), reads, put("/c"))
    for number, keys in enumerate([["/0"], ["/a", "/c"], ["/a"], ["/a"]]):  # the last one writes /b, but looks at /a
        await settle()
        assert carrier.sent[number:] == [keys]
        carrier.ends[number].set_result(None)
    await asyncio.gather(*tasks)


async def test_what_is_much_goes_apart(world: SimulatedWorld) -> None:
    carrier = Carrier(world)
    half = etcd_batches.MAX_BYTES // 2
    several = Write([], [Put("/x", b""), Put("/y", b"")], [], [0, 0])
    blind = Write([], [], ["/z"], [])
    tasks = carrier.commit(put("/0"), put("/a", half), put("/b", half), put("/c", half), put("/d", 3 * half))
    tasks += carrier.commit(several, blind)
    await settle()
    assert carrier.sent == [["/0"], ["/x"], ["/z"]], "of several keys, or none perhaps: by itself"
    for n in range(6):
        carrier.ends[n].set_result(None)
        await settle()
    assert carrier.sent[3:] == [["/a", "/b"], ["/c"], ["/d"]]
    await asyncio.gather(*tasks)
    many = carrier.commit(*(put(f"/{n}") for n in range(250)))
    for n in range(6, 10):
        await settle()
        carrier.ends[n].set_result(None)
    await asyncio.gather(*many)
    assert [len(keys) for keys in carrier.sent[6:]] == [1, 100, 100, 49]


async def test_one_that_is_cancelled_takes_nobody_along(world: SimulatedWorld) -> None:
    carrier = Carrier(world)
    tasks = carrier.commit(*(put(f"/{n}") for n in range(5)))
    await settle()
    tasks[1].cancel()
    carrier.ends[0].set_exception(StoreUnavailable("lost"))
    await settle()
    assert carrier.sent[1:] == [["/2", "/3", "/4"]], "it waited, and is not sent"
    tasks[2].cancel()
    await settle()
    carrier.ends[1].set_result(None)
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in done] == [
        StoreUnavailable, asyncio.CancelledError, asyncio.CancelledError, TxnResult, TxnResult,
    ]  # fmt: skip


async def test_what_befalls_one_befalls_all_with_it(world: SimulatedWorld) -> None:
    carrier = Carrier(world, patience=5)
    tasks = carrier.commit(*(put(f"/{n}") for n in range(3)))
    await settle()
    carrier.ends[0].set_result(None)
    await settle()
    tasks += carrier.commit(put("/late"))
    await settle()
    await world.sleep(6)
    carrier.ends[1].set_exception(StoreUnavailable("no answer"))
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert carrier.sent == [["/0"], ["/1", "/2"]], "what waited for too long is not sent"
    words = ["no answer", "no answer", "etcd does not answer: nothing was written"]
    assert [str(one) for one in done[1:]] == words and done[1] is not done[2]


async def test_what_is_refused_because_of_others_goes_without_them(world: SimulatedWorld) -> None:
    sent: list[list[str]] = []

    async def send(writes: Sequence[Write]) -> list[TxnResult]:
        keys = [write.keys()[0] for write in writes]
        sent.append(keys)
        await asyncio.sleep(0)
        if any(write.puts for write in writes) and len(sent) > 1:
            raise StoreFull("no room")
        if len(writes) > 2:
            raise TooLarge("much")
        return [TxnResult(True, n) for n, _ in enumerate(writes)]

    batches = Batches(world, send, 5)
    writes = [put("/0"), put("/a"), *(deletion(f"/{n}") for n in "bcd")]
    done = await asyncio.gather(*(batches.commit(write) for write in writes), return_exceptions=True)
    assert sent[1:] == [["/b", "/c", "/d", "/a"], ["/b", "/c", "/d"], ["/b"], ["/c", "/d"], ["/a"]]
    assert [type(one) for one in done] == [TxnResult, StoreFull, TxnResult, TxnResult, TxnResult]


async def test_closing(world: SimulatedWorld) -> None:
    carrier = Carrier(world)
    tasks = carrier.commit(*(put(f"/{n}") for n in range(4)))
    await settle()
    carrier.ends[0].set_result(None)
    await settle()
    tasks += carrier.commit(put("/waits"))
    await settle()
    await carrier.batches.close()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, StoreUnavailable) for one in done] == [False, True, True, True, True]


# On etcd


async def follow(store: EtcdStore, start: int, until: int) -> list[StoreEvent]:
    out: list[StoreEvent] = []
    async with asyncio.timeout(20):
        async for batch in store.watch("/k", start):
            out += batch.events
            if batch.revision >= until:
                return out
    raise AssertionError("the watch ended")


class Writer:
    """Writes at random, many at once; keeps what was acknowledged: revision -> key and value (None: deleted)."""

    def __init__(self, store: EtcdStore, seed: int) -> None:
        self.store, self.random = store, random.Random(seed)
        self.state: dict[str, tuple[int, bytes]] = {}
        self.acknowledged: dict[int, tuple[str, bytes | None]] = {}
        self.refused = 0

    async def write(self, n: int) -> None:
        key, draw = f"/k{self.random.randrange(30)}", self.random.random()
        known = self.state.get(key, (0, b""))[0]
        value = b"%d" % n
        if draw < 0.3 and known:
            result = await self.store.txn([Compare(key, known)], deletes=[key])
            after = None
        else:
            result = await self.store.txn([Compare(key, known)], [Put(key, value, ttl=3600 if draw > 0.9 else 0)])
            after = value
        if not result.succeeded:
            self.refused += 1
            return
        assert result.revision not in self.acknowledged
        self.acknowledged[result.revision] = key, after
        if result.revision > self.state.get(key, (0, b""))[0]:
            self.state[key] = (result.revision if after is not None else 0), after or b""


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_write_has_a_revision_of_its_own(tmp_path: Path, seed: int) -> None:
    with Etcd(tmp_path) as etcd:
        store = EtcdStore(real, [etcd.endpoint])
        await store.start()
        start = await store.current_revision()
        writer = Writer(store, seed)
        for round in range(8):
            await asyncio.gather(*(writer.write(round * 50 + n) for n in range(50)))
        end = await store.current_revision()
        seen = await follow(store, start + 1, end)
        assert {event.revision: (event.key, event.value) for event in seen} == writer.acknowledged
        revisions = [event.revision for event in seen]
        assert revisions == sorted(set(revisions)) and max(revisions) <= end and writer.refused
        shared = [revision for revision in revisions if not is_whole(revision)]
        assert len(shared) > 100, "most of them went with others"
        # Whoever goes on behind any of them gets exactly the rest, previous values too.
        for revision in writer.random.sample(revisions[:-1], 20):
            assert await follow(store, revision + 1, end) == [event for event in seen if event.revision > revision]
        values: dict[str, bytes | None] = {}
        for event in seen:
            assert event.previous == values.get(event.key)
            values[event.key] = event.value
        last = {event.key: event.revision for event in seen if values[event.key] is not None}
        page = await store.list("/k")
        assert {item.key: (item.value, item.revision) for item in page.items} == {
            key: (values[key], revision) for key, revision in last.items()
        }
        with pytest.raises(Compacted) as gone:
            await store.list("/k", revision=shared[0])
        assert (await store.list("/k", revision=gone.value.revision)).revision == whole(etcds(shared[0]))
        with pytest.raises(FutureRevision):
            await store.list("/k", revision=end + 5)
        await store.close()


async def test_a_lease_that_has_ended_is_no_fault_of_the_others(tmp_path: Path) -> None:
    with Etcd(tmp_path) as etcd:
        store = EtcdStore(real, [etcd.endpoint])
        await store.start()
        lease = await store._leases.lease(3600)
        await store._connection.revoke(pb.LeaseRevokeRequest(id=lease))
        together = []
        send = store._batches._send

        async def noted(writes: Sequence[Write]) -> Sequence[TxnResult]:
            together.append(len(writes))
            return await send(writes)

        store._batches._send = noted
        ttls = [0, 0, 0, 3600, 0, 3600]
        made = await asyncio.gather(
            *(store.txn([Compare(f"/{n}", 0)], [Put(f"/{n}", b"v", ttl)]) for n, ttl in enumerate(ttls))
        )
        assert all(result.succeeded for result in made) and len({result.revision for result in made}) == len(made)
        assert together[:2] == [1, 5]
        pages = await store._connection.range(pb.RangeRequest(key=b"/", range_end=b"0"))
        leased = [kv.key.decode() for kv in pages.kvs if kv.lease and kv.key.count(b"/") == 1]
        assert leased == ["/3", "/5"]
        await store.close()


async def test_what_no_state_ever_had_is_the_state_of_no_key(tmp_path: Path) -> None:
    """Revisions that older versions gave out, for example: all below the first that there is now."""
    with Etcd(tmp_path) as etcd:
        store = EtcdStore(real, [etcd.endpoint])
        await store.start()
        assert not (await store.txn([Compare("/a", 5)], [Put("/a", b"v")])).succeeded
        for revision in (5, whole(0), whole(1)):
            with pytest.raises(Compacted):
                await store.list("/", revision=revision)
        assert store.earlier(whole(900), 10) == whole(890) and store.earlier(whole(3), 1000) == whole(store._presence.since)
        await store.close()
