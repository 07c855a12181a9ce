"""Is the store well? It is asked all the time, so that a health check has the answer at hand, and the log the reason."""

from __future__ import annotations

import asyncio
import logging

from apiserver.storage.store import Store, StoreUnavailable
from navarch.world import World

log = logging.getLogger(__name__)

PERIOD = 0.25  # seconds between two questions
PATIENCE = 0.75  # seconds for an answer
MISSES = 2  # answers that may not come before the store counts as stalled: so it is known within 2 s


class StoreHealth:
    """``trouble`` is what is wrong at this moment, "" if nothing is."""

    def __init__(self, world: World, store: Store) -> None:
        self.world, self.store = world, store
        self.trouble = ""
        self._missed = 0

    async def check(self) -> None:
        """Raises StoreUnavailable."""
        if self.trouble:
            raise StoreUnavailable(self.trouble)

    async def run(self) -> None:
        """Asks until it is cancelled. A store in memory needs no questions."""
        while self.store.kind != "memory":
            before, self.trouble = self.trouble, await self._ask()
            if self.trouble and not before:
                log.error("the store is in trouble: %s", self.trouble)
            elif before and not self.trouble:
                log.warning("the store is well again")
            await self.world.sleep(PERIOD)

    async def _ask(self) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                await self.store.check()
        except TimeoutError:
            self._missed += 1
            return f"{self.store.kind} does not answer" if self._missed >= MISSES else self.trouble
        except (StoreUnavailable, OSError) as error:
            self._missed = 0
            return str(error)
        self._missed = 0
        return ""
