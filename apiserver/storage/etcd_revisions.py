"""One revision for each write, where etcd has one for all writes of a transaction. Pure.

A revision here is etcd's and a place: ``etcd's * 128 + place``. Writes that go to etcd together (see etcd_batches) take the
last places, 127 for the last one. So a write that goes alone has place 127, ``whole`` of an etcd revision is the
revision of its last write, and all that etcd tells of one revision is told of that one.

The place of a put lies in the value in front of what was to be stored, unless it is 127: then the value is stored as it is,
and what was stored before there were places has 127. A deletion has no value. Deletions come first in a transaction, and
are counted down from what follows them: everybody who sees the whole transaction numbers them alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apiserver.storage.store import KeyValue, StoreEvent
from protos import etcd_pb2 as pb

PLACES = 128
"""Writes that can have one etcd revision; etcd takes as many operations in one transaction."""
LAST = PLACES - 1
_MARK = b"\x01"  # begins neither JSON nor what is encrypted


def whole(revision: int) -> int:
    """The revision at which all of etcd's ``revision`` has happened."""
    return revision * PLACES + LAST


def etcds(revision: int) -> int:
    """The etcd revision in which ``revision`` is."""
    return revision // PLACES


def is_whole(revision: int) -> bool:
    return revision % PLACES == LAST


def wrap(value: bytes, place: int) -> bytes:
    """The value as etcd gets it."""
    if place == LAST and not value.startswith(_MARK):
        return value
    return b"%b%c%b" % (_MARK, place, value)


def unwrap(value: bytes) -> tuple[bytes, int]:
    """The value that was to be stored, and the place of the write."""
    if value.startswith(_MARK):
        return value[2:], value[1]
    return value, LAST


def key_value(kv: Any) -> KeyValue:
    """Our form of etcd's ``KeyValue``."""
    value, place = unwrap(kv.value)
    revision = kv.mod_revision * PLACES + place
    return KeyValue(kv.key.decode(), value, revision, _created(kv, revision))


def events(parts: Sequence[Any]) -> list[StoreEvent]:
    """Our form of etcd's ``Event``: all of one or more whole etcd revisions, in order."""
    out: list[StoreEvent] = []
    at, place = 0, PLACES
    for part in reversed(parts):
        kv = part.kv
        if kv.mod_revision != at:
            at, place = kv.mod_revision, PLACES
        previous = unwrap(part.prev_kv.value)[0] if part.HasField("prev_kv") else None
        if part.type == pb.Event.DELETE:
            # The end of a lease deletes any number of keys: those beyond the places share the first one.
            place = max(place - 1, 0)
            created = whole(part.prev_kv.create_revision) if previous is not None else 0
            out.append(StoreEvent(kv.key.decode(), None, at * PLACES + place, previous, created))
        else:
            value, place = unwrap(kv.value)
            revision = at * PLACES + place
            out.append(StoreEvent(kv.key.decode(), value, revision, previous, _created(kv, revision)))
    out.reverse()
    return out


def _created(kv: Any, revision: int) -> int:
    return revision if kv.create_revision == kv.mod_revision else whole(kv.create_revision)
