"""The node authorizer: a node agent may read its own Node, the pods bound to it, their secrets, config maps, service
accounts and volumes, and no others; what every node may do besides is in fixed rules (upstream's system:node role).

Whether a pod on the node refers to an object is found by looking at the node's pods, which the cache has indexed by
spec.nodeName: about a hundred small trees at most, and only for requests that need it.
"""

from __future__ import annotations

from typing import Any

from apiserver.authz.rules import compile_rules
from apiserver.cache.cache import Cache
from apiserver.request import RequestInfo, User
from navarch.api.selectors import SelectorError, escaped, parse_field_selector

NODES_GROUP = "system:nodes"
NODE_PREFIX = "system:node:"
PODS = "/registry/pods/"
VOLUMES, ATTACHMENTS = "/registry/persistentvolumes/", "/registry/volumeattachments/"
STORAGE = "storage.k8s.io"
LEASE_NAMESPACE = "kube-node-lease"
READ = ("get", "list", "watch")
NODE_SECRETS = ("nodeStageSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef")


def rule(groups: str, resources: str, verbs: str) -> dict[str, list[str]]:
    """A PolicyRule from words."""
    return {
        "apiGroups": ["" if g == "core" else g for g in groups.split()],
        "resources": resources.split(),
        "verbs": verbs.split(),
    }


# What all nodes may do; what they may do it to is narrowed below, and by the NodeRestriction admission plugin.
NODE_RULES = [
    rule("authentication.k8s.io", "tokenreviews", "create"),
    rule("authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews", "create"),
    rule("core", "services", "get list watch"),
    rule("core", "nodes", "create get list watch"),
    rule("core", "nodes/status", "patch update"),
    rule("core", "nodes", "patch update"),
    rule("core", "events", "create patch update"),
    rule("core", "pods", "get list watch"),
    rule("core", "pods", "create delete"),
    rule("core", "pods/status", "patch update"),
    rule("core", "pods/eviction", "create"),
    rule("core", "configmaps secrets", "get list watch"),
    rule("core", "persistentvolumeclaims persistentvolumes", "get"),
    rule("core", "endpoints", "get"),
    rule("certificates.k8s.io", "certificatesigningrequests", "create get list watch"),
    rule("coordination.k8s.io", "leases", "create delete get patch update"),
    rule("storage.k8s.io", "volumeattachments", "get"),
    rule("core", "serviceaccounts/token", "create"),
    rule("core", "persistentvolumeclaims/status", "get patch update"),
    rule("storage.k8s.io", "csidrivers", "get list watch"),
    rule("storage.k8s.io", "csinodes", "create delete get patch update"),
    rule("node.k8s.io", "runtimeclasses", "get list watch"),
    rule("resource.k8s.io", "resourceclaims", "get"),
    rule("resource.k8s.io", "resourceslices", "deletecollection"),
    rule("core", "serviceaccounts", "get"),
]


def is_node(user: User) -> bool:
    """Whether the user is the agent of a node, even if it does not say of which."""
    return NODES_GROUP in user.groups and user.name.startswith(NODE_PREFIX)


def node_name(user: User) -> str:
    """The node that the user is the agent of, "" if it is none."""
    if is_node(user):
        return user.name[len(NODE_PREFIX) :]
    return ""


class NodeAuthorizer:
    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._rules = compile_rules(NODE_RULES)

    def authorize(self, user: User, info: RequestInfo) -> tuple[bool, str]:
        """(allowed, reason)."""
        if not is_node(user):
            return False, ""
        node = node_name(user)
        if not node:
            return False, f'unknown node for user "{user.name}"'
        if not info.group and info.resource in ("secrets", "configmaps"):
            return self._object(node, info)
        if not info.group and info.resource == "serviceaccounts":
            if (info.verb == "get" and not info.subresource) or (info.verb == "create" and info.subresource == "token"):
                return self._related(node, info.resource, info.namespace, info.name)
            return False, "can only create tokens for individual service accounts"
        if not info.group and info.resource == "nodes":
            return self._node(node, info)
        if not info.group and info.resource == "pods":
            return self._pod(node, info)
        if info.group == "coordination.k8s.io" and info.resource == "leases":
            return self._lease(node, info)
        if not info.group and info.resource in ("persistentvolumeclaims", "persistentvolumes"):
            return self._volume(node, info)
        if info.group == STORAGE and info.resource == "volumeattachments":
            return self._attachment(node, info)
        if info.group == STORAGE and info.resource == "csinodes":
            return self._csi_node(node, info)
        return self._ruled(info), ""

    def _ruled(self, info: RequestInfo) -> bool:
        return any(r.allows(info) for r in self._rules)

    def _node(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        """Its own Node may be read before it exists; what is written is NodeRestriction's to check."""
        if not info.subresource and info.verb in READ and info.name != node:
            what = f"'{info.name}'" if info.name else "all nodes"
            return False, f"node '{node}' cannot read {what}, only its own Node object"
        return self._ruled(info), ""

    def _pod(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.subresource or info.verb not in READ:
            return self._ruled(info), ""
        if info.verb != "get" and _selects(info.field_selector, "spec.nodeName", node):
            return True, ""
        if not info.name:
            return False, "can only list/watch pods with spec.nodeName field selector"
        pod = self._cache.get(PODS, info.namespace, info.name) if info.namespace else None
        if pod is not None and (pod.tree().get("spec") or {}).get("nodeName") == node:
            return True, ""
        return False, f"no relationship found between node '{node}' and this object"

    def _lease(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.verb not in ("get", "create", "update", "patch", "delete"):
            return False, "can only get, create, update, patch, or delete a node lease"
        if info.namespace != LEASE_NAMESPACE:
            return False, f'can only access leases in the "{LEASE_NAMESPACE}" system namespace'
        if info.verb != "create" and info.name != node:
            return False, "can only access node lease with the same name as the requesting node"
        return self._ruled(info), ""

    def _volume(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        """Claims of pods on the node, and the volumes that these are bound to."""
        if info.subresource == "status" and info.resource == "persistentvolumeclaims":
            if info.verb not in ("update", "patch"):
                return False, "can only get/update/patch this type"
        elif info.verb != "get":
            return False, "can only get individual resources of this type"
        elif info.subresource:
            return False, "cannot get subresource"
        if not info.name:
            return False, "No Object name found"
        if info.resource == "persistentvolumeclaims":
            return self._related(node, info.resource, info.namespace, info.name)
        volume = self._cache.get(VOLUMES, None, info.name)
        claim = ((volume.tree().get("spec") or {}).get("claimRef") or {}) if volume else {}
        if claim.get("namespace") and claim.get("name"):
            return self._related(node, "persistentvolumeclaims", claim["namespace"], claim["name"])
        return False, f"no relationship found between node '{node}' and this object"

    def _attachment(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.verb != "get" or info.subresource or not info.name:
            return False, "can only get individual resources of this type"
        attachment = self._cache.get(ATTACHMENTS, None, info.name)
        if attachment is not None and (attachment.tree().get("spec") or {}).get("nodeName") == node:
            return True, ""
        return False, f"no relationship found between node '{node}' and this object"

    def _csi_node(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.subresource:
            return False, "cannot authorize CSINode subresources"
        if info.verb not in ("get", "create", "update", "patch", "delete"):
            return False, "can only get, create, update, patch, or delete a CSINode"
        if info.verb != "create" and info.name != node:
            return False, "can only access CSINode with the same name as the requesting node"
        return self._ruled(info), ""

    def _object(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.verb not in ("get", "list", "watch"):
            return False, "can only read resources of this type"
        if info.subresource:
            return False, "cannot read subresource"
        if not info.namespace:
            return False, "can only read namespaced object of this type"
        if not info.name:
            return False, "No Object name found"
        answer = self._related(node, info.resource, info.namespace, info.name)
        if not answer[0] and info.resource == "secrets" and info.verb == "get":
            return self._of_volume(node, info) or answer
        return answer

    def _of_volume(self, node: str, info: RequestInfo) -> tuple[bool, str] | None:
        """A secret that a volume names for its driver on the node, and the volume is one of a pod there; None if it is not."""
        for entry in self._cache.list(VOLUMES, None).entries:
            spec = entry.tree().get("spec") or {}
            refs = [(spec.get("csi") or {}).get(field) or {} for field in NODE_SECRETS]
            claim = spec.get("claimRef") or {}
            if any((r.get("namespace"), r.get("name")) == (info.namespace, info.name) for r in refs) and claim.get("name"):
                answer = self._related(node, "persistentvolumeclaims", claim.get("namespace") or "", claim["name"])
                if answer[0]:
                    return answer
        return None

    def _related(self, node: str, resource: str, namespace: str, name: str) -> tuple[bool, str]:
        on_node = parse_field_selector(f"spec.nodeName={escaped(node)}")
        for entry in self._cache.list(PODS, namespace, fields=on_node).entries:
            if name in references(entry.tree(), resource):
                return True, ""
        return False, f"no relationship found between node '{node}' and this object"


def _selects(selector: str, field: str, value: str) -> bool:
    """Whether the selector asks for that value of the field only."""
    try:
        return any(
            (r.key, r.operator, r.values) == (field, "=", (value,)) for r in parse_field_selector(selector).requirements
        )
    except SelectorError:
        return False  # the request will fail


def references(pod: dict[str, Any], resource: str) -> set[str]:
    """Names of the secrets, configmaps, serviceaccounts or claims that a pod refers to."""
    spec = pod.get("spec") or {}
    if resource == "serviceaccounts":
        return {spec.get("serviceAccountName") or ""}
    if resource == "persistentvolumeclaims":
        volumes = spec.get("volumes") or ()
        ephemeral = {f"{pod['metadata']['name']}-{v['name']}" for v in volumes if v.get("ephemeral")}
        return ephemeral | {v["persistentVolumeClaim"]["claimName"] for v in volumes if v.get("persistentVolumeClaim")}
    secret = resource == "secrets"
    names: set[str] = set()
    if secret:
        names.update(r.get("name") or "" for r in spec.get("imagePullSecrets") or ())
        for volume in spec.get("volumes") or ():
            for source in volume.values():
                if isinstance(source, dict):  # every kind of volume names its secret in one of these ways
                    refs = (source.get("secretRef") or {}, source.get("nodePublishSecretRef") or {})
                    names.update((source.get("secretName") or "", *(r.get("name") or "" for r in refs)))
    projected_field = "secret" if secret else "configMap"
    env_key, env_from = ("secretKeyRef", "secretRef") if secret else ("configMapKeyRef", "configMapRef")
    for volume in spec.get("volumes") or ():
        if not secret:
            names.add((volume.get("configMap") or {}).get("name") or "")
        for source in (volume.get("projected") or {}).get("sources") or ():
            names.add((source.get(projected_field) or {}).get("name") or "")
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            for env in container.get("env") or ():
                names.add(((env.get("valueFrom") or {}).get(env_key) or {}).get("name") or "")
            for source in container.get("envFrom") or ():
                names.add((source.get(env_from) or {}).get("name") or "")
    names.discard("")
    return names
