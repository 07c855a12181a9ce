"""Keeps the store's history short: what is older than one interval goes."""

from __future__ import annotations

import logging

from apiserver.storage.store import Store, StoreUnavailable
from navarch.world import World

log = logging.getLogger(__name__)


async def keep_compacted(world: World, store: Store, interval: float = 300.0) -> None:
    """Every ``interval`` seconds compacts to where the store was one interval ago; runs until cancelled.

    So history of at least one interval stays, and continue tokens of long lists hold for that long.
    """
    last = 0
    while True:
        try:
            if last:
                await store.compact(last)
            last = await store.current_revision()
        except StoreUnavailable as error:
            log.warning("no compaction: %s", error)
        await world.sleep(interval)
