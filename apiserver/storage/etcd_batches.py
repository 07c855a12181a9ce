"""Group commit: writes that come while etcd is busy with others go to it together, in one transaction.

Each is a transaction of its own inside of that one, with its own compares, so that it succeeds or fails alone. Nobody waits for
company: a write that finds no transaction on the way goes at once, by itself. What a transaction costs etcd (its log, the
disk, the answer, the watch message) is paid once for all in it.

Two writes of one transaction never name the same key: etcd evaluates all compares before it writes anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from apiserver.storage.etcd_revisions import LAST, PLACES, etcds, whole, wrap
from apiserver.storage.store import Compare, Put, StoreFull, StoreUnavailable, TooLarge, TxnResult
from navarch.world import World
from protos import etcd_pb2 as pb

MAX_WRITES = 100
"""In one transaction; etcd counts each of them and its operation against its limit of 128."""
MAX_BYTES = 1_000_000
"""Of values in one transaction; what is larger goes alone."""
MAX_ON_THE_WAY = 1
"""Transactions at a time. A second one would wait for the first one's disk in etcd, where nobody can join it any more."""


class Write:
    """A request to the store. ``leases``: etcd's, for each put, 0 where it lives for ever."""

    __slots__ = ("answer", "compares", "deletes", "leases", "place", "puts", "since")

    def __init__(
        self, compares: Sequence[Compare], puts: Sequence[Put], deletes: Sequence[str], leases: Sequence[int]
    ) -> None:
        self.compares, self.puts, self.deletes, self.leases = compares, puts, deletes, leases
        self.place = LAST  # in etcd's revision; see etcd_revisions
        self.since = 0.0  # monotonic seconds when it began to wait
        self.answer: asyncio.Future[TxnResult] | None = None

    @property
    def sociable(self) -> bool:
        """Whether it may go with others: it makes exactly one event if its compares hold, as its place says."""
        if len(self.puts) == 1:
            return not self.deletes
        return len(self.deletes) == 1 and any(key == self.deletes[0] and revision for key, revision in self.compares)

    @property
    def size(self) -> int:
        return sum([len(put.value) for put in self.puts])

    def keys(self) -> list[str]:
        return [*(compare.key for compare in self.compares), *(put.key for put in self.puts), *self.deletes]

    def describe(self, request: Any) -> None:
        """Adds compares and operations to etcd's ``TxnRequest``; deletions first, as their numbers want it."""
        for key, revision in self.compares:
            # What etcd never had holds of no key, not even of an absent one.
            at = etcds(revision) if revision >= PLACES or not revision else -1
            request.compare.add(target=pb.Compare.MOD, key=key.encode(), mod_revision=at)
        for key in self.deletes:
            request.success.add().delete.key = key.encode()
        for put, lease in zip(self.puts, self.leases, strict=True):
            operation = request.success.add().put
            operation.key = put.key.encode()
            operation.value = wrap(put.value, self.place)
            if lease:
                operation.lease = lease


def request(writes: Sequence[Write]) -> Any:
    """etcd's ``TxnRequest`` for writes that go together, which must begin with the deletions."""
    whole_request = pb.TxnRequest()
    if len(writes) == 1:
        writes[0].place = LAST
        writes[0].describe(whole_request)
        return whole_request
    for place, write in enumerate(writes, PLACES - len(writes)):
        write.place = place
        write.describe(whole_request.success.add().txn)
    return whole_request


def results(writes: Sequence[Write], response: Any) -> list[TxnResult]:
    """The outcome of each write of a transaction, from etcd's ``TxnResponse``."""
    revision = response.header.revision
    if len(writes) == 1:
        return [TxnResult(response.succeeded, whole(revision))]
    out: list[TxnResult] = []
    place = PLACES
    for write, answer in zip(reversed(writes), reversed(response.responses), strict=True):
        if not answer.txn.succeeded:
            out.append(TxnResult(False, whole(revision)))
            continue
        place = write.place if write.puts else place - 1  # as etcd_revisions.events counts them
        out.append(TxnResult(True, revision * PLACES + place))
    out.reverse()
    return out


class Batches:
    """The order of writes: who goes when, and with whom. ``send`` takes writes to etcd in one transaction and returns the
    outcome of each."""

    def __init__(
        self, world: World, send: Callable[[Sequence[Write]], Awaitable[Sequence[TxnResult]]], patience: float
    ) -> None:
        """``patience``: seconds that a write waits for its turn before it fails; then etcd does not answer."""
        self._world, self._send, self._patience = world, send, patience
        self._on_the_way = 0
        self._waiting: list[Write] = []  # only while so many are on the way as may be
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._closed = False

    async def commit(self, write: Write) -> TxnResult:
        """Takes a write to etcd. Raises what ``send`` raises; then the same has befallen all writes that went with it."""
        if self._on_the_way < MAX_ON_THE_WAY or not write.sociable:
            self._on_the_way += 1
            try:
                return (await self._send([write]))[0]
            finally:
                self._on_the_way -= 1
                self._next()
        write.since = self._world.monotonic()
        write.answer = asyncio.get_running_loop().create_future()
        self._waiting.append(write)
        return await write.answer

    def _next(self) -> None:
        while self._waiting and self._on_the_way < MAX_ON_THE_WAY and not self._closed:
            if writes := self._choose():
                self._on_the_way += 1
                self._tasks[asyncio.ensure_future(self._carry(writes))] = None

    def _choose(self) -> list[Write]:
        """Takes from those that wait, the oldest first, what can go together."""
        too_old = self._world.monotonic() - self._patience
        company: list[Write] = []
        rest: list[Write] = []
        names: dict[str, None] = {}
        size = 0
        for write in self._waiting:
            answer = write.answer
            assert answer is not None
            if answer.done():  # whoever asked has gone
                continue
            if write.since < too_old:
                answer.set_exception(StoreUnavailable("etcd does not answer: nothing was written"))
                continue
            keys = write.keys()
            full = len(company) == MAX_WRITES or (company and size + write.size > MAX_BYTES)
            if full or any(key in names for key in keys):
                rest.append(write)
                continue
            company.append(write)
            size += write.size
            names.update(dict.fromkeys(keys))
        self._waiting = rest
        company.sort(key=lambda write: bool(write.puts))  # deletions first
        return company

    async def _together(self, writes: Sequence[Write]) -> Sequence[TxnResult]:
        """Sends the writes; in parts where one is refused for what others are: then nothing was written."""
        try:
            return await self._send(writes)
        except (StoreFull, TooLarge) as error:
            at = sum(1 for write in writes if not write.puts)  # a full etcd takes deletions, by themselves
            if isinstance(error, TooLarge) and at in (0, len(writes)):
                at = len(writes) // 2
            if at in (0, len(writes)):
                raise
        out: list[TxnResult] = []
        for part in (writes[:at], writes[at:]):
            try:
                out += await self._together(part)
            except (StoreFull, TooLarge) as error:
                _fail(part, error)
                out += [TxnResult(False, 0)] * len(part)  # which nobody sees
        return out

    async def _carry(self, writes: list[Write]) -> None:
        """Takes the writes to etcd, in a task of its own: whoever of them is cancelled does not end it for the others."""
        try:
            outcomes = await self._together(writes)
            for write, outcome in zip(writes, outcomes, strict=True):
                if write.answer is not None and not write.answer.done():
                    write.answer.set_result(outcome)
        except Exception as error:
            _fail(writes, error)
        except asyncio.CancelledError:
            _fail(writes, StoreUnavailable("the store is closed"))
            raise
        finally:
            self._on_the_way -= 1
            self._tasks.pop(asyncio.current_task(), None)  # type: ignore[arg-type]
            self._next()

    async def close(self) -> None:
        """Ends all that waits or is on the way; whether that was written is not known."""
        self._closed = True
        waiting, self._waiting = self._waiting, []
        _fail(waiting, StoreUnavailable("the store is closed"))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _fail(writes: Sequence[Write], error: Exception) -> None:
    """Tells all of them, each with an exception of its own: they are raised in several tasks."""
    for write in writes:
        if write.answer is not None and not write.answer.done():
            write.answer.set_exception(type(error)(*error.args))
