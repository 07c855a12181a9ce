"""The work queue of a controller: keys to look at, each once however often it was asked for.

A key that is added while somebody works on it is handed out again after ``done``; so no two workers ever work on one
key, and no change is missed. Delayed keys wait in one heap with one timer, however many they are.

No key can starve others, whatever its reconcile asks for: ``get`` always lets the event loop turn, what a worker asks for its
own key (``again``) comes after MIN_AGAIN at the earliest and ever later if it asks again and again, and no key is handed out
more than MAX_TURNS times in a second. Kubernetes relies on threads here; in one event loop a reconcile that has nothing to
wait for and asks for itself at once would stop everything else.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from navarch.world import World

K = TypeVar("K", bound=Hashable)

MIN_AGAIN, MAX_AGAIN = 0.01, 1.0
"""Seconds after which a key comes again at the earliest if its own worker asks for it: at first, and the most to which this
doubles while the worker goes on asking for less than MAX_AGAIN."""
MAX_TURNS, WINDOW = 50, 1.0
"""So many times a key is handed out within WINDOW seconds at most; then it waits for the next ones."""
EARLY = 1e-6
"""Seconds by which the event loop's timers may be early: what is due within them is due."""
MAX_TIMER = 3600.0
"""Seconds for which the event loop's timer is set at most: far-off times do not fit into its numbers."""


class QueueShutDown(Exception):
    """The queue was shut down and is empty."""


class WorkQueue(Generic[K]):
    """First in, first out. ``first_delay`` and ``most_delay`` (seconds) bound the exponential retry delays."""

    def __init__(self, world: World, first_delay: float = 0.005, most_delay: float = 60.0) -> None:
        self._world = world
        self._first_delay = first_delay
        self._most_delay = most_delay
        self._ready: deque[K] = deque()
        self._to_do: dict[K, None] = {}  # in _ready, or to be put there after done()
        self._working: dict[K, None] = {}  # handed out, not done yet
        self._failures: dict[K, int] = {}
        self._later: list[tuple[float, int, K]] = []  # heap of (monotonic time, sequence number, key)
        self._due: dict[K, float] = {}  # when each delayed key is due; the heap may hold later, stale entries
        self._sequence = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._getters: deque[asyncio.Future[None]] = deque()
        self._shut_down = False
        self._soon: dict[K, int] = {}  # how often in a row a worker wanted its key again in less than MAX_AGAIN
        self._window_began = 0.0
        self._turns: dict[K, int] = {}  # how often each key was handed out since then
        self.slowed = 0  # how often a key had to wait because it came too often

    def __len__(self) -> int:
        """Keys that wait to be handed out (delayed ones not counted)."""
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being worked on; delayed keys may exist."""
        return not self._ready and not self._working

    def add(self, key: K) -> None:
        """Asks for ``key`` to be looked at as soon as a worker is free."""
        if self._shut_down or key in self._to_do:
            return
        if self._turns.get(key, 0) >= MAX_TURNS and self._too_often(key):
            self.slowed += 1
            self._delay(key, self._window_began + WINDOW - self._world.monotonic())
            return
        self._to_do[key] = None
        if key not in self._working:
            self._ready.append(key)
            self._wake()

    def add_after(self, key: K, seconds: float) -> None:
        """Adds ``key`` in so many seconds; of several delays the shortest counts. Any number will do: one that is not above 0,
        or none (NaN), is now."""
        if self._shut_down:
            return
        if seconds > 0:
            self._delay(key, seconds)
        else:
            self.add(key)

    def again(self, key: K, seconds: float | None) -> None:
        """The worker's own wish after it has looked at ``key``: to look again in so many seconds (None: it has none)."""
        if seconds is None or seconds >= MAX_AGAIN:
            self._soon.pop(key, None)
        if seconds is None or self._shut_down:
            return
        if not seconds >= MAX_AGAIN:
            repeats = self._soon.get(key, 0)
            self._soon[key] = repeats + 1
            least = min(MAX_AGAIN, MIN_AGAIN * 2 ** min(repeats, 10))
            seconds = seconds if seconds > least else least
        self._delay(key, seconds)

    def _delay(self, key: K, seconds: float) -> None:
        at = self._world.monotonic() + seconds
        earlier = self._due.get(key)
        if at == math.inf or (earlier is not None and earlier <= at):
            return
        self._due[key] = at
        self._sequence += 1
        heapq.heappush(self._later, (at, self._sequence, key))
        self._set_timer()

    def _too_often(self, key: K) -> bool:
        """Whether the key has had its turns of this second; begins a new one when it is over."""
        now = self._world.monotonic()
        # A window ends so early that what waits for its end never finds it open: on virtual time, where the clock stands
        # still in a turn of the loop, that key would be delayed and due again without end.
        if now - self._window_began >= WINDOW - 2 * EARLY:
            self._window_began = now
            self._turns.clear()
        return self._turns.get(key, 0) >= MAX_TURNS

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
        """The next key; call :meth:`done` with it. Raises QueueShutDown. Other tasks run before it returns."""
        await asyncio.sleep(0)
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
        del self._to_do[key]
        self._working[key] = None
        turns = self._turns.get(key, 0) + 1
        if turns == 1 and len(self._turns) >= MAX_TURNS:
            self._too_often(key)  # so that the count of keys that came once does not grow for ever
        self._turns[key] = turns
        return key

    def done(self, key: K) -> None:
        """The worker is through with ``key``, well or not."""
        if key not in self._working:
            return
        del self._working[key]
        if key in self._to_do:
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
        delay = min(MAX_TIMER, max(0.0, at - self._world.monotonic()))
        self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._world.monotonic() + EARLY
        while self._later and self._later[0][0] <= now:
            at, _, key = heapq.heappop(self._later)
            if self._due.get(key) == at:
                del self._due[key]
                self.add(key)
        self._set_timer()

    def check(self) -> None:
        """Raises AssertionError unless each key is where it belongs, once."""
        ready = set(self._ready)
        assert len(ready) == len(self._ready), "a key is ready twice"
        assert ready == {key for key in self._to_do if key not in self._working}, "ready is what is to be done and not in work"
        timers = {(at, key) for at, _, key in self._later}
        assert all((at, key) in timers for key, at in self._due.items()), "a delayed key has no timer"
        assert not self._later or self._timer is not None, "nobody will ring"
