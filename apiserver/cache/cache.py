"""The watch cache: one watch over the store's whole keyspace feeds it, and it answers GET, LIST and WATCH.

Only navarch writes to the keyspace and all of it is watched, so every revision is an event: when the event of revision
R has come, everything up to R has, and no progress requests are needed. Handlers never put what they wrote into the
cache; they wait (:meth:`Cache.current`) until the watch has brought it. So there is one order of events for all.

:meth:`get`, :meth:`list` and :meth:`watch` do not wait and see one revision as a whole: a list and a watch that begin
in the same step of the event loop leave no gap.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import NamedTuple

from apiserver.cache.history import ADDED, BOOKMARK, Change, Event, History
from apiserver.cache.objects import (
    Entry,
    Extract,
    Indexed,
    Objects,
    Selector,
    extract_fields,
    extract_metadata,
    required_value,
)
from apiserver.cache.watchers import Backlog, Watcher, Watchers
from apiserver.storage.encrypted import check_readable
from apiserver.storage.store import (
    Batch,
    Compacted,
    FutureRevision,
    KeyValue,
    Store,
    StoreEvent,
    StoreRewound,
    StoreUnavailable,
    Unreadable,
)
from navarch.api.errors import Expired
from navarch.world import Backoff, World

__all__ = [
    "Cache", "Entry", "Event", "Extract", "FutureRevision", "Indexed", "Listing", "StoreUnavailable", "Watcher",
    "extract_fields", "extract_metadata",
]  # fmt: skip

log = logging.getLogger(__name__)


class Listing(NamedTuple):
    """Part or all of a list. ``revision`` is that of the list; ``remaining`` objects lie behind the last entry.

    With selectors ``remaining`` is only an upper bound; ``more`` is exact.
    """

    entries: list[Entry]
    revision: int
    more: bool = False
    remaining: int = 0


class _Resource:
    """All that the cache knows of one resource."""

    def __init__(self, objects: Objects, history: History) -> None:
        self.objects = objects
        self.history = history
        self.watchers = Watchers(objects.index)


class Cache:
    """See the module. ``resources``: for each key prefix how to read what is indexed; ``indexes``: for a prefix the
    selectable field that gets an index (pods: spec.nodeName).

    ``history_seconds``, ``history_least``, ``history_bytes``: how long a watch can start in the past (see History).
    ``buffer``: events that may wait for a watcher before it is dropped. ``wait_seconds``: how long :meth:`current`
    waits. ``bookmark_seconds``: how often watchers that want bookmarks get one. ``replay``:
    revisions of history that are taken from the store at the start.
    """

    def __init__(
        self,
        world: World,
        store: Store,
        *,
        resources: Mapping[str, Extract],
        indexes: Mapping[str, str] | None = None,
        history_seconds: float = 75.0,
        history_least: int = 1000,
        history_bytes: int = 64 << 20,
        buffer: int = 20_000,
        wait_seconds: float = 3.0,
        bookmark_seconds: float = 60.0,
        replay: int = 1000,
    ) -> None:
        self._world, self._store = world, store
        self._history_seconds, self._history_least, self._history_bytes = history_seconds, history_least, history_bytes
        self._buffer, self._wait_seconds, self._bookmark_seconds = buffer, wait_seconds, bookmark_seconds
        self._replay = replay
        self._resources: dict[str, _Resource] = {}
        self._rest: dict[str, KeyValue] = {}  # keys of no resource: custom ones that are not registered yet, others
        self._revision = 0  # everything up to here is in the cache; 0 until the first load
        self._acknowledged = 0
        self._loaded = asyncio.Event()
        self._load_until = 0  # the load is done when this revision is reached
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # heap by revision
        self._order = 0
        self.backlog = Backlog()
        self.rewound = asyncio.Event()  # the store went back; set until somebody clears it
        self._again = asyncio.Event()  # wakes who waits for the store
        store.on_rewind = self._rewind
        for prefix, extract in resources.items():
            self.add_resource(prefix, extract, (indexes or {}).get(prefix, ""))

    # Life

    async def run(self) -> None:
        """Keeps the cache up to date until cancelled; survives the loss of the store."""
        async with self._world.task_group() as group:
            group.start(self._follow(), "cache-follow")
            group.start(self._tick(), "cache-tick")

    async def wait_ready(self) -> None:
        """Waits for the first load."""
        await self._loaded.wait()

    @property
    def ready(self) -> bool:
        return self._loaded.is_set()

    @property
    def revision(self) -> int:
        """Everything up to this revision is in the cache."""
        return self._revision

    def add_resource(self, prefix: str, extract: Extract, index: str = "") -> None:
        """Serves one more resource from now on; what the store holds of it is there at once."""
        if prefix in self._resources:
            return
        objects = Objects(prefix, extract, index)
        resource = _Resource(objects, self._history(self._revision))
        self._resources[prefix] = resource
        mine = [key for key in self._rest if key.startswith(prefix)]
        for key in mine:
            self._set(resource, self._rest.pop(key))

    def check(self) -> None:
        """Raises AssertionError unless objects, indexes, histories and those that wait agree; for tests, after any step."""
        for prefix, resource in self._resources.items():
            resource.objects.check()
            if self.ready:
                resource.history.check(resource.objects, self._revision)
            assert not any(key.startswith(prefix) for key in self._rest), f"{prefix} is kept twice"
        assert all(revision > self._revision for revision, _, future in self._waiting if not future.done()), "waits in vain"

    def acknowledged(self, revision: int) -> None:
        """The caller's own write made ``revision``: :meth:`current` returns nothing older from now on."""
        self._acknowledged = max(self._acknowledged, revision)

    def remove_resource(self, prefix: str) -> None:
        """Stops serving a resource and ends its watches; its objects stay in the store."""
        resource = self._resources.pop(prefix, None)
        if resource is None:
            return
        for watcher in resource.watchers.all():
            watcher.close()
        for entry in resource.objects.select():
            key = prefix + entry.key
            self._rest[key] = KeyValue(key, entry.data, entry.revision, entry.created)

    # Reading

    async def current(self, min_revision: int | None = None) -> int:
        """Waits until the cache has the most recent state, or at least ``min_revision``; returns what it has reached.

        Raises FutureRevision if ``min_revision`` did not come in time, StoreUnavailable if the store does not answer.
        """
        target = 0
        while not target or not self._loaded.is_set():  # the store may be found rewound while we ask it
            if not self._loaded.is_set():
                try:
                    async with asyncio.timeout(self._wait_seconds):
                        await self._loaded.wait()
                except TimeoutError:
                    raise StoreUnavailable("the cache is being loaded") from None
            if min_revision is not None:
                target = min_revision
                break
            target = max(await self._store.current_revision(), self._acknowledged)
        if target > self._revision:
            try:
                async with asyncio.timeout(self._wait_seconds):
                    await self._reached(target)
            except TimeoutError:
                if min_revision is None:
                    raise StoreUnavailable(f"the cache is at {self._revision} and did not reach {target}") from None
                raise FutureRevision(f"Too large resource version: {target}, current: {self._revision}") from None
        return self._revision

    def is_current(self) -> bool:
        """Whether :meth:`current` would return at once, and without a question to the store."""
        if not self._loaded.is_set():
            return False
        revision = self._store.known_revision()
        return revision is not None and max(revision, self._acknowledged) <= self._revision

    def get(self, prefix: str, namespace: str | None, name: str) -> Entry | None:
        return self._resources[prefix].objects.get(f"{namespace}/{name}" if namespace else name)

    def count(self, prefix: str) -> int:
        """How many objects there are of a resource; 0 for one that is not known (any more)."""
        resource = self._resources.get(prefix)
        return 0 if resource is None else len(resource.objects)

    def list(
        self,
        prefix: str,
        namespace: str | None = None,
        *,
        labels: Selector | None = None,
        fields: Selector | None = None,
        start_after: str = "",
        limit: int = 0,
    ) -> Listing:
        """Entries in key order. ``start_after`` is an Entry.key; ``limit`` 0 means all."""
        objects = self._resources[prefix].objects
        matching = objects.select(namespace, labels, fields, start_after)
        return self._page(objects, matching, self._revision, namespace, limit)

    def _page(
        self,
        objects: Objects,
        matching: Iterator[Entry],
        revision: int,
        namespace: str | None,
        limit: int,
        past: Mapping[str, Entry | None] | None = None,
    ) -> Listing:
        entries = list(islice(matching, limit + 1 if limit else None))
        if not limit or len(entries) <= limit:
            return Listing(entries, revision)
        del entries[limit:]
        return Listing(entries, revision, True, objects.count_after(namespace, entries[-1].key, past))

    async def list_at(
        self,
        prefix: str,
        revision: int,
        namespace: str | None = None,
        *,
        labels: Selector | None = None,
        fields: Selector | None = None,
        start_after: str = "",
        limit: int = 0,
    ) -> Listing:
        """Like :meth:`list`, exactly at ``revision``: from here if the history goes back so far, else from the store.

        Raises Compacted, FutureRevision.
        """
        if revision > self._revision:
            await self.current(revision)
        resource = self._resources[prefix]
        objects = resource.objects
        if revision >= resource.history.floor:
            past = resource.history.before(revision)
            if past:
                matching = objects.select_past(past, namespace, labels, fields, start_after)
            else:
                matching = objects.select(namespace, labels, fields, start_after)
            return self._page(objects, matching, revision, namespace, limit, past)
        return await self._list_stored(objects, revision, namespace, labels, fields, start_after, limit)

    async def _list_stored(
        self,
        objects: Objects,
        revision: int,
        namespace: str | None,
        labels: Selector | None,
        fields: Selector | None,
        start_after: str,
        limit: int,
    ) -> Listing:
        prefix = objects.prefix
        under = f"{prefix}{namespace}/" if namespace else prefix
        after = prefix + start_after if start_after else ""
        stored = Objects(prefix, objects.extract)
        entries: list[Entry] = []
        size = limit and max(limit + 1, 500 if labels or fields else 0)
        while True:
            page = await self._store.list(under, start_after=after, revision=revision, limit=size)
            for item in page.items:
                stored.put(stored.entry(item.key[len(prefix) :], item.value, item.revision, item.created))
            entries += stored.select(None, labels, fields, after[len(prefix) :])
            if not page.more or len(entries) > limit > 0:
                break
            after = page.items[-1].key
        if not limit or len(entries) <= limit:
            return Listing(entries, revision)
        del entries[limit:]
        remaining = page.count - sum(1 for item in page.items if item.key[len(prefix) :] <= entries[-1].key)
        return Listing(entries, revision, True, remaining)

    def watch(
        self,
        prefix: str,
        namespace: str | None = None,
        name: str | None = None,
        *,
        labels: Selector | None = None,
        fields: Selector | None = None,
        from_revision: int | None = None,
        bookmarks: bool = False,
        initial_end: bool = False,
    ) -> Watcher:
        """Events above ``from_revision``; None: ADDED for all that is there now, then what follows.

        ``bookmarks``: tell from time to time how far the watch is. ``initial_end``: after the initial events send a
        bookmark that says so. Close the watcher when done with it. Raises Expired if that is too long ago.
        """
        resource = self._resources[prefix]
        indexed = required_value(fields, resource.objects.index)
        name = name or required_value(fields, "metadata.name")
        namespace = namespace or required_value(fields, "metadata.namespace")
        after = self._revision if from_revision is None else from_revision
        if after < resource.history.floor:
            raise Expired(f"too old resource version: {after} ({resource.history.floor})")
        watcher = Watcher(
            namespace, name, labels, fields, indexed, after, bookmarks, self._buffer, self.backlog,
            resource.watchers.discard,
        )
        if from_revision is None:
            matching = resource.objects.select(namespace, labels, fields, name=name)
            events = (Event(ADDED, entry, entry.revision) for entry in matching)
            watcher.start(chain(events, [Event(BOOKMARK, None, after, True)] if initial_end else []))
        else:
            events_after = (c.event_for(watcher.selects(c.old), watcher.selects(c.new)) for c in resource.history.after(after))
            watcher.start(event for event in events_after if event is not None)
        resource.watchers.add(watcher)
        return watcher

    # Following the store

    def _rewind(self) -> None:
        """Declares the state here untrue: nobody gets an answer until all is loaded again, and every watch ends with
        410, so that clients list again instead of waiting for revisions that come never, or come a second time."""
        log.error("the store was emptied or put back to an older state: loading everything again")
        self._loaded.clear()
        self._acknowledged = 0
        for resource in self._resources.values():
            for watcher in resource.watchers.all():
                watcher.fail(Expired("the store was put back to an older state"))
        waiting, self._waiting = self._waiting, []
        for _, _, future in waiting:
            if not future.done():
                future.set_exception(StoreRewound("the store was put back to an older state"))
        self.rewound.set()
        self._again.set()

    async def _follow(self) -> None:
        backoff = Backoff(self._world, first=0.05, most=2.0)
        while True:
            try:
                if not self._loaded.is_set():
                    self._load_until = await self._load()
                    self._note_loaded()
                async for batch in self._store.watch("", self._revision + 1, previous=False):
                    self._apply(batch)
                    backoff.reset()
            except Compacted as error:
                log.warning("the store's watch fell behind revision %d: loading everything again", error.revision)
                self._loaded.clear()
            except Unreadable as error:
                if not self._replay:
                    raise
                # What an older key wrote may have been written again since: only the present has to be readable.
                log.info("the store's history is left out: %s", error)
                self._replay = 0
                self._loaded.clear()
            except StoreRewound as error:
                log.warning("%s", error)
                if self._loaded.is_set():  # else the store has told us before
                    self._rewind()
            except StoreUnavailable as error:
                delay = backoff.next()
                log.warning("the store is unavailable (%s): trying again in %.2f s", error, delay)
                await self._pause(delay)

    async def _pause(self, seconds: float) -> None:
        """Waits, or until the store was found rewound: then it is there again."""
        self._again.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._again.wait()
        except TimeoutError:
            pass

    async def _load(self) -> int:
        """Takes everything from the store at one revision, and forgets the past: watches end, clients list again.

        That revision lies a little in the past, if the store still knows it: so the watch that follows fills the
        history, and clients can go on where they were before a restart. Returns the revision at which it is done.
        """
        now = await self._store.current_revision()
        try:
            page = await self._store.list("", revision=self._store.earlier(now, self._replay), limit=1000)
        except Compacted:
            page = await self._store.list("", limit=1000)
        revision = page.revision
        fresh: dict[str, _Resource] = {}
        for prefix, resource in self._resources.items():
            objects = Objects(prefix, resource.objects.extract, resource.objects.index)
            fresh[prefix] = _Resource(objects, self._history(revision))
        rest: dict[str, KeyValue] = {}
        while True:  # page by page: the values and what is made of them are never all there at once
            for item in page.items:
                kind_resource = _resource(fresh, item.key)
                if kind_resource is None or not self._set(kind_resource, item):
                    rest[item.key] = item
            if not page.more:
                break
            page = await self._store.list("", start_after=page.items[-1].key, revision=revision, limit=1000)
        self._take(fresh, rest)
        self._advance(revision)
        return max(now, revision)

    def _take(self, fresh: dict[str, _Resource], rest: dict[str, KeyValue]) -> None:
        """Puts what was loaded in the place of what was there, all in one step."""
        old, self._resources, self._rest = self._resources, fresh, rest
        for prefix, resource in old.items():
            if prefix not in fresh:
                self.add_resource(prefix, resource.objects.extract, resource.objects.index)
            for watcher in resource.watchers.all():
                watcher.close()
        for prefix in [prefix for prefix in fresh if prefix not in old]:  # gone while we loaded
            self.remove_resource(prefix)

    def _note_loaded(self) -> None:
        if self._revision >= self._load_until:
            self._loaded.set()

    def _apply(self, batch: Batch) -> None:
        now = self._world.monotonic()
        for event in batch.events:
            resource = _resource(self._resources, event.key)
            if resource is None:
                self._apply_rest(event)
            else:
                self._apply_event(resource, event, now)
        self._advance(batch.revision)
        if not self._loaded.is_set():
            self._note_loaded()

    def _apply_event(self, resource: _Resource, event: StoreEvent, now: float) -> None:
        objects = resource.objects
        key = event.key[len(objects.prefix) :]
        new: Entry | None = None
        if event.value is None:
            old = objects.remove(key)
            if old is None:
                return
        else:
            try:
                new = objects.entry(key, event.value, event.revision, event.created)
            except ValueError as error:
                check_readable(event.key, event.value)
                log.error("%s", error)
                return
            old = objects.put(new)
        change = Change(old, new, event.revision, now)
        resource.history.add(change)
        resource.watchers.tell(change)

    def _apply_rest(self, event: StoreEvent) -> None:
        if event.value is None:
            self._rest.pop(event.key, None)
        else:
            self._rest[event.key] = KeyValue(event.key, event.value, event.revision, event.created)

    def _set(self, resource: _Resource, item: KeyValue) -> bool:
        """Takes an object as it lies in the store; False if it is none."""
        objects = resource.objects
        try:
            objects.put(objects.entry(item.key[len(objects.prefix) :], item.value, item.revision, item.created))
        except ValueError as error:
            check_readable(item.key, item.value)
            log.error("%s", error)
            return False
        return True

    def _history(self, floor: int) -> History:
        return History(floor, seconds=self._history_seconds, least=self._history_least, most_bytes=self._history_bytes)

    # Progress

    def _advance(self, revision: int) -> None:
        self._revision = revision
        waiting = self._waiting
        while waiting and waiting[0][0] <= revision:
            future = heapq.heappop(waiting)[2]
            if not future.done():
                future.set_result(None)

    async def _reached(self, revision: int) -> None:
        self._order += 1
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (revision, self._order, future))
        await future

    async def _tick(self) -> None:
        """Bookmarks, each watcher in one of ten slots so that they do not all come at once; prunes the history."""
        slot = 0
        while True:
            await self._world.sleep(self._bookmark_seconds / 10)
            if not self._loaded.is_set():
                continue
            slot = (slot + 1) % 10
            now = self._world.monotonic()
            for resource in self._resources.values():
                resource.history.prune(now)
                for number, watcher in enumerate(resource.watchers.all()):
                    if watcher.bookmarks and number % 10 == slot:
                        watcher.bookmark(self._revision)


def _resource(resources: Mapping[str, _Resource], key: str) -> _Resource | None:
    """The resource whose prefix the key has: /registry/<resource>/ or /registry/<group>/<resource>/."""
    at = key.find("/", 1)
    while at != -1:
        if (resource := resources.get(key[: at + 1])) is not None:
            return resource
        at = key.find("/", at + 1)
    return None
