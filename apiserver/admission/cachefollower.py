"""Plugins that act by objects of the API keep up with them through the cache."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from apiserver.cache.cache import Cache
from navarch.api.errors import Expired


async def follow(cache: Cache, prefix: str, changed: Callable[[], Awaitable[None]]) -> None:
    """Calls ``changed`` after objects under ``prefix`` have, for ever."""
    while True:
        await cache.wait_ready()
        try:
            watcher = cache.watch(prefix)
        except Expired:
            continue
        with watcher:
            await changed()  # what came before the watch began
            while await watcher.batch():
                await changed()
