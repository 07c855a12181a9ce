"""CPU work that grows with what a client sent or asked for: small pieces are done at once, large ones beside the event loop.

A thread does not make Python faster, but the loop gets its turn every ``SWITCH_SECONDS`` (what CPython's GIL is asked
for), so nobody else waits until a body of a megabyte is read. One piece runs at a time in each of two lanes: so that a
few large bodies neither take the processor from the loop nor hold up many middling ones.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from navarch.world import World

T = TypeVar("T")

SWITCH_SECONDS = 0.001
SMALL = 16 * 1024
"""Bytes of JSON: what is done with them takes about 10 ms at most."""
LARGE = 256 * 1024
YAML_COST = 16
"""A byte of YAML takes as long to read as so many of JSON."""


class Offload:
    """``await offload(size, work, *arguments)``; ``size`` in bytes of JSON. ``work`` must not touch what the loop changes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._middling, self._large = asyncio.Lock(), asyncio.Lock()

    async def __call__(self, size: int, work: Callable[..., T], *arguments: Any) -> T:
        if size < SMALL:
            return work(*arguments)
        async with self._middling if size < LARGE else self._large:
            return await self._world.blocking(work, *arguments)


def share_fairly() -> None:
    """Has threads that compute give way to the event loop sooner than CPython's default of 5 ms. Of the whole process."""
    sys.setswitchinterval(SWITCH_SECONDS)
