"""The objects of one resource as the cache holds them: encoded, in key order, with what selectors look at."""

from __future__ import annotations

import functools
import heapq
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import orjson
from sortedcontainers import SortedDict

from apiserver.cache.encoded import with_revision

NONE: Mapping[str, str] = {}


class Indexed(NamedTuple):
    """An object's data for selectors, besides its key. ``fields``: selectable fields besides name and namespace."""

    namespace: str
    labels: Mapping[str, str] = NONE
    fields: Mapping[str, str] = NONE


Extract = Callable[[bytes], Indexed]
"""Reads what is indexed out of an encoded object."""


class Selector(Protocol):
    """A label or field selector (navarch.api.selectors). ``exact``: what must have one given value."""

    @property
    def exact(self) -> Mapping[str, str]: ...

    @property
    def empty(self) -> bool: ...

    def matches(self, values: Mapping[str, str], /) -> bool: ...


def required_value(selector: Selector | None, field: str) -> str | None:
    """The value that ``field`` must have for the selector to match, if it says so; else None."""
    return None if selector is None or not field else selector.exact.get(field)


class Entry:
    """One state of one object. Never changed, so it can be shared by lists, history and watchers.

    ``data`` is its JSON with resourceVersion in place; ``key`` is the store's key without the resource's prefix. There may
    be 100,000 of them: what can be had from ``key`` or ``data``, or is the same in many entries, is not kept in each.
    """

    __slots__ = ("created", "data", "fields", "key", "labels", "namespace", "revision")

    def __init__(self, key: str, data: bytes, revision: int, created: int, indexed: Indexed) -> None:
        self.key = key
        self.data = data
        self.revision = revision
        self.created = revision if created == revision else created
        self.namespace = sys.intern(indexed.namespace)
        self.labels = _shared(tuple(indexed.labels.items())) if indexed.labels else NONE
        self.fields = _shared(tuple(indexed.fields.items())) if indexed.fields else NONE

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def uid(self) -> str:
        return _decode(self.data).metadata.uid or ""

    def at(self, revision: int) -> Entry:
        """The same state under another resourceVersion: what a deletion at ``revision`` shows."""
        indexed = Indexed(self.namespace, self.labels, self.fields)
        return Entry(self.key, with_revision(self.data, revision), revision, self.created, indexed)

    def tree(self) -> dict[str, Any]:
        """The object as a plain tree, a new one each time."""
        tree: dict[str, Any] = orjson.loads(self.data)
        return tree

    def __repr__(self) -> str:
        return f"Entry({self.key!r}, revision={self.revision})"


@functools.lru_cache(maxsize=8192)
def _shared(items: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """One dict for all who have the same labels or fields; nobody may change it."""
    return dict(items)


class _Metadata(msgspec.Struct, gc=False):
    namespace: str | None = ""
    uid: str | None = ""
    labels: dict[str, str] | None = None


class _Object(msgspec.Struct, gc=False):
    metadata: _Metadata


_decode = msgspec.json.Decoder(_Object).decode


def extract_metadata(data: bytes) -> Indexed:
    """The Extract of a resource without selectable fields: parses metadata only."""
    meta = _decode(data).metadata
    return Indexed(meta.namespace or "", meta.labels or NONE)


def extract_fields(fields: Callable[[dict[str, Any]], Mapping[str, str]], reads: Sequence[str] = ()) -> Extract:
    """An Extract that also asks ``fields`` (Strategy.fields).

    ``reads``: the paths that ``fields`` looks at, such as spec.nodeName; then only these are parsed, which costs a
    quarter. Without them ``fields`` gets the whole object.
    """
    decode = _part_decoder(reads) if reads else orjson.loads

    def extract(data: bytes) -> Indexed:
        tree = decode(data)
        meta = tree["metadata"]
        return Indexed(meta.get("namespace") or "", meta.get("labels") or NONE, fields(tree))

    return extract


def _part_decoder(paths: Sequence[str]) -> Callable[[bytes], dict[str, Any]]:
    """Decodes to a tree that holds nothing but these paths and what is indexed of metadata."""
    tree: dict[str, Any] = {}
    for path in (*paths, "metadata.namespace", "metadata.labels"):
        *above, last = path.split(".")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[last] = {}

    def struct(node: dict[str, Any]) -> Any:
        parts = [(f"f{n}", struct(below) | None if below else Any) for n, below in enumerate(node.values())]
        names = {f"f{n}": name for n, name in enumerate(node)}
        fields = [(name, type, msgspec.UNSET) for name, type in parts]
        return msgspec.defstruct("Part", fields, rename=names, gc=False)

    decode = msgspec.json.Decoder(struct(tree)).decode
    return lambda data: msgspec.to_builtins(decode(data))


class Objects:
    """All objects of one resource. ``index`` names the selectable field that has an index, "" for none."""

    def __init__(self, prefix: str, extract: Extract, index: str = "") -> None:
        self.prefix = prefix
        self.index = index
        self.extract = extract
        self._entries: SortedDict = SortedDict()  # key -> Entry
        self._indexed: dict[str, SortedDict] = {}  # value of the indexed field -> key -> Entry

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        entry: Entry | None = self._entries.get(key)
        return entry

    def entry(self, key: str, value: bytes, revision: int, created: int) -> Entry:
        """The Entry of a stored value. Raises ValueError if it is no object."""
        try:
            return Entry(key, with_revision(value, revision), revision, created, self.extract(value))
        except Exception as error:
            raise ValueError(f"{self.prefix}{key} cannot be read: {error}") from error

    def put(self, entry: Entry) -> Entry | None:
        """Takes the new state of an object; returns the old one."""
        old: Entry | None = self._entries.get(entry.key)
        self._entries[entry.key] = entry
        if self.index:
            value = entry.fields.get(self.index, "")
            if old is not None and (was := old.fields.get(self.index, "")) != value:
                self._unindex(was, entry.key)
            keys = self._indexed.get(value)
            if keys is None:
                keys = self._indexed[value] = SortedDict()
            keys[entry.key] = entry
        return old

    def remove(self, key: str) -> Entry | None:
        """Forgets an object that was deleted; returns its last state."""
        old: Entry | None = self._entries.pop(key, None)
        if old is not None and self.index:
            self._unindex(old.fields.get(self.index, ""), key)
        return old

    def _unindex(self, value: str, key: str) -> None:
        keys = self._indexed[value]
        del keys[key]
        if not keys:
            del self._indexed[value]

    def select(
        self,
        namespace: str | None = None,
        labels: Selector | None = None,
        fields: Selector | None = None,
        start_after: str = "",
        name: str | None = None,
    ) -> Iterator[Entry]:
        """Entries in key order that match everything given; goes through as few as the selectors allow."""
        name = name or required_value(fields, "metadata.name")
        namespace = namespace or required_value(fields, "metadata.namespace")
        value = required_value(fields, self.index)
        one = self._entries.get(f"{namespace}/{name}" if namespace else name) if name else None
        candidates: Iterable[Entry]
        if name and (namespace or one is not None):
            candidates = [one] if one is not None and one.key > start_after else []
        else:
            candidates = _range(self._entries if value is None else self._indexed.get(value), namespace, start_after)
            if name:
                candidates = (entry for entry in candidates if entry.name == name)
        return _matching(candidates, labels, fields)

    def select_past(
        self,
        past: Mapping[str, Entry | None],
        namespace: str | None = None,
        labels: Selector | None = None,
        fields: Selector | None = None,
        start_after: str = "",
    ) -> Iterator[Entry]:
        """As :meth:`select`, where ``past`` tells how those keys were that have changed since."""
        low = f"{namespace}/" if namespace else ""
        old_keys = sorted(key for key, entry in past.items() if entry and key > start_after and key.startswith(low))
        now = (entry for entry in _range(self._entries, namespace, start_after) if entry.key not in past)
        old = (entry for key in old_keys if (entry := past[key]) is not None)
        return _matching(heapq.merge(now, old, key=lambda entry: entry.key), labels, fields)

    def check(self) -> None:
        """Raises AssertionError unless keys and index are what the entries alone would make of them."""
        indexed: dict[str, dict[str, Entry]] = {}
        for key, entry in self._entries.items():
            assert entry.key == key, f"{entry.key} is kept under {key}"
            assert entry.created <= entry.revision, f"{key} is younger than its last change"
            if self.index:
                indexed.setdefault(entry.fields.get(self.index, ""), {})[key] = entry
        by_value = {value: dict(entries) for value, entries in self._indexed.items()}
        assert by_value == indexed, f"index {self.index} of {self.prefix}"

    def count_after(self, namespace: str | None, key: str, past: Mapping[str, Entry | None] | None = None) -> int:
        """How many objects lie behind ``key``, selectors aside; with ``past`` how many did."""
        low = f"{namespace}/" if namespace else ""
        end = self._entries.bisect_left(f"{namespace}0") if namespace else len(self._entries)
        count = max(0, int(end) - int(self._entries.bisect_right(max(low, key))))
        for changed, entry in (past or {}).items():
            if changed > key and changed.startswith(low):
                count += (entry is not None) - (changed in self._entries)
        return count


def _matching(entries: Iterable[Entry], labels: Selector | None, fields: Selector | None) -> Iterator[Entry]:
    if labels is not None and not labels.empty:
        entries = (entry for entry in entries if labels.matches(entry.labels))
    if fields is not None and not fields.empty:
        entries = (entry for entry in entries if fields.matches(field_values(entry)))
    return iter(entries)


def _range(entries: SortedDict | None, namespace: str | None, start_after: str) -> Iterator[Entry]:
    """Entries by key, of one namespace only if given, behind ``start_after``."""
    if not entries:
        return iter(())
    if not namespace and not start_after:
        return iter(entries.values())
    low, high = (f"{namespace}/", f"{namespace}0") if namespace else ("", None)  # "0" comes next to "/"
    beyond = bool(start_after) and start_after >= low
    return (entries[key] for key in entries.irange(start_after if beyond else low, high, (not beyond, False)))


def field_values(entry: Entry) -> dict[str, str]:
    """Every selectable field of an entry, as field selectors see them."""
    return {"metadata.name": entry.name, "metadata.namespace": entry.namespace, **entry.fields}
