"""What every cluster has from its first second: namespaces, roles, priority classes. Made, or mended, at each start."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from apiserver.authz.aggregation import keep_aggregated
from apiserver.authz.policy import cluster_role_bindings, cluster_roles, role_bindings, roles
from apiserver.authz.reconciliation import agrees, mend_binding, mend_role, protected
from apiserver.kinds.scheduling.priorityclasses import SYSTEM_PRIORITIES
from apiserver.request import DeleteOptions, WriteOptions
from apiserver.storage.store import StoreUnavailable
from navarch.api.errors import AlreadyExists, Conflict, NotFound

if TYPE_CHECKING:
    from apiserver.authz.rbac import Rbac
    from apiserver.kinds.core.services_addresses import Addresses
    from apiserver.registry.resource import Resource
    from apiserver.server import APIServer

log = logging.getLogger(__name__)

Tree = dict[str, Any]
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
DEFAULT_PORT = 6443
REPAIR_PERIOD = 180.0
RBAC = "rbac.authorization.k8s.io"
MANAGER = WriteOptions(field_manager="kube-apiserver")
PRIORITY_TEXTS = {
    "system-cluster-critical": "Used for system critical pods that must run in the cluster, but can be moved to "
    "another node if necessary.",
    "system-node-critical": "Used for system critical pods that must not be moved from their current node.",
}


def add_bootstrap(server: APIServer, addresses: Addresses, rbac: Rbac) -> None:
    """Has the server do all this before it is ready, and keep right after what has to be kept: default/kubernetes, the
    allocators, the rules of aggregated roles."""
    from apiserver.bootstrap.kubernetesservice import KubernetesService

    config = server.config
    where = config.advertise_address or config.bind_addresses[0]
    published = KubernetesService(server, addresses.addresses.first, where, config.secure_port or DEFAULT_PORT)

    async def prepare(server: APIServer) -> None:
        await repair(server, addresses)
        await bootstrap(server)
        await published.prepare()

    async def publish(server: APIServer) -> None:
        await published.run()

    async def keep_repairing(server: APIServer) -> None:
        while True:
            await server.world.sleep(REPAIR_PERIOD)
            try:
                await repair(server, addresses)
            except StoreUnavailable as error:
                log.warning("cannot check cluster IPs and node ports: %s", error)

    server.before_ready.append(prepare)

    async def aggregate(server: APIServer) -> None:
        await keep_aggregated(server, rbac)

    server.background += [publish, keep_repairing, aggregate]


async def repair(server: APIServer, addresses: Addresses) -> None:
    """Gives back cluster IPs and node ports that no Service has (a server died between taking one and using it)."""
    await server.cache.current()
    services = [entry.tree() for entry in server.cache.list("/registry/services/").entries]
    released = await addresses.repair(services)
    if released:
        log.info("gave back addresses and ports that no Service has: %s", ", ".join(released))


async def bootstrap(server: APIServer) -> None:
    """Makes the default objects that are missing, and gives default roles and bindings back what they lack."""
    await server.cache.current()
    namespaces = server.resource("", "namespaces")
    for name in NAMESPACES:
        await ensure(server, namespaces, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    classes = server.resource("scheduling.k8s.io", "priorityclasses")
    for name, value in SYSTEM_PRIORITIES.items():
        await ensure(server, classes, {
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
            "description": PRIORITY_TEXTS[name],
        })  # fmt: skip
    async with server.world.task_group() as group:  # the store takes many writes at once almost as soon as one
        for kind, objects, mend in (
            ("clusterroles", cluster_roles(), _mend_role), ("clusterrolebindings", cluster_role_bindings(), _mend_binding),
            ("roles", roles(), _mend_role), ("rolebindings", role_bindings(), _mend_binding),
        ):  # fmt: skip
            resource = server.resource(RBAC, kind)
            for wanted in objects:
                metadata = wanted["metadata"]
                found = resource.cached(metadata.get("namespace", ""), metadata["name"])
                if found is None or not agrees(found, copy(wanted)):
                    group.start(_agree(server, resource, wanted, mend), f"bootstrap-{kind}")


Mend = Callable[["APIServer", "Resource", Tree], Awaitable[None]]


async def _agree(server: APIServer, resource: Resource, wanted: Tree, mend: Mend) -> None:
    if not await ensure(server, resource, wanted):
        await mend(server, resource, wanted)


async def ensure(server: APIServer, resource: Resource, obj: Tree) -> bool:
    """Creates an object unless it exists; whether it was created."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace", "")
    if resource.cached(namespace, metadata["name"]) is not None:
        return False
    return await _create(server, resource, obj)


async def _create(server: APIServer, resource: Resource, obj: Tree) -> bool:
    try:
        await resource.create(server.context(), obj["metadata"].get("namespace", ""), copy(obj), MANAGER)
    except AlreadyExists:
        return False
    return True


def copy(value: Any) -> Any:
    """The tables of policy are shared: objects get their own lists and maps."""
    if isinstance(value, dict):
        return {k: copy(v) for k, v in value.items()}
    return [copy(v) for v in value] if isinstance(value, list) else value


async def _mend_role(server: APIServer, resource: Resource, wanted: Tree) -> None:
    """Adds default rules that an older version did not have, or that somebody took away."""
    name, namespace = wanted["metadata"]["name"], wanted["metadata"].get("namespace", "")

    def change(old: Tree) -> Tree:
        if not protected(old) and mend_role(old, copy(wanted)):
            log.info("gave %s %s back what it had by default", wanted["kind"], name)
        return old

    try:
        await resource.change(server.context(), namespace, name, change, MANAGER)
    except NotFound:
        await _create(server, resource, wanted)


async def _mend_binding(server: APIServer, resource: Resource, wanted: Tree) -> None:
    """As above; a binding to another role is made anew, for the role of a binding cannot change."""
    name, namespace = wanted["metadata"]["name"], wanted["metadata"].get("namespace", "")
    other = ""  # uid of a binding to another role

    def change(old: Tree) -> Tree:
        nonlocal other
        other = ""
        if protected(old):
            return old
        if old["roleRef"] != wanted["roleRef"]:
            other = old["metadata"]["uid"]
        elif mend_binding(old, copy(wanted)):
            log.info("gave %s %s back what it had by default", wanted["kind"], name)
        return old

    try:
        await resource.change(server.context(), namespace, name, change, MANAGER)
        if not other:
            return
        await resource.delete(server.context(), namespace, name, DeleteOptions(uid=other))
        log.info("made %s %s anew: it was bound to another role", wanted["kind"], name)
    except (NotFound, Conflict):
        pass  # another server was faster
    await _create(server, resource, wanted)  # the cache may not know yet that it is gone
