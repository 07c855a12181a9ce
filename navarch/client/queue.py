"""The work queue of a controller: keys to look at, each once however often it was asked for.

A key that is added while somebody works on it is handed out again after ``done``; so no two workers ever work on one
key, and no change is missed. Delayed keys wait in one heap with one timer, however many they are.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from navarch.world import World

K = TypeVar("K", bound=Hashable)


class QueueShutDown(Exception):
    """The queue was shut down and is empty."""


class WorkQueue(Generic[K]):
    """First in, first out. ``first_delay`` and ``most_delay`` (seconds) bound the exponential retry delays."""

    def __init__(self, world: World, first_delay: float = 0.005, most_delay: float = 60.0) -> None:
        self._world = world
        self._first_delay = first_delay
        self._most_delay = most_delay
        self._ready: deque[K] = deque()
        self._wanted: dict[K, None] = {}  # in _ready, or to be put there after done()
        self._working: dict[K, None] = {}  # handed out, not done yet
        self._failures: dict[K, int] = {}
        self._later: list[tuple[float, int, K]] = []  # heap of (monotonic time, sequence number, key)
        self._due: dict[K, float] = {}  # when each delayed key is due; the heap may hold later, stale entries
        self._sequence = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._getters: deque[asyncio.Future[None]] = deque()
        self._shut_down = False

    def __len__(self) -> int:
        """Keys that wait to be handed out (delayed ones not counted)."""
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being worked on; delayed keys may exist."""
        return not self._ready and not self._working

    def add(self, key: K) -> None:
        """Asks for ``key`` to be looked at as soon as a worker is free."""
        if self._shut_down or key in self._wanted:
            return
        self._wanted[key] = None
        if key not in self._working:
            self._ready.append(key)
            self._wake()

    def add_after(self, key: K, seconds: float) -> None:
        """Adds ``key`` in so many seconds; of several delays the shortest counts."""
        if self._shut_down:
            return
        if seconds <= 0:
            self.add(key)
            return
        at = self._world.monotonic() + seconds
        known = self._due.get(key)
        if known is not None and known <= at:
            return
        self._due[key] = at
        self._sequence += 1
        heapq.heappush(self._later, (at, self._sequence, key))
        self._set_timer()

    def add_rate_limited(self, key: K) -> None:
        """Adds ``key`` after a delay that doubles with every call until :meth:`forget`."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_after(key, min(self._most_delay, self._first_delay * 2 ** min(failures, 60)))

    def retries(self, key: K) -> int:
        """How often the key was added rate limited since it was last forgotten."""
        return self._failures.get(key, 0)

    def forget(self, key: K) -> None:
        """The work on ``key`` succeeded: its next failure waits the first delay again."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key; call :meth:`done` with it. Raises QueueShutDown."""
        while not self._ready:
            if self._shut_down:
                raise QueueShutDown
            waiter = asyncio.get_running_loop().create_future()
            self._getters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # the wake-up was ours: pass it on
                elif waiter in self._getters:
                    self._getters.remove(waiter)
                raise
        key = self._ready.popleft()
        del self._wanted[key]
        self._working[key] = None
        return key

    def done(self, key: K) -> None:
        """The worker is through with ``key``, well or not."""
        self._working.pop(key, None)
        if key in self._wanted:
            self._ready.append(key)
            self._wake()

    def shut_down(self) -> None:
        """Takes nothing more; what waits is still handed out, then ``get`` raises."""
        self._shut_down = True
        self._later.clear()
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._getters:
            self._wake()

    def _wake(self) -> None:
        while self._getters:
            waiter = self._getters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _set_timer(self) -> None:
        if not self._later:
            return
        at = self._later[0][0]
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        delay = max(0.0, at - self._world.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._timer = None
        # The loop's timers may fire a hair early: what is due within its resolution is due.
        now = self._world.monotonic() + 1e-6
        while self._later and self._later[0][0] <= now:
            at, _, key = heapq.heappop(self._later)
            if self._due.get(key) == at:
                del self._due[key]
                self.add(key)
        self._set_timer()
