"""A store that an older version wrote, which knew one revision for all writes of a transaction, and its servers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from apiserver.storage.etcd import EtcdStore
from apiserver.storage.etcd_presence import FORMAT, PREFIX, _dead
from apiserver.storage.etcd_revisions import etcds, whole
from apiserver.storage.store import Compacted, Compare, Put
from navarch.world import RealWorld
from protos import etcd_pb2 as pb
from tests.apiserver.storage.etcd_server import Etcd

real = RealWorld()
OLD = PREFIX + "old"


class Raw:
    """Writes into etcd as an older version did."""

    def __init__(self, store: EtcdStore) -> None:
        self.connection = store._connection

    async def put(self, key: str, value: bytes) -> int:
        operation = pb.RequestOp(put=pb.PutRequest(key=key.encode(), value=value))
        return int((await self.connection.txn(pb.TxnRequest(success=[operation]))).header.revision)

    async def delete(self, key: str) -> None:
        operation = pb.RequestOp(delete=pb.DeleteRangeRequest(key=key.encode()))
        await self.connection.txn(pb.TxnRequest(success=[operation]))

    async def get(self, key: str) -> bytes:
        response = await self.connection.range(pb.RangeRequest(key=key.encode()))
        return bytes(response.kvs[0].value) if response.kvs else b""


async def test_what_older_versions_stored(tmp_path: Path) -> None:
    """It is there, with higher revisions than clients have of it; theirs are too old, for writes too."""
    with Etcd(tmp_path) as etcd:
        store = EtcdStore(real, [etcd.endpoint])
        raw = Raw(store)
        olds = {f"/k{n}": await raw.put(f"/k{n}", b'{"n":%d}' % n) for n in range(300)}
        await store.start()
        assert {item.key: item.revision for item in (await store.list("/k")).items} == {
            key: whole(revision) for key, revision in olds.items()
        }
        for old in olds.values():
            with pytest.raises(Compacted):
                await store.list("/k", revision=old)
        assert store.earlier(await store.current_revision(), 1000) > whole(max(olds.values()))
        key, old = "/k299", olds["/k299"]
        assert not (await store.txn([Compare(key, old)], [Put(key, b"{}")])).succeeded
        assert (await store.txn([Compare(key, whole(old))], [Put(key, b"{}")])).succeeded
        await store.close()
        again = EtcdStore(real, [etcd.endpoint])
        await again.start()
        assert again._presence.since == store._presence.since, "it is the first start that counts"
        await again.close()


async def test_an_older_server_that_still_runs_is_waited_for(tmp_path: Path) -> None:
    with Etcd(tmp_path) as etcd:
        store = EtcdStore(real, [etcd.endpoint])
        raw = Raw(store)
        await raw.put(OLD, json.dumps({"seen": 0}).encode())
        writing = asyncio.ensure_future(store.txn([], [Put("/a", b"new")]))
        while not await raw.get(FORMAT):
            await asyncio.sleep(0.01)
        await raw.put(OLD, json.dumps({"seen": 1 << 40}).encode())  # it acknowledges us, but goes on writing
        last = await raw.put("/b", b"old")
        done, _ = await asyncio.wait([writing], timeout=0.3)
        assert not done and not await raw.get("/a")
        await raw.delete(OLD)
        assert etcds((await writing).revision) > store._presence.since > last
        await store.close()


async def test_an_older_server_that_comes_later_is_kept_out(tmp_path: Path) -> None:
    """By its own rule, which is written down here: it waits for all who were there before and have not seen it."""
    with Etcd(tmp_path) as etcd:
        store = EtcdStore(real, [etcd.endpoint])
        await store.start()
        raw = Raw(store)
        created = await raw.put(OLD, json.dumps({"seen": 0}).encode())
        await store.close()
        others = await raw.connection.range(pb.RangeRequest(key=PREFIX.encode(), range_end=PREFIX[:-1].encode() + b"0"))
        values = {kv.key.decode(): (kv.create_revision, json.loads(kv.value)) for kv in others.kvs}
        del values[OLD]
        assert [key for key, (c, v) in values.items() if c < created and v.get("seen", 0) < created] == [FORMAT]
        assert not _dead(values[FORMAT][1])
        # Servers of this version do not wait for it, nor count it.
        more = EtcdStore(real, [etcd.endpoint])
        async with asyncio.timeout(5):
            await more.start()
            while not more._presence.sole:
                await asyncio.sleep(0.01)
        await more.close()
