"""Objects whose served shape somebody outside has to make: conversion webhooks. What was made is kept for a while.

All watchers of a version are told the same, so each state of an object is converted once for all of them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from apiserver.cache.cache import Entry
from apiserver.cache.encoded import encode, with_revision
from apiserver.cache.history import ADDED, DELETED, Event
from apiserver.cache.objects import Indexed
from apiserver.registry.codec import ConversionWebhook
from apiserver.registry.strategy import Strategy, Tree

KEPT_BYTES = 16 << 20
Identity = tuple[str, int]  # key, revision


class Converted:
    """The entries of a kind in the version that ``strategy`` serves."""

    def __init__(self, strategy: Strategy, webhook: ConversionWebhook) -> None:
        self.strategy, self._webhook = strategy, webhook
        self._api_version = strategy.kind.api_version
        self._cache: OrderedDict[Identity, Entry] = OrderedDict()
        self._bytes = 0
        self._running: dict[Identity, asyncio.Future[None]] = {}  # being converted for another caller

    async def entries(self, entries: Sequence[Entry], fresh: bool = False) -> list[Entry]:
        """The same states in the served version; ``fresh``: without what is kept. Raises StatusError."""
        foreign = {(e.key, e.revision): e for e in entries if self.strategy.codec.needs_webhook(e.data)}
        if not foreign:
            return list(entries)
        converted: dict[Identity, Entry] = {}
        while len(converted) < len(foreign):
            missing: list[Entry] = []
            waits: list[asyncio.Future[None]] = []
            for identity, entry in foreign.items():
                if identity in converted:
                    continue
                if not fresh and (cached := self._cache.get(identity)) is not None:
                    self._cache.move_to_end(identity)
                    converted[identity] = cached
                elif not fresh and (running := self._running.get(identity)) is not None:
                    waits.append(running)
                else:
                    missing.append(entry)
            if missing:
                for one in await self._convert(missing):
                    converted[one.key, one.revision] = one
            if waits:
                await asyncio.wait(dict.fromkeys(waits))
        return [converted.get((e.key, e.revision), e) for e in entries]

    async def _convert(self, entries: list[Entry]) -> list[Entry]:
        done = asyncio.get_running_loop().create_future()
        mine = {(e.key, e.revision): done for e in entries if (e.key, e.revision) not in self._running}
        self._running |= mine
        try:
            trees = await self._webhook.convert([e.tree() for e in entries], self._api_version)
        finally:
            for identity in mine:
                del self._running[identity]
            done.set_result(None)
        out = [self._entry(e, tree) for e, tree in zip(entries, trees, strict=True)]
        for entry in out:
            self._keep(entry)
        return out

    def _entry(self, entry: Entry, tree: Tree) -> Entry:
        fields = self.strategy.fields(tree) if self.strategy.selectable_fields else {}
        labels = (tree.get("metadata") or {}).get("labels") or {}
        indexed = Indexed(entry.namespace, labels, fields)
        return Entry(entry.key, with_revision(encode(tree), entry.revision), entry.revision, entry.created, indexed)

    def _keep(self, entry: Entry) -> None:
        identity = entry.key, entry.revision
        if (old := self._cache.pop(identity, None)) is not None:
            self._bytes -= len(old.data)
        self._cache[identity] = entry
        self._bytes += len(entry.data)
        while self._bytes > KEPT_BYTES:
            self._bytes -= len(self._cache.popitem(last=False)[1].data)

    async def data(self, data: bytes, revision: int) -> bytes:
        """One object as stored, in the served version."""
        entry = Entry("", data, revision, 0, Indexed(""))
        return (await self.entries([entry], fresh=True))[0].data

    async def stored(self, obj: Tree) -> Tree:
        """The object in the version in which it is stored."""
        return (await self._webhook.convert([obj], self._webhook.storage))[0]

    def values(self, entry: Entry) -> dict[str, Any]:
        """The values that field selectors look at, in the served version."""
        fields = self.strategy.fields(entry.tree()) if self.strategy.selectable_fields else {}
        return {"metadata.name": entry.name, "metadata.namespace": entry.namespace, **fields}


class ConvertedEvents:
    """The events of one watch in the served version. ``selects`` (fields of that version) may need to know what the
    client has seen: ``seen`` are the keys that it selected before."""

    def __init__(self, converted: Converted, selects: Callable[[dict[str, Any]], bool] | None, keys: Sequence[str]) -> None:
        self._converted, self._selects = converted, selects
        self._selected_keys = dict.fromkeys(keys)

    async def __call__(self, events: list[Event]) -> list[Event]:
        """Raises StatusError."""
        entries = await self._converted.entries([e.entry for e in events if e.entry is not None])
        rest = iter(entries)
        out = []
        for event in events:
            if event.entry is None:
                out.append(event)
                continue
            entry = next(rest)
            kind = event.type if self._selects is None else self._kind(event.type, entry)
            if kind:
                out.append(Event(kind, entry, event.revision))
        return out

    def _kind(self, kind: str, entry: Entry) -> str:
        assert self._selects is not None
        before = entry.key in self._selected_keys
        after = kind != DELETED and self._selects(self._converted.values(entry))
        if after:
            self._selected_keys[entry.key] = None
            return kind if before else ADDED
        self._selected_keys.pop(entry.key, None)
        return DELETED if before else ""
