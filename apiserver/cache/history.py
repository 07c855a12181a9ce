"""The recent past of one resource: changes kept so that a watch can start at an older revision.

What is older than the floor is 410 Expired: cache.py says so to a watch, registry/paging.py to a list.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

from apiserver.cache.objects import Entry, Objects

ADDED, MODIFIED, DELETED, BOOKMARK = "ADDED", "MODIFIED", "DELETED", "BOOKMARK"


class Event:
    """A change as a watcher gets it; shared by all that get the same.

    ``entry`` has the event's revision as resourceVersion (a DELETED object too) and is None for a BOOKMARK;
    ``initial_end`` marks the bookmark that ends the initial events.
    """

    __slots__ = ("entry", "initial_end", "revision", "type", "waiters")

    def __init__(self, type: str, entry: Entry | None, revision: int, initial_end: bool = False) -> None:
        self.type = type
        self.entry = entry
        self.revision = revision
        self.initial_end = initial_end
        self.waiters = 0  # watchers for whom it waits

    @property
    def frame(self) -> bytes:
        """The event as a line of JSON. Not for bookmarks: they name a kind, which only the caller knows."""
        return _frame(self)

    def __repr__(self) -> str:
        return f"Event({self.type}, {self.entry}, {self.revision})"


@lru_cache(maxsize=64)
def _frame(event: Event) -> bytes:
    """Built once for all watchers, who are told at about the same time; the history must not keep a second copy."""
    assert event.entry is not None
    return b'{"type":"%b","object":%b}\n' % (event.type.encode(), event.entry.data)


class Change:
    """One change of one object, and the at most three ways in which watchers see it."""

    __slots__ = ("_added", "_deleted", "_modified", "new", "old", "revision", "time")

    def __init__(self, old: Entry | None, new: Entry | None, revision: int, time: float) -> None:
        self.old = old
        self.new = new
        self.revision = revision
        self.time = time  # monotonic seconds when the cache learned of it
        self._added: Event | None = None
        self._modified: Event | None = None
        self._deleted: Event | None = None

    @property
    def key(self) -> str:
        some = self.new or self.old
        assert some is not None
        return some.key

    @property
    def size(self) -> int:
        """Bytes that the history holds because of it, about: the old state, which nobody else needs."""
        return len(self.old.data) if self.old is not None else 200

    def event_for(self, before: bool, after: bool) -> Event | None:
        """The event for a watcher that selected the object ``before`` and selects it ``after`` the change."""
        if after:
            if before:
                if self._modified is None:
                    self._modified = Event(MODIFIED, self.new, self.revision)
                return self._modified
            if self._added is None:
                self._added = Event(ADDED, self.new, self.revision)
            return self._added
        if before:
            if self._deleted is None:
                assert self.old is not None
                self._deleted = Event(DELETED, self.old.at(self.revision), self.revision)
            return self._deleted
        return None


class History:
    """The changes of one resource above revision ``floor``, in order; none is missing.

    A change stays for ``seconds``, and longer while it is among the newest ``least``; but never more stay than
    ``most_bytes`` of objects.
    """

    def __init__(self, floor: int, *, seconds: float, least: int, most_bytes: int) -> None:
        self.floor = floor
        self._seconds, self._least, self._most_bytes = seconds, least, most_bytes
        self._bytes = 0
        self._changes: deque[Change] = deque()

    def __len__(self) -> int:
        return len(self._changes)

    def add(self, change: Change) -> None:
        self._changes.append(change)
        self._bytes += change.size
        self.prune(change.time)

    def prune(self, now: float) -> None:
        """Drops what is too old or too much."""
        changes, oldest = self._changes, now - self._seconds
        while self._bytes > self._most_bytes or (len(changes) > self._least and changes[0].time < oldest):
            change = changes.popleft()
            self._bytes -= change.size
            self.floor = change.revision

    def check(self, objects: Objects, revision: int) -> None:
        """Raises AssertionError unless the changes lie above the floor, follow one another and lead to ``objects``, which are
        as of ``revision``."""
        states: dict[str, Entry | None] = {}
        last = self.floor
        for change in self._changes:
            assert last <= change.revision <= revision, f"a change at {change.revision} after {last}, by {revision}"
            last = change.revision
            if change.key in states:
                assert states[change.key] is change.old, f"{change.key} was something else before {change.revision}"
            states[change.key] = change.new
        for key, entry in states.items():
            assert objects.get(key) is entry, f"{key} is not what its last change made of it"
        assert self._bytes == sum(change.size for change in self._changes), "the sizes of the changes"

    def before(self, revision: int) -> dict[str, Entry | None]:
        """The changes after ``revision``, which must not be below the floor: key -> its state at ``revision``."""
        past: dict[str, Entry | None] = {}
        for change in self.after(revision):
            past.setdefault(change.key, change.old)
        return past

    def after(self, revision: int) -> Iterator[Change]:
        """Changes above ``revision``, which must not be below the floor."""
        if not self._changes or self._changes[-1].revision <= revision:
            return iter(())
        # A deque's middle is slow to index; watchers mostly start near its end, so count back from there.
        newer = 0
        for change in reversed(self._changes):
            if change.revision <= revision:
                break
            newer += 1
        return islice(self._changes, len(self._changes) - newer, None)
