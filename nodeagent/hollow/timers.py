"""Many timers on one: what simulated nodes and pods wait for, in one heap, without a task for each.

A callback runs once, at its time or as soon after it as the loop comes round. Callbacks of one time run in the order
in which they were set. They must not wait.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable

from navarch.world import World

log = logging.getLogger(__name__)
SLACK = 1e-6  # loops may ring a hair early


class Timers:
    """Times are those of ``world.monotonic()``. Belongs to the event loop that sets the first timer."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._handle: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        self.at(self._world.monotonic() + max(0.0, seconds), callback)

    def at(self, when: float, callback: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, callback))
        self._set()

    def clear(self) -> None:
        """Forgets everything."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _set(self) -> None:
        first = self._heap[0][0]
        if self._handle is not None:
            if self._rings_at <= first:
                return
            self._handle.cancel()
        self._rings_at = first
        delay = max(0.0, first - self._world.monotonic())
        self._handle = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._handle = None
        now = self._world.monotonic() + SLACK
        while self._heap and self._heap[0][0] <= now:
            callback = heapq.heappop(self._heap)[2]
            try:
                callback()
            except Exception:
                log.exception("a timer's callback failed")
        if self._heap:
            self._set()
