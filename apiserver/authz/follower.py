"""An index over one resource of the watch cache, brought up to date at the moment it is asked.

It holds a watcher, and takes what has gathered in it before it answers: no task of its own, and it never lags behind
the cache. If the watch ended (the cache was reloaded, or nobody asked for very long) it starts over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from apiserver.cache.cache import Cache, Watcher

Tree = dict[str, Any]


class Follower:
    """``put`` and ``drop`` are told of every object that came, changed or went, as trees; ``clear`` of a fresh start."""

    def __init__(
        self, cache: Cache, prefix: str, put: Callable[[Tree], None], drop: Callable[[Tree], None],
        clear: Callable[[], None],
    ) -> None:  # fmt: skip
        self._cache, self._prefix, self._put, self._drop, self._clear = cache, prefix, put, drop, clear
        self._watcher: Watcher | None = None

    def catch_up(self) -> None:
        """Applies all that happened since the last call."""
        watcher = self._watcher
        if watcher is None or watcher.closed:
            self._clear()
            watcher = self._watcher = self._cache.watch(self._prefix)
        for event in watcher.take():
            if event.entry is None:
                continue
            if event.type == "DELETED":
                self._drop(event.entry.tree())
            else:
                self._put(event.entry.tree())

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
