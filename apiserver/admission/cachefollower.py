"""Plugins that act by objects of the API keep up with them through the cache."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from navarch.api.errors import Expired

if TYPE_CHECKING:
    from apiserver.server import APIServer


async def follow(server: APIServer, prefix: str, changed: Callable[[APIServer], Awaitable[None]]) -> None:
    """Calls ``changed`` after objects under ``prefix`` have, for ever."""
    while True:
        await server.cache.wait_ready()
        try:
            watcher = server.cache.watch(prefix)
        except Expired:
            continue
        with watcher:
            await changed(server)  # what came before the watch began
            while await watcher.batch():
                await changed(server)
