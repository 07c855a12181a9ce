"""The first objects of every cluster: namespaces, roles, priority classes. Made, or mended, at each start."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from apiserver.authz.policy import cluster_role_bindings, cluster_roles, role_bindings, roles
from apiserver.authz.reconciliation import agrees, mend_binding, mend_role, protected
from apiserver.cache.cache import Cache
from apiserver.kinds.core.services_addresses import Addresses
from apiserver.kinds.networking.ipaddresses import reservation
from apiserver.kinds.scheduling.priorityclasses import SYSTEM_PRIORITIES
from apiserver.registry.ensure import MANAGER, copy, create, ensure
from apiserver.registry.resource import Resource
from apiserver.registry.resources import Resources
from apiserver.request import DeleteOptions, own_context
from apiserver.storage.store import StoreUnavailable
from navarch.api.errors import Conflict, NotFound
from navarch.api.times import format_time
from navarch.world import World

log = logging.getLogger(__name__)

Tree = dict[str, Any]
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
REPAIR_PERIOD = 180.0
RBAC = "rbac.authorization.k8s.io"
PRIORITY_TEXTS = {
    "system-cluster-critical": "Used for system critical pods that must run in the cluster, but can be moved to "
    "another node if necessary.",
    "system-node-critical": "Used for system critical pods that must not be moved from their current node.",
}


async def keep_repairing(world: World, cache: Cache, addresses: Addresses) -> None:
    """Until cancelled."""
    while True:
        await world.sleep(REPAIR_PERIOD)
        try:
            await repair(cache, addresses)
        except StoreUnavailable as error:
            log.warning("cannot check cluster IPs and node ports: %s", error)


async def repair(cache: Cache, addresses: Addresses) -> None:
    """Gives back cluster IPs and node ports that no Service has (a server died between taking one and using it)."""
    await cache.current()
    services = [entry.tree() for entry in cache.list("/registry/services/").entries]
    reserved = dict(filter(None, map(reservation, (entry.tree() for entry in cache.list("/registry/ipaddresses/").entries))))
    released = await addresses.repair(services, reserved)
    if released:
        log.info("gave back addresses and ports that no Service has: %s", ", ".join(released))


async def bootstrap(resources: Resources) -> None:
    """Makes the default objects that are missing, and gives default roles and bindings back what they lack."""
    await resources.backend.cache.current()
    namespaces = resources["", "namespaces"]
    for name in NAMESPACES:
        await ensure(namespaces, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    classes = resources["scheduling.k8s.io", "priorityclasses"]
    for name, value in SYSTEM_PRIORITIES.items():
        await ensure(classes, {
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
            "description": PRIORITY_TEXTS[name],
        })  # fmt: skip
    async with resources.backend.world.task_group() as group:  # the store takes many writes at once almost as soon as one
        for kind, objects, mend in (
            ("clusterroles", cluster_roles(), _mend_role), ("clusterrolebindings", cluster_role_bindings(), _mend_binding),
            ("roles", roles(), _mend_role), ("rolebindings", role_bindings(), _mend_binding),
        ):  # fmt: skip
            resource = resources[RBAC, kind]
            for default in objects:
                metadata = default["metadata"]
                present = resource.cached(metadata.get("namespace", ""), metadata["name"])
                if present is None or not agrees(present, copy(default)):
                    group.start(_agree(resource, default, mend), f"bootstrap-{kind}")


Mend = Callable[[Resource, Tree], Awaitable[None]]


async def _agree(resource: Resource, default: Tree, mend: Mend) -> None:
    if not await ensure(resource, default):
        await mend(resource, default)


async def _mend_role(resource: Resource, default: Tree) -> None:
    """Adds default rules that an older version did not have, or that somebody took away."""
    name, namespace = default["metadata"]["name"], default["metadata"].get("namespace", "")

    def change(old: Tree) -> Tree:
        if not protected(old) and mend_role(old, copy(default)):
            log.info("gave %s %s back what it had by default", default["kind"], name)
        return old

    try:
        await resource.change(own_context(resource.world), namespace, name, change, MANAGER)
    except NotFound:
        await create(resource, default)


async def _mend_binding(resource: Resource, default: Tree) -> None:
    """As above; a binding to another role is made anew, for the role of a binding cannot change."""
    name, namespace = default["metadata"]["name"], default["metadata"].get("namespace", "")
    other = ""  # uid of a binding to another role

    def change(old: Tree) -> Tree:
        nonlocal other
        other = ""
        if protected(old):
            return old
        if old["roleRef"] != default["roleRef"]:
            other = old["metadata"]["uid"]
        elif mend_binding(old, copy(default)):
            log.info("gave %s %s back what it had by default", default["kind"], name)
        return old

    try:
        await resource.change(own_context(resource.world), namespace, name, change, MANAGER)
        if not other:
            return
        await resource.delete(own_context(resource.world), namespace, name, DeleteOptions(uid=other))
        log.info("made %s %s anew: it was bound to another role", default["kind"], name)
    except (NotFound, Conflict):
        pass  # another server was faster
    await create(resource, default)  # the cache may not know yet that it is gone


def token_tracking(now: float) -> dict[str, Any]:
    """The ConfigMap that tells since when servers note which of the tokens in Secrets are used."""
    name = {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": name, "data": {"since": format_time(now)[:10]}}
