"""What every cluster has from its first second: namespaces, roles, priority classes. Made, or mended, at each start."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from apiserver.authz.policy import cluster_role_bindings, cluster_roles
from apiserver.authz.rules import compile_rules, uncovered
from apiserver.registry.simple import SYSTEM_PRIORITIES
from apiserver.request import WriteOptions
from navarch.api.errors import AlreadyExists, NotFound

if TYPE_CHECKING:
    from apiserver.registry.resource import Resource
    from apiserver.server import APIServer

log = logging.getLogger(__name__)

Tree = dict[str, Any]
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
RBAC = "rbac.authorization.k8s.io"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
MANAGER = WriteOptions(field_manager="kube-apiserver")
PRIORITY_TEXTS = {
    "system-cluster-critical": "Used for system critical pods that must run in the cluster, but can be moved to "
    "another node if necessary.",
    "system-node-critical": "Used for system critical pods that must not be moved from their current node.",
}


async def bootstrap(server: APIServer) -> None:
    """Makes the default objects that are missing, and gives default roles and bindings back what they lack."""
    namespaces = server.resource("", "namespaces")
    for name in NAMESPACES:
        await ensure(server, namespaces, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    classes = server.resource("scheduling.k8s.io", "priorityclasses")
    for name, value in SYSTEM_PRIORITIES.items():
        await ensure(server, classes, {
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
            "description": PRIORITY_TEXTS[name],
        })  # fmt: skip
    roles = server.resource(RBAC, "clusterroles")
    for role in cluster_roles():
        if not await ensure(server, roles, role):
            await _mend_role(server, roles, role)
    bindings = server.resource(RBAC, "clusterrolebindings")
    for binding in cluster_role_bindings():
        if not await ensure(server, bindings, binding):
            await _mend_binding(server, bindings, binding)


async def ensure(server: APIServer, resource: Resource, obj: Tree) -> bool:
    """Creates an object unless it exists; whether it was created."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace", "")
    if resource.cached(namespace, metadata["name"]) is not None:
        return False
    try:
        await resource.create(server.context(), namespace, copy(obj), MANAGER)
    except AlreadyExists:
        return False
    return True


def copy(value: Any) -> Any:
    """The tables of policy are shared: objects get their own lists and maps."""
    if isinstance(value, dict):
        return {k: copy(v) for k, v in value.items()}
    return [copy(v) for v in value] if isinstance(value, list) else value


async def _mend_role(server: APIServer, roles: Resource, wanted: Tree) -> None:
    """Adds default rules that an older version did not have, or that somebody took away."""
    name = wanted["metadata"]["name"]

    def change(old: Tree) -> Tree:
        if (old["metadata"].get("annotations") or {}).get(AUTOUPDATE) == "false":
            return old
        rules = old.get("rules") or []
        if uncovered(compile_rules(rules), wanted["rules"]):
            extra = [r for r in rules if r not in wanted["rules"]]
            old["rules"] = [*copy(wanted["rules"]), *extra]
            log.info("gave ClusterRole %s its default rules back", name)
        return old

    await roles.change(server.context(), "", name, change, MANAGER)


async def _mend_binding(server: APIServer, bindings: Resource, wanted: Tree) -> None:
    name = wanted["metadata"]["name"]

    def change(old: Tree) -> Tree:
        if (old["metadata"].get("annotations") or {}).get(AUTOUPDATE) == "false":
            return old
        subjects = old.get("subjects") or []
        missing = [s for s in wanted["subjects"] if s not in subjects]
        if missing and old.get("roleRef") == wanted["roleRef"]:
            old["subjects"] = [*subjects, *copy(missing)]
        return old

    try:
        await bindings.change(server.context(), "", name, change, MANAGER)
    except NotFound:
        await ensure(server, bindings, wanted)
