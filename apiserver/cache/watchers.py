"""Watchers of a resource: a bounded buffer a watcher, and an index that finds those whom a change concerns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TypeVar

from apiserver.cache.history import BOOKMARK, Change, Event
from apiserver.cache.objects import Entry, Selector, field_values
from navarch.api.errors import StatusError

K = TypeVar("K")
MANY = 32  # watchers that one change concerns, from which on they are told in windows
WINDOW, MAX_WINDOW = 0.0003, 0.1  # seconds a watcher, and at most: so waking them takes at most a fifth of a core
MAX_BYTES = 32 << 20  # of objects that wait for one watcher
MAX_TOTAL = 256 << 20  # of objects that wait for all of them


class Backlog:
    """The bytes that wait for the watchers of a cache. An event that many wait for is there once, and counts once."""

    def __init__(self) -> None:
        self.bytes = 0
        self.watchers = 0  # for whom something waits

    def add(self, event: Event) -> int:
        """One more waits for the event. Returns its size."""
        size = len(event.entry.data) if event.entry is not None else 0
        if not event.waiters:
            self.bytes += size
        event.waiters += 1
        return size

    def remove(self, events: list[Event]) -> int:
        """One watcher less waits for each of them. Returns their size."""
        total = 0
        for event in events:
            event.waiters -= 1
            if event.entry is not None:
                size = len(event.entry.data)
                total += size
                if not event.waiters:
                    self.bytes -= size
        return total


class Watcher:
    """One watch. Iterate over it (``async for event in watcher``), or take all that is there by :meth:`batch`.

    It ends when it is closed: by :meth:`close` (or leaving its ``with``), by the cache when it was reloaded, or
    because it was too slow and its buffer overflowed. The client then watches again from the last revision it saw.
    """

    def __init__(
        self,
        namespace: str | None,
        name: str | None,
        labels: Selector | None,
        fields: Selector | None,
        indexed: str | None,
        after: int,
        bookmarks: bool,
        limit: int,
        backlog: Backlog,
        forget: Callable[[Watcher], None],
    ) -> None:
        self.namespace, self.name = namespace or None, name or None
        self.indexed = indexed  # value that the indexed field must have, if that is known
        self.after = after  # events at this revision and below are not wanted
        self.bookmarks = bookmarks
        self.closed = False
        self.overflowed = False
        self.error: StatusError | None = None  # why it ended, if its client is to be told
        self.on_overflow: Callable[[], None] | None = None
        self._labels = None if labels is None or labels.empty else labels
        self._fields = None if fields is None or fields.empty else fields
        self._limit = limit
        self._forget = forget
        self._backlog = backlog
        self._first: list[Event] = []  # what it begins with; the cache has these objects anyway
        self._buffer: list[Event] = []  # what came since
        self._bytes = 0  # of the objects in the buffer
        self._single: list[Event] = []  # taken from the buffer, reversed, for __anext__
        self._waiting: asyncio.Future[None] | None = None

    def selects(self, entry: Entry | None) -> bool:
        if entry is None:
            return False
        if self.namespace is not None and entry.namespace != self.namespace:
            return False
        if self.name is not None and entry.name != self.name:
            return False
        if self._labels is not None and not self._labels.matches(entry.labels):
            return False
        return self._fields is None or self._fields.matches(field_values(entry))

    def offer(self, change: Change, wake: bool = True) -> bool:
        """Buffers the change as this watcher sees it, if it does; without ``wake`` somebody has to :meth:`wake` it."""
        if change.revision <= self.after:
            return False
        event = change.event_for(self.selects(change.old), self.selects(change.new))
        if event is None:
            return False
        self._push(event, wake)
        return True

    def start(self, events: Iterable[Event]) -> None:
        """Queues the events that the watcher gets first, whatever their size."""
        self._first.extend(events)

    def bookmark(self, revision: int, initial_end: bool = False) -> None:
        """Tells the watcher that it has seen everything up to ``revision``."""
        if revision >= self.after:
            self._push(Event(BOOKMARK, None, revision, initial_end))

    def _push(self, event: Event, wake: bool = True) -> None:
        backlog = self._backlog
        if not self._buffer:
            backlog.watchers += 1
        self._buffer.append(event)
        self._bytes += backlog.add(event)
        if (
            len(self._buffer) + len(self._first) > self._limit
            or (self._bytes > MAX_BYTES and len(self._buffer) > 1)
            # Too much in all: whoever has more than its share is too slow.
            or (backlog.bytes > MAX_TOTAL and self._bytes * backlog.watchers >= backlog.bytes)
        ):
            self.overflowed = True
            self.close()
            if self.on_overflow is not None:
                self.on_overflow()
        elif wake:
            self.wake()

    def wake(self) -> None:
        """Lets the reader take what is in the buffer."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def close(self) -> None:
        """Ends the watch; what is still buffered is lost."""
        if not self.closed:
            self.closed = True
            self._first.clear()
            self._take_first(len(self._buffer))
            self._forget(self)
            self.wake()

    def fail(self, error: StatusError) -> None:
        """Ends the watch; the client is told why."""
        self.error = error
        self.close()

    async def batch(self, size: int = 0) -> list[Event]:
        """Waits for events and takes all there are, or as many as have ``size`` bytes together, but at least one; an empty
        list means that the watch ended. One reader only."""
        while not self._buffer and not self._first and not self.closed:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        if not size:
            return self.take()
        if not self._first:
            return self._take_first(_fitting(self._buffer, size))
        count = _fitting(self._first, size)
        events = self._first[:count]
        del self._first[:count]
        return events

    def take(self) -> list[Event]:
        """All events there are now, without waiting: for an index that catches up when it is asked."""
        first, self._first = self._first, []
        return first + self._take_first(len(self._buffer))

    def _take_first(self, count: int) -> list[Event]:
        """The first events of the buffer, which wait no longer."""
        if not count:
            return []
        events = self._buffer[:count]
        del self._buffer[:count]
        self._bytes -= self._backlog.remove(events)
        if not self._buffer:
            self._backlog.watchers -= 1
        return events

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> Event:
        if not self._single:
            self._single = await self.batch()
            self._single.reverse()
            if not self._single:
                raise StopAsyncIteration
        return self._single.pop()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _fitting(events: list[Event], size: int) -> int:
    """How many of the first events have ``size`` bytes together; at least one, if there is one."""
    for count, event in enumerate(events):
        if event.entry is not None:
            size -= len(event.entry.data)
        if size < 0:
            return max(count, 1)
    return len(events)


class Watchers:
    """The watchers of one resource, each in one bucket: by namespace and name, by indexed field, by namespace, or all.

    Buckets are dicts, not sets: watchers are told in the order in which they came.

    A change that concerns many watchers opens a window; what comes within it they are told together when it ends. To wake a
    reader, frame, encrypt and send costs many times what one more event in the same message does.
    """

    def __init__(self, index: str = "") -> None:
        self._index = index
        self._all: dict[Watcher, None] = {}
        self._namespaces: dict[str, dict[Watcher, None]] = {}
        self._names: dict[tuple[str | None, str], dict[Watcher, None]] = {}
        self._values: dict[str, dict[Watcher, None]] = {}
        self._window: asyncio.TimerHandle | None = None
        self._offered_to: dict[Watcher, None] = {}  # who was offered something within the window

    def add(self, watcher: Watcher) -> None:
        if watcher.name is not None:
            self._names.setdefault((watcher.namespace, watcher.name), {})[watcher] = None
        elif watcher.indexed is not None:
            self._values.setdefault(watcher.indexed, {})[watcher] = None
        elif watcher.namespace is not None:
            self._namespaces.setdefault(watcher.namespace, {})[watcher] = None
        else:
            self._all[watcher] = None

    def discard(self, watcher: Watcher) -> None:
        if watcher.name is not None:
            _discard(self._names, (watcher.namespace, watcher.name), watcher)
        elif watcher.indexed is not None:
            _discard(self._values, watcher.indexed, watcher)
        elif watcher.namespace is not None:
            _discard(self._namespaces, watcher.namespace, watcher)
        else:
            self._all.pop(watcher, None)

    def tell(self, change: Change) -> None:
        """Offers the change to those whom it may concern."""
        some = change.new or change.old
        assert some is not None
        buckets = [self._all]
        if self._namespaces and (bucket := self._namespaces.get(some.namespace)):
            buckets.append(bucket)
        if self._names:
            if bucket := self._names.get((some.namespace or None, some.name)):
                buckets.append(bucket)
            if some.namespace and (bucket := self._names.get((None, some.name))):
                buckets.append(bucket)
        if self._values:
            new = change.new.fields.get(self._index, "") if change.new else None
            old = change.old.fields.get(self._index, "") if change.old else None
            if new is not None and (bucket := self._values.get(new)):
                buckets.append(bucket)
            if old is not None and old != new and (bucket := self._values.get(old)):
                buckets.append(bucket)
        for bucket in buckets:
            if len(bucket) >= MANY:
                self._tell_many(list(bucket), change)
            elif bucket:
                for watcher in list(bucket):
                    watcher.offer(change)

    def _tell_many(self, watchers: list[Watcher], change: Change) -> None:
        if self._window is None:
            for watcher in watchers:
                watcher.offer(change)
            self._open_window(len(watchers))
            return
        waiting = self._offered_to
        for watcher in watchers:
            if watcher.offer(change, wake=False):
                waiting[watcher] = None

    def _end_window(self) -> None:
        waiting, self._offered_to, self._window = self._offered_to, {}, None
        if waiting:
            self._open_window(len(waiting))
            for watcher in waiting:
                watcher.wake()

    def _open_window(self, watchers: int) -> None:
        seconds = min(WINDOW * watchers, MAX_WINDOW)
        self._window = asyncio.get_running_loop().call_later(seconds, self._end_window)

    def all(self) -> list[Watcher]:
        watchers = list(self._all)
        for bucket in (*self._namespaces.values(), *self._names.values(), *self._values.values()):
            watchers += bucket
        return watchers


def _discard(buckets: dict[K, dict[Watcher, None]], key: K, watcher: Watcher) -> None:
    bucket = buckets.get(key)
    if bucket is not None:
        bucket.pop(watcher, None)
        if not bucket:
            del buckets[key]
