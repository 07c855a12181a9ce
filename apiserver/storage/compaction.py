"""Keeps the store's history short: what is older than two intervals goes."""

from __future__ import annotations

import logging

from apiserver.storage.store import FutureRevision, Store, StoreUnavailable
from navarch.world import World

log = logging.getLogger(__name__)


async def keep_compacted(world: World, store: Store, interval: float) -> None:
    """Every ``interval`` seconds compacts to where the store was one interval ago; runs until cancelled.

    So watches and lists may look back at least one interval, and continue tokens of long lists hold for that long.
    """
    last = 0
    while True:
        await world.sleep(interval)
        try:
            if last:
                await store.compact(last)
            last = await store.current_revision()
        except (StoreUnavailable, FutureRevision) as error:  # of a store that was put back to an older state
            last = 0
            log.warning("no compaction: %s", error)
