"""Expectations: what a controller has asked for and not seen yet.

Objects with generated names cannot be created twice by accident only if the controller waits until its cache shows
what it did. Before it creates or deletes it says what it expects; informer events tick the expectations off; until all
are ticked (or are so old that an event must have been lost) it leaves the number of objects alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from navarch.world import World

TIMEOUT = 300.0
DOUBT = 5.0
"""Seconds to wait for an event when a request was not answered: it may have been carried out, or not."""


@dataclass
class _Pending:
    creations: int = 0
    deletions: dict[str, None] = field(default_factory=dict)
    since: float = 0.0


class Expectations:
    def __init__(self, world: World) -> None:
        self.world = world
        self._pending: dict[str, _Pending] = {}

    def satisfied(self, key: str) -> bool:
        pending = self._pending.get(key)
        if pending is None or (pending.creations <= 0 and not pending.deletions):
            return True
        return self.world.monotonic() - pending.since > TIMEOUT

    def expect_creations(self, key: str, count: int) -> None:
        self._pending[key] = _Pending(creations=count, since=self.world.monotonic())

    def expect_deletions(self, key: str, objects: Iterable[str]) -> None:
        """``objects`` identifies each object that will be deleted, in any way that :meth:`deleted` is told too."""
        self._pending[key] = _Pending(deletions=dict.fromkeys(objects), since=self.world.monotonic())

    def created(self, key: str) -> None:
        """One creation was seen, or will not take place."""
        if pending := self._pending.get(key):
            pending.creations -= 1

    def doubted(self, key: str) -> None:
        """A creation was asked for and not answered. If no event tells of it soon it is taken not to have happened."""
        if pending := self._pending.get(key):
            pending.since = min(pending.since, self.world.monotonic() - TIMEOUT + DOUBT)

    def deleted(self, key: str, object_id: str) -> None:
        if pending := self._pending.get(key):
            pending.deletions.pop(object_id, None)

    def forget(self, key: str) -> None:
        self._pending.pop(key, None)
