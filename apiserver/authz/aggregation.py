"""Writes into aggregated ClusterRoles the rules that they gather, so that everybody can read them (authorization itself
looks them up and does not wait for this). Upstream this is a controller of its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from apiserver.request import WriteOptions
from apiserver.storage.store import StoreUnavailable
from navarch.api.errors import StatusError

if TYPE_CHECKING:
    from apiserver.authz.rbac import Rbac
    from apiserver.server import APIServer

log = logging.getLogger(__name__)

Tree = dict[str, Any]
PREFIX = "/registry/clusterroles/"
PAUSE = 1.0  # after trouble, and when the watch ended
MANAGER = WriteOptions(field_manager="clusterrole-aggregation-controller")


async def keep_aggregated(server: APIServer, rbac: Rbac) -> None:
    """Until cancelled: after each change of a ClusterRole mends the aggregated ones that it concerns."""
    while True:
        try:
            with server.cache.watch(PREFIX, from_revision=server.cache.revision) as watcher:
                await _mend(server, rbac)
                while await watcher.batch():
                    await _mend(server, rbac)
        except (StatusError, StoreUnavailable) as error:
            log.warning("cannot aggregate ClusterRoles: %s", error)
        await server.world.sleep(PAUSE)


async def _mend(server: APIServer, rbac: Rbac) -> None:
    roles = server.resource("rbac.authorization.k8s.io", "clusterroles")
    for name, rules in rbac.aggregated().items():

        def change(old: Tree, rules: list[Tree] = rules) -> Tree:
            return old | {"rules": rules} if old.get("aggregationRule") else old

        await roles.change(server.context(), "", name, change, MANAGER)
