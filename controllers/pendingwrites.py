"""An overlay of what a controller wrote over a cache that does not show it yet.

Objects whose names the server chooses must not be made twice because the cache is behind. A controller that tells its
overlay what it wrote and deleted reads its own writes: a reconcile always sees the outcome of the one before.
Entries go when the cache has caught up, or after a minute (should an event be lost in a relist).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from controllers.controller import key
from navarch.api.types.base import Struct
from navarch.client.informer import Informer
from navarch.world import World

T = TypeVar("T", bound=Struct)
MAX_AGE = 60.0


def _version(obj: Any) -> int:
    text = obj.metadata.resource_version or "0"
    return int(text) if text.isdigit() else 0


class Overlay(Generic[T]):
    def __init__(self, informer: Informer[T], world: World) -> None:
        self._informer, self._world = informer, world
        self._written: dict[str, tuple[T, float]] = {}  # by key
        self._deleted: dict[str, float] = {}  # by uid
        informer.add_handler(self._forget_written)

    def wrote(self, obj: T) -> None:
        """The server answered a create or update with ``obj``."""
        cached = self._informer.get_key(key(obj))
        if cached is None or _version(cached) < _version(obj):
            self._written[key(obj)] = obj, self._world.monotonic()

    def deleted(self, obj: T) -> None:
        self._written.pop(key(obj), None)
        if self._informer.get_key(key(obj)) is not None:
            self._deleted[_uid(obj)] = self._world.monotonic()

    def over(self, cached: Iterable[T], belongs: Callable[[T], bool]) -> list[T]:
        """``cached`` brought up to date; newly written objects are added if they ``belong``."""
        now = self._world.monotonic()
        for written_key in [k for k, (_, at) in self._written.items() if now - at > MAX_AGE]:
            del self._written[written_key]
        for uid in [u for u, at in self._deleted.items() if now - at > MAX_AGE]:
            del self._deleted[uid]
        by_key = {key(obj): obj for obj in cached}
        for written_key, (obj, _) in self._written.items():
            if written_key in by_key or belongs(obj):
                by_key[written_key] = obj
        return [obj for obj in by_key.values() if _uid(obj) not in self._deleted]

    def _forget_written(self, kind: str, old: T | None, new: T) -> None:
        if kind == "DELETED":
            self._deleted.pop(_uid(new), None)
        written = self._written.get(key(new))
        if written is not None and _version(written[0]) <= _version(new):
            del self._written[key(new)]


def _uid(obj: Any) -> str:
    return obj.metadata.uid or ""
