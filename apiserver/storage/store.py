"""The store protocol: a revisioned, watchable key-value space, as much of etcd as navarch needs.

Every successful transaction that writes makes exactly one new revision, which all that it puts has; what it deletes beside
that may have lower ones of its own. Revisions grow with each write and never repeat, also over restarts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple, Protocol


class KeyValue(NamedTuple):
    key: str
    value: bytes
    revision: int  # of the last write (mod revision)
    created: int  # revision at which the key came into being; of a later state, that of the end of its transaction with others


class Put(NamedTuple):
    key: str
    value: bytes
    ttl: float = 0  # seconds to live, 0 for ever


class Compare(NamedTuple):
    """Holds if the key's mod revision is ``revision``, which the store has told of that key; 0: the key does not exist."""

    key: str
    revision: int


class Page(NamedTuple):
    items: list[KeyValue]
    revision: int  # at which the list was read
    more: bool  # there are keys behind the last one
    count: int  # type: ignore[assignment]  # keys under the prefix at that revision from ``start_after`` on


class TxnResult(NamedTuple):
    succeeded: bool
    revision: int  # of the write if it succeeded, else the current one


class StoreEvent(NamedTuple):
    """One change of one key. ``value`` is None for a deletion; ``previous`` is None for a creation."""

    key: str
    value: bytes | None
    revision: int
    previous: bytes | None
    created: int


class Batch(NamedTuple):
    """A delivery of a watch: all events of whole revisions, and the revision that is now complete."""

    events: Sequence[StoreEvent]
    revision: int


class Compacted(Exception):
    """The revision asked for is gone. ``revision`` is the oldest that is kept."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"revisions below {revision} are compacted")
        self.revision = revision


class FutureRevision(Exception):
    """The revision asked for does not exist yet."""


class StoreUnavailable(Exception):
    """The store did not answer; whether a write took place is unknown."""


class StoreRewound(StoreUnavailable):
    """The store is not as it was when it answered last: emptied, or put back to an older copy."""


class StoreFull(StoreUnavailable):
    """The store has no room; nothing was written. The text is for the client."""


class Unreadable(Exception):
    """A value is encrypted, and not with a key that this server has; the text says what to do."""


class TooLarge(Exception):
    """The transaction holds more bytes than a store takes."""


def nothing() -> None:
    """Does nothing: the callback where nobody wants to know."""


class Store(Protocol):
    kind: str  # "etcd", "sqlite" or "memory"
    on_rewind: Callable[[], None]
    """Called when the store was found rewound, before whoever found it gets StoreRewound."""

    async def get(self, key: str) -> tuple[KeyValue | None, int]:
        """The value now (linearizable) and the store's current revision."""
        ...

    async def list(self, prefix: str, *, start_after: str = "", revision: int = 0, limit: int = 0) -> Page:
        """Keys under ``prefix`` in order; ``revision`` 0 is now. Raises Compacted, FutureRevision.

        Any revision of a batch, of a page and of :meth:`current_revision` can be listed until it is compacted. One of a single
        write need not be (Compacted): the store may know the state after several writes only.
        """
        ...

    def earlier(self, revision: int, writes: int) -> int:
        """A revision that can be listed unless it is compacted, about ``writes`` writes before ``revision`` (one as well)."""
        ...

    async def txn(
        self, compares: Sequence[Compare], puts: Sequence[Put] = (), deletes: Sequence[str] = ()
    ) -> TxnResult:
        """Atomic: if all compares hold, all puts and deletes take place at one revision.

        No key may come twice, and there are limits (:func:`check_txn`). Deleting an absent key does nothing, and makes
        no revision if nothing else changes.
        Raises StoreUnavailable: the write may or may not have taken place; StoreFull: it has not.
        """
        ...

    def watch(self, prefix: str, from_revision: int, *, previous: bool = True) -> AsyncIterator[Batch]:
        """Events at ``from_revision`` and later, in order, none missed; ends only by cancellation or an exception.

        ``previous=False`` allows a store to leave out previous values (the watch cache holds them anyway).
        Raises Compacted if ``from_revision`` is no longer kept, StoreUnavailable if the store is lost, StoreRewound if it
        ends before the revision that was to be the last one seen.
        """
        ...

    async def compact(self, revision: int) -> None:
        """Forgets history below ``revision``; the values at ``revision`` stay."""
        ...

    async def current_revision(self) -> int:
        """A revision that every write acknowledged before this call, by any server, is at or below."""
        ...

    def known_revision(self) -> int | None:
        """The same, where that takes no question to the store; else None."""
        ...

    async def check(self) -> None:
        """Whether reads and writes would go through at this moment, and the store is still the same.

        Raises StoreUnavailable, StoreRewound or StoreFull with the reason.
        """
        ...

    async def close(self) -> None: ...


MAX_OPERATIONS = 120
"""Puts and deletes in one transaction (etcd allows 128 by default)."""
MAX_BYTES = 1_500_000
"""Bytes of values in one transaction (etcd allows 1.5 MiB by default, keys and framing included)."""


def check_txn(puts: Sequence[Put], deletes: Sequence[str]) -> None:
    """Raises ValueError if a key comes twice or there are too many, TooLarge if it is too many bytes."""
    if len(puts) + len(deletes) > MAX_OPERATIONS:
        raise ValueError(f"more than {MAX_OPERATIONS} keys in one transaction")
    if len(puts) + len(deletes) > 1:
        keys = [put.key for put in puts] + list(deletes)
        if len(dict.fromkeys(keys)) != len(keys):
            raise ValueError("a key comes twice in one transaction")
    size = sum([len(put.value) for put in puts])
    if size > MAX_BYTES:
        raise TooLarge(f"{size} bytes are too many for one transaction, the limit is {MAX_BYTES}")
