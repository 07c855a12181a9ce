"""How much CPU is used at present: two readings of the counters, and the time between them.

Nobody reads the counters while nobody asks. The first who asks waits a second for the second reading; whoever asks again
within a minute compares with the reading before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from navarch.world import World
from nodeagent.linux.cgroups import NodeUsage, Usage

MIN_PAUSE, MAX_PAUSE = 1.0, 60.0  # seconds between two readings


class Sample(NamedTuple):
    """``time`` in Unix seconds, ``moment`` on the monotonic clock."""

    time: float
    moment: float
    usage: NodeUsage


class Readings(NamedTuple):
    earlier: Sample
    later: Sample

    @property
    def window(self) -> float:
        """Seconds between them."""
        return self.later.moment - self.earlier.moment

    def nano_cores(self, before: Usage | None, now: Usage, started: float = 0.0) -> int | None:
        """The rate at which CPU is used; None while that is unknown. ``started``: when it began, for what is new."""
        if before is not None and before.cpu <= now.cpu:
            return int((now.cpu - before.cpu) / self.window * 1e9)
        age = self.later.time - started
        return int(now.cpu / age * 1e9) if started and 0 < age <= self.window else None


class Sampler:
    """``read`` reads the counters."""

    def __init__(self, world: World, read: Callable[[], Awaitable[NodeUsage]]) -> None:
        self._world, self._read = world, read
        self._last: Sample | None = None
        self._readings: Readings | None = None
        self._lock = asyncio.Lock()

    async def readings(self) -> Readings:
        """The newest two, the later at most a second old. All who ask at once share them."""
        async with self._lock:
            now = self._world.monotonic()
            if self._readings is not None and now - self._readings.later.moment < MIN_PAUSE:
                return self._readings
            if self._last is None or now - self._last.moment > MAX_PAUSE:
                self._last = await self.sample()
            if (rest := self._last.moment + MIN_PAUSE - self._world.monotonic()) > 0:
                await self._world.sleep(rest)
            self._readings = Readings(self._last, await self.sample())
            self._last = self._readings.later
            return self._readings

    async def sample(self) -> Sample:
        """The counters as they are now."""
        return Sample(self._world.now(), self._world.monotonic(), await self._read())
