"""NodeRestriction: a node agent writes its own Node, its own Lease and the pods bound to it, and nothing of others."""

from __future__ import annotations

from typing import Any

from apiserver.admission.chain import BasePlugin
from apiserver.authz.node import node_name
from apiserver.cache.cache import Cache
from apiserver.request import CREATE, UPDATE, Attributes
from navarch.api.errors import Forbidden, resource_forbidden
from navarch.api.kinds import Kind

Tree = dict[str, Any]
PODS = "/registry/pods/"
MIRROR = "kubernetes.io/config.mirror"
LEASE_NAMESPACE = "kube-node-lease"
HANDLED = (("", "pods"), ("", "nodes"), ("", "serviceaccounts"), ("coordination.k8s.io", "leases"))
OWN_LABELS = frozenset((
    "kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os", "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region", "node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os", "beta.kubernetes.io/arch",
))  # fmt: skip
OWN_LABEL_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")


class NodeRestriction(BasePlugin):
    name = "NodeRestriction"

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def handles(self, operation: str, kind: Kind) -> bool:
        return (kind.group, kind.resource) in HANDLED

    async def validate(self, attributes: Attributes) -> None:
        node = node_name(attributes.context.user)
        if not node:
            return
        match attributes.kind.resource:
            case "pods":
                self._pod(attributes, node)
            case "nodes":
                self._node(attributes, node)
            case "serviceaccounts":
                self._token(attributes, node)
            case "leases":
                self._lease(attributes, node)

    def _pod(self, attributes: Attributes, node: str) -> None:
        old, new = attributes.old or {}, attributes.obj or {}
        match attributes.operation, attributes.subresource:
            case ("CREATE", ""):
                if MIRROR not in ((new.get("metadata") or {}).get("annotations") or {}):
                    raise self._forbid(attributes, f'pod does not have "{MIRROR}" annotation, node "{node}" '
                                                   "can only create mirror pods")  # fmt: skip
                if _bound(new) != node:
                    why = f'node "{node}" can only create pods with spec.nodeName set to itself'
                    raise self._forbid(attributes, why)
            case ("DELETE", ""):
                if _bound(old) != node:
                    why = f'node "{node}" can only delete pods with spec.nodeName set to itself'
                    raise self._forbid(attributes, why)
            case ("UPDATE", "status"):
                if _bound(old) != node:
                    why = f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
                    raise self._forbid(attributes, why)
                labels = [(t.get("metadata") or {}).get("labels") or {} for t in (old, new)]
                if labels[0] != labels[1]:
                    raise self._forbid(attributes, f'node "{node}" cannot update labels through pod status')
            case ("CREATE", "eviction"):
                entry = self.cache.get(PODS, attributes.namespace, attributes.name)
                if entry is not None and entry.fields.get("spec.nodeName") != node:
                    why = f'node {node} can only evict pods with spec.nodeName set to itself'  # fmt: skip
                    raise self._forbid(attributes, why)
            case (operation, subresource) if subresource != "eviction":
                raise self._forbid(attributes, f'unexpected operation "{operation}", node "{node}" can only create '
                                               "and delete mirror pods")  # fmt: skip

    def _node(self, attributes: Attributes, node: str) -> None:
        if attributes.name != node:
            raise self._forbid(attributes, f'node "{node}" is not allowed to modify node "{attributes.name}"')
        old, new = attributes.old or {}, attributes.obj or {}
        if attributes.operation == CREATE:
            changed = _changed({}, _labels(new))
        elif attributes.operation == UPDATE:
            changed = _changed(_labels(old), _labels(new))
            if (old.get("spec") or {}).get("taints") != (new.get("spec") or {}).get("taints"):
                raise self._forbid(attributes, f'node "{node}" is not allowed to modify taints')
        else:
            return
        bad = sorted(label for label in changed if not _may_set(label))
        if bad:
            listed = ", ".join(bad)
            raise self._forbid(attributes, f'node "{node}" is not allowed to modify labels: {listed}')

    def _token(self, attributes: Attributes, node: str) -> None:
        if attributes.operation != CREATE or attributes.subresource != "token":
            return
        bound = ((attributes.obj or {}).get("spec") or {}).get("boundObjectRef") or {}
        if bound.get("kind") != "Pod" or bound.get("apiVersion") != "v1" or not bound.get("name"):
            raise self._forbid(attributes, f'node "{node}" can only create pod-bound service account tokens')
        if not bound.get("uid"):
            raise self._forbid(attributes, f'node "{node}" requested token not bound to a pod uid')
        entry = self.cache.get(PODS, attributes.namespace, bound["name"])
        if entry is None or entry.uid != bound["uid"]:
            why = f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record"
            raise self._forbid(attributes, why)
        if entry.fields.get("spec.nodeName") != node:
            raise self._forbid(
                attributes, f'node "{node}" requested token bound to a pod scheduled on a different node'
            )

    def _lease(self, attributes: Attributes, node: str) -> None:
        if attributes.namespace != LEASE_NAMESPACE:
            why = f'can only access leases in the "{LEASE_NAMESPACE}" system namespace'
            raise self._forbid(attributes, why)
        name = attributes.name or ((attributes.obj or {}).get("metadata") or {}).get("name")
        if name != node:
            raise self._forbid(
                attributes, f'can only access node lease with the same name as the requesting node "{node}"'
            )

    def _forbid(self, attributes: Attributes, why: str) -> Forbidden:
        return resource_forbidden(attributes.kind.resource, attributes.kind.group, attributes.name, why)


def _bound(pod: Tree) -> str:
    return (pod.get("spec") or {}).get("nodeName") or ""


def _labels(node: Tree) -> dict[str, str]:
    return (node.get("metadata") or {}).get("labels") or {}


def _changed(old: dict[str, str], new: dict[str, str]) -> list[str]:
    return [k for k in {**old, **new} if old.get(k) != new.get(k)]


def _may_set(label: str) -> bool:
    """A node may label itself freely outside Kubernetes' own domains, and with a few well-known labels inside."""
    domain, slash, _ = label.partition("/")
    if not slash:
        return True
    if domain == "node-restriction.kubernetes.io" or domain.endswith(".node-restriction.kubernetes.io"):
        return False
    if not any(domain == d or domain.endswith("." + d) for d in ("kubernetes.io", "k8s.io")):
        return True
    return label in OWN_LABELS or any(domain == d or domain.endswith("." + d) for d in OWN_LABEL_DOMAINS)
