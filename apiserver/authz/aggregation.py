"""Writes into aggregated ClusterRoles the rules that they gather, so that everybody can read them (authorization itself
looks them up and does not wait for this). Upstream this is a controller of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from apiserver.authz.rbac import Rbac
from apiserver.cache.cache import Cache
from apiserver.request import Context, WriteOptions, own_context
from apiserver.storage.store import StoreUnavailable
from navarch.api.errors import StatusError
from navarch.world import World

log = logging.getLogger(__name__)

Tree = dict[str, Any]
PREFIX = "/registry/clusterroles/"
PAUSE = 1.0  # after trouble, and when the watch ended
MANAGER = WriteOptions(field_manager="clusterrole-aggregation-controller")


class Roles(Protocol):
    """The verbs of ClusterRoles, as far as they are needed here."""

    async def change(
        self, context: Context, namespace: str, name: str, change: Callable[[Tree], Tree], options: WriteOptions
    ) -> Any: ...


async def keep_aggregated(world: World, cache: Cache, roles: Roles, rbac: Rbac) -> None:
    """Until cancelled: after each change of a ClusterRole mends the aggregated ones that it concerns."""
    while True:
        try:
            with cache.watch(PREFIX, from_revision=cache.revision) as watcher:
                await _mend(world, roles, rbac)
                while await watcher.batch():
                    await _mend(world, roles, rbac)
        except (StatusError, StoreUnavailable) as error:
            log.warning("cannot aggregate ClusterRoles: %s", error)
        await world.sleep(PAUSE)


async def _mend(world: World, roles: Roles, rbac: Rbac) -> None:
    for name, rules in rbac.aggregated().items():

        def change(old: Tree, rules: list[Tree] = rules) -> Tree:
            return old | {"rules": rules} if old.get("aggregationRule") else old

        await roles.change(own_context(world), "", name, change, MANAGER)
