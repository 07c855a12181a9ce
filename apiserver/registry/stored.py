"""An object in the store, and how a change of it is tried again: what all writing verbs stand on.

Every change is optimistic: take the object (from the cache, which may lag), compute the new one, and write it on the
condition that the object did not change meanwhile. An answer other than a successful write (an error, or "nothing to
do") that was computed from a cached object only counts if the store still has that very object. Whoever loses a race
queues up for the object, so that many writers of one object each need a few attempts, not many.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson

from apiserver.cache.encoded import encode, with_revision
from apiserver.registry.gate import Gate, internal
from apiserver.registry.reads import Backend, Reads
from apiserver.registry.strategy import Strategy, Tree
from apiserver.storage.store import Compare, Put, StoreFull, StoreUnavailable, TooLarge, TxnResult
from navarch.api.errors import StatusError, Timeout, precondition, resource_conflict

log = logging.getLogger(__name__)
CHANGE_ATTEMPTS = 100
MIN_BESIDE = 64 * 1024
"""Bytes of an object that is worked on beside the event loop: less takes up to 30 ms."""


class Stored(NamedTuple):
    """An object as the store has it: ``data`` in the stored shape, with its resource version."""

    data: bytes
    revision: int


class Lost(Exception):
    """Another writer changed the object first."""


class StoredObjects(Reads):
    """See the module."""

    def __init__(self, backend: Backend, strategy: Strategy) -> None:
        super().__init__(backend, strategy)
        self.gate = Gate(strategy)
        self._queues: dict[str, _Queue] = {}

    def key(self, namespace: str, name: str) -> str:
        return f"{self.prefix}{namespace}/{name}" if self.kind.namespaced else self.prefix + name

    async def with_stored(self, namespace: str, name: str, act: Callable[[Stored], Any]) -> Any:
        """Awaits ``act`` on the stored object until its answer is true of what the store has; see the module. Raises
        InternalError for an object that somebody stored in a form that nobody can read."""
        key = self.key(namespace, name)
        try:
            return await self._with_stored(key, namespace, name, act)
        except Lost:
            raise
        except Exception as error:
            if isinstance(error, StatusError) and error.http_code != 500:
                raise
            item, _ = await self.store.get(key)
            if item is None:  # the cache still had it
                raise self.not_found(name) from error
            if self.gate.reads(item.value):
                raise
            log.warning("%s cannot be read as it is stored: %s", key, error)
            raise internal(f'{self.resource} "{name}" cannot be read as it is stored') from error

    async def _with_stored(self, key: str, namespace: str, name: str, act: Callable[[Stored], Any]) -> Any:
        queue = self._queues.get(key)
        if queue is None:
            entry = self.cache.get(self.prefix, namespace, name)
            stored = await self._load(key, name) if entry is None else Stored(entry.data, entry.revision)
            try:
                return await self._attempt(key, name, act, stored, fresh=entry is None)
            except Lost:
                queue = self._queues.setdefault(key, _Queue())
        queue.users += 1
        try:
            async with queue.lock:
                for _ in range(CHANGE_ATTEMPTS):
                    latest = queue.latest
                    stored = await self._load(key, name) if latest is None else latest
                    try:
                        return await self._attempt(key, name, act, stored, fresh=latest is None)
                    except Lost:
                        queue.latest = None
            raise resource_conflict(self.resource, self.group, name)
        finally:
            queue.users -= 1
            if not queue.users:
                self._queues.pop(key, None)

    async def _attempt(self, key: str, name: str, act: Callable[[Stored], Any], stored: Stored, fresh: bool) -> Any:
        try:
            result, written = await act(stored)
        except Timeout:
            raise  # it may be written: a second attempt would do it again, or find itself in conflict with the first
        except StatusError:
            if fresh:
                raise
            if (await self._load(key, name)).revision == stored.revision:
                raise
            raise Lost from None
        if not written and not fresh and (await self._load(key, name)).revision != stored.revision:
            raise Lost
        return result

    async def _load(self, key: str, name: str) -> Stored:
        item, _ = await self.store.get(key)
        if item is None:
            raise self.not_found(name)
        return Stored(with_revision(item.value, item.revision), item.revision)

    async def served(self, stored: Stored) -> Stored:
        """The same state in the version that is served here, where somebody else has to convert it."""
        if self.converted is None:
            return stored
        return Stored(await self.converted.data(stored.data, stored.revision), stored.revision)

    def tree_of(self, stored: Stored) -> Tree:
        tree: Tree = orjson.loads(stored.data)
        return self.codec.served_tree(tree)

    async def _beside(self, size: int, work: Callable[..., Any], *arguments: Any) -> Any:
        """Does the work, of an object of ``size`` bytes: in a thread if it would hold up the loop for long."""
        return work(*arguments) if size < MIN_BESIDE else await self.backend.offload(size, work, *arguments)

    def check_preconditions(self, old: Tree, uid: str | None, version: str | None) -> None:
        """Raises Conflict unless the stored object has this uid and resourceVersion (where given)."""
        metadata = old["metadata"]
        name = metadata["name"]
        if uid and uid != metadata.get("uid"):
            why = precondition("UID", uid, metadata.get("uid"))
            raise resource_conflict(self.resource, self.group, name, why)
        if version and version != metadata["resourceVersion"]:
            raise resource_conflict(self.resource, self.group, name)

    async def _txn(self, compare: Compare, puts: Sequence[Put] = (), deletes: Sequence[str] = ()) -> TxnResult:
        try:
            result = await self.store.txn([compare], puts, deletes)
        except StoreFull as error:  # nothing was written; upstream passes etcd's words on as they are
            raise StatusError(str(error), code=500) from error
        except StoreUnavailable as error:
            # Whether it was written is unknown: the client has to look.
            raise Timeout(f"Timeout: request did not complete within the requested timeout - {error}") from error
        except TooLarge as error:
            raise StatusError("etcdserver: request is too large", code=500) from error
        if result.succeeded:
            self.cache.acknowledged(result.revision)
        return result

    async def _encode(self, obj: Tree) -> bytes:
        if self.converted is not None:
            return encode(await self.converted.stored(obj))
        return encode(self.codec.stored(obj))

    def _reply(self, obj: Tree, value: bytes | None, revision: int) -> bytes:
        """The reply for an object that was written at ``revision``; ``value`` is its stored encoding."""
        if value is not None and self.codec.same:
            return with_revision(value, revision)
        obj["metadata"]["resourceVersion"] = str(revision)
        return orjson.dumps(obj)

    async def _commit(self, namespace: str, name: str, new: Tree, stored: Stored, removals: list[Tree]) -> bytes:
        """Writes the new state, or removes the object if nothing keeps it any more; see :meth:`remove`. Raises Lost."""
        key = self.key(namespace, name)
        if self.is_free(new):
            await self.remove(namespace, name, new, stored, removals)
            return orjson.dumps(new)
        value = await self._encode(new)
        result = await self._txn(Compare(key, stored.revision), [Put(key, value, self.strategy.ttl)])
        if not result.succeeded:
            raise Lost
        if queue := self._queues.get(key):
            queue.latest = Stored(with_revision(value, result.revision), result.revision)
        return self._reply(new, value, result.revision)

    def is_free(self, obj: Tree) -> bool:
        """Whether an object whose deletion began can go: no finalizers, no grace left to be waited for."""
        metadata = obj["metadata"]
        return (
            bool(metadata.get("deletionTimestamp"))
            and not metadata.get("finalizers")
            and not metadata.get("deletionGracePeriodSeconds")
            and not self.strategy.is_held(obj)
        )

    async def remove(self, namespace: str, name: str, obj: Tree, stored: Stored, removals: list[Tree]) -> int:
        """Takes the object out of the store, and notes it in ``removals`` for :meth:`release`; returns the revision.

        Raises Lost.
        """
        key = self.key(namespace, name)
        result = await self._txn(Compare(key, stored.revision), deletes=[key])
        if not result.succeeded:
            raise Lost
        removals.append(obj)
        return result.revision

    async def release(self, removals: Sequence[Tree]) -> None:
        """Gives back what objects held that have left the store. Never while the queue for an object is held: a quota that
        counts quotas is written here, too, and two of them that go at once would wait for each other for ever."""
        for obj in removals:
            await self.strategy.after_delete(obj)
            await self.admission.removed(self.kind, obj)


class _Queue:
    """Writers of one contended object, one at a time. ``latest``: what the last of them wrote, which the next one takes for
    the stored state, as it does the cache's: that spares a question to the store."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.latest: Stored | None = None
