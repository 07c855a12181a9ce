"""The Node's volumesInUse: volumes that the node has mounted or is about to. Who detaches waits until a volume is no longer
listed, so it is listed before anything is mounted, and until the driver has taken everything away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from navarch.api.types import core_v1

PATIENCE = 20.0  # seconds


class InUse:
    """``look_again`` makes the agent write its status. ``names`` is what it writes, sorted."""

    def __init__(self, look_again: Callable[[], None]) -> None:
        self._look_again = look_again
        self._mounted: dict[str, None] = {}
        self._wishes: dict[str, int] = {}  # reported, not on disk yet, or perhaps
        self._published: frozenset[str] = frozenset()  # as the API server has it
        self._news = asyncio.Event()

    @property
    def names(self) -> list[str]:
        return sorted({**self._mounted, **self._wishes})

    def observe(self, node: core_v1.Node) -> None:
        """The Node as the API server has it."""
        self._published = frozenset(node.status.volumes_in_use or ())
        self._news.set()

    async def report(self, name: str) -> None:
        """Waits until the API server has the volume listed. Raises TimeoutError."""
        self._wishes[name] = 1
        if name in self._published:
            return
        self._look_again()
        async with asyncio.timeout(PATIENCE):
            while name not in self._published:
                self._news.clear()
                await self._news.wait()

    def set(self, names: Iterable[str]) -> None:
        """The volumes that the node's records tell of. What was reported and has left no record was given up."""
        self._mounted, self._wishes = dict.fromkeys(names), {}
        if frozenset(self._mounted) != self._published:
            self._look_again()
