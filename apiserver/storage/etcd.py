"""The store in etcd: its v3 API over a unix socket or mutual TLS.

etcd has all that the protocol asks for; what is added here: one linearizable read is shared by all who ask for the
current revision meanwhile, and none is needed while this server is the only one (see etcd_presence); keys with a time
to live share leases; writes that come while others are on the way share a transaction (etcd_batches), and have a
revision each all the same (etcd_revisions).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NoReturn

from apiserver.storage.etcd_batches import Batches, Write, request, results
from apiserver.storage.etcd_connection import TLS, Connection, LeaseNotFound
from apiserver.storage.etcd_leases import Leases
from apiserver.storage.etcd_presence import Presence
from apiserver.storage.etcd_revisions import etcds, events, is_whole, key_value, whole
from apiserver.storage.feed import prefix_end
from apiserver.storage.grpc_channel import RpcError
from apiserver.storage.store import (
    Batch,
    Compacted,
    Compare,
    KeyValue,
    Page,
    Put,
    StoreEvent,
    StoreFull,
    StoreRewound,
    StoreUnavailable,
    TxnResult,
    check_txn,
    nothing,
)
from navarch.world import World
from protos import etcd_pb2 as pb


class EtcdStore:
    """A :class:`~apiserver.storage.store.Store` in an etcd cluster (3.4 or later)."""

    kind = "etcd"
    on_rewind: Callable[[], None] = staticmethod(nothing)

    def __init__(self, world: World, endpoints: list[str], tls: TLS | None = None, *, timeout: float = 5.0) -> None:
        """``endpoints``: ``unix:/path`` or ``host:port`` each; the latter needs ``tls``. ``timeout``: seconds a call."""
        self._connection = Connection(endpoints, tls, timeout)
        self._leases = Leases(world, self._connection)
        self._presence = Presence(world, self._connection)
        self._batches = Batches(world, self._send, timeout)
        self._acknowledged = 0  # highest of etcd's revisions that it told us
        self._reads_begun = 0  # linearizable revision reads, numbered from 1
        self._read_ended = 0  # number of the last one that got an answer or an error
        self._read_lock = asyncio.Lock()
        self._read_error: StoreUnavailable | None = None
        self._closed = False

    async def start(self) -> None:
        """Makes this server known to the others; otherwise the first write does."""
        await self._presence.join()

    async def get(self, key: str) -> tuple[KeyValue | None, int]:
        response = await self._range(pb.RangeRequest(key=key.encode()))
        pairs = response.kvs
        return (key_value(pairs[0]) if pairs else None), whole(response.header.revision)

    async def list(self, prefix: str, *, start_after: str = "", revision: int = 0, limit: int = 0) -> Page:
        start = start_after.encode() + b"\0" if start_after and start_after >= prefix else prefix.encode() or b"\0"
        end = (prefix_end(prefix) or "\0").encode()
        at, since = etcds(revision), self._presence.since
        if revision and (at < since or not is_whole(revision)):  # between two writes of one transaction etcd knows nothing
            await self._range(pb.RangeRequest(key=b"/", revision=max(at, since, 1), count_only=True))  # unless in future
            raise Compacted(whole(max(at, since)))
        try:
            response = await self._range(pb.RangeRequest(key=start, range_end=end, revision=at, limit=limit))
        except Compacted:
            raise Compacted(revision + 1) from None
        items = [key_value(kv) for kv in response.kvs]
        return Page(items, revision or whole(response.header.revision), response.more, response.count)

    def earlier(self, revision: int, writes: int) -> int:
        return whole(max(self._presence.since, etcds(revision) - writes, 1))

    async def _range(self, request: Any) -> Any:
        self._check()
        before = self._acknowledged
        response = await self._connection.range(request)
        self._note_revision(response, before)
        return response

    def _note_revision(self, response: Any, before: int) -> None:
        """Notes the revision of an answer; ``before``: what was acknowledged when it was asked for. Raises StoreRewound."""
        revision = response.header.revision
        if revision < before:
            self._rewound(before, revision)
        if revision > self._acknowledged:
            self._acknowledged = revision

    def _rewound(self, before: int, revision: int) -> NoReturn:
        """Every answer is linearizable, so a lower revision than before means that etcd has lost what it acknowledged."""
        if self._acknowledged > revision:  # the first to find it
            self._acknowledged = 0
            self._presence.forget()
            self.on_rewind()
        raise StoreRewound(f"etcd went back from revision {before} to {revision}: it was emptied or restored")

    async def txn(
        self, compares: Sequence[Compare], puts: Sequence[Put] = (), deletes: Sequence[str] = ()
    ) -> TxnResult:
        self._check()
        check_txn(puts, deletes)
        while True:
            leases = [await self._leases.lease(put.ttl) if put.ttl else 0 for put in puts]
            try:
                return await self._batches.commit(Write(compares, puts, deletes, leases))
            except LeaseNotFound:  # of a time to live, perhaps another write's; nothing was written
                for put in puts:
                    self._leases.forget(put.ttl)

    async def _send(self, writes: Sequence[Write]) -> Sequence[TxnResult]:
        """One transaction with all of the writes; see etcd_batches."""
        presence = self._presence
        while True:
            self._check()
            created = presence.created
            if not created:
                await self._join()
                continue
            before = self._acknowledged
            response = await self._connection.txn(self._txn_request(writes))
            self._note_revision(response, before)
            if response.succeeded:
                return results(writes, response)
            mine = response.responses[0].range.kvs
            if mine and mine[0].create_revision == created:  # so what failed is the only write
                return results(writes, response)
            await self._join(created)

    async def _join(self, lost: int = 0) -> None:
        """As ``Presence.join``; then sees whether etcd still knows what it did. Raises StoreRewound."""
        await self._presence.join(lost)
        await self._range(pb.RangeRequest(key=self._presence.key.encode(), count_only=True))

    def _txn_request(self, writes: Sequence[Write]) -> Any:
        transaction = request(writes)
        own = self._presence.key.encode()
        transaction.compare.add(target=pb.Compare.CREATE, key=own, create_revision=self._presence.created)
        transaction.failure.add().range.key = own
        return transaction

    async def watch(self, prefix: str, from_revision: int, *, previous: bool = True) -> AsyncIterator[Batch]:
        self._check()
        response = await self._range(pb.RangeRequest(key=b"/", count_only=True))
        if response.header.revision < etcds(from_revision - 1):
            self._rewound(etcds(from_revision - 1), response.header.revision)
        # Of all keys: what a deletion has for a number shows in the whole transaction only.
        create = pb.WatchCreateRequest(
            key=b"\0", range_end=b"\0", start_revision=etcds(from_revision), prev_kv=previous, fragment=True
        )
        stream = await self._connection.watch()
        parts: list[Any] = []
        try:
            stream.send(pb.WatchRequest(create=create).SerializeToString())
            while True:
                message = await stream.receive()
                if message is None:
                    raise StoreUnavailable("etcd ended the watch")
                response = pb.WatchResponse.FromString(message)
                if response.canceled:
                    if response.compact_revision:
                        raise Compacted(whole(response.compact_revision) + 1)
                    raise StoreUnavailable(f"etcd cancelled the watch: {response.cancel_reason}")
                parts += response.events
                # etcd puts whole revisions in a response, unless it says that the response goes on in the next one.
                if parts and not response.fragment:
                    batch = Batch(_select(events(parts), prefix, from_revision), whole(parts[-1].kv.mod_revision))
                    if batch.events or not prefix:
                        yield batch
                    parts = []
        except RpcError as error:
            raise self._connection.translate(error) from error
        finally:
            stream.cancel()

    async def compact(self, revision: int) -> None:
        self._check()
        try:
            await self._connection.compact(pb.CompactionRequest(revision=etcds(revision + 1) - 1))
        except Compacted:
            pass

    async def current_revision(self) -> int:
        self._check()
        if self._presence.sole:
            return whole(max(self._acknowledged, self._presence.floor))
        # A read that began after we were called serves us, whoever began it: so at most one runs and one is due.
        before = self._reads_begun
        async with self._read_lock:
            if self._read_ended <= before:
                self._reads_begun += 1
                number, error = self._reads_begun, None
                try:
                    await self._range(pb.RangeRequest(key=b"/", count_only=True))
                except StoreUnavailable as e:
                    error = e
                self._read_ended, self._read_error = number, error
            if self._read_error is not None:
                raise StoreUnavailable(str(self._read_error))
            return whole(self._acknowledged)

    def known_revision(self) -> int | None:
        if self._closed or not self._presence.sole:
            return None
        return whole(max(self._acknowledged, self._presence.floor))

    async def check(self) -> None:
        self._check()
        status = await self._connection.status()
        for text in status.errors:
            if "NOSPACE" in text:
                raise StoreFull("etcdserver: mvcc: database space exceeded (alarm NOSPACE)")
            raise StoreUnavailable(f"etcd: {text.strip()}")
        await self._range(pb.RangeRequest(key=b"/", count_only=True))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._batches.close()
            await self._presence.leave()
            await self._connection.close()

    def _check(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")


def _select(all_events: Sequence[StoreEvent], prefix: str, from_revision: int) -> Sequence[StoreEvent]:
    if not prefix and all_events[0].revision >= from_revision:
        return all_events
    return [event for event in all_events if event.revision >= from_revision and event.key.startswith(prefix)]
