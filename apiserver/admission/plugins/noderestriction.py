"""NodeRestriction: a node agent writes its own Node, its own Lease and the pods bound to it, and nothing of others.

The rules are upstream's of 1.34 (plugin/pkg/admission/noderestriction); tests/apiserver/admission/test_noderestriction.py has
one row a rule. They are checked in the validating phase: nothing that a webhook does comes after them.
"""

from __future__ import annotations

from typing import Any

from apiserver.admission.chain import BasePlugin
from apiserver.admission.plugins.podreferences import MIRROR, api_reference, is_mirror
from apiserver.authz.node import is_node, node_name
from apiserver.cache.cache import Cache
from apiserver.kinds.certificates.certificatesigningrequests import parse_request
from apiserver.request import CONNECT, CREATE, UPDATE, Attributes, Authorize, RequestInfo
from navarch.api import wellknown
from navarch.api.errors import Forbidden, resource_forbidden, resource_not_found
from navarch.api.kinds import Kind
from navarch.api.patch import same

Tree = dict[str, Any]
NODES, PODS = "/registry/nodes/", "/registry/pods/"
CLAIMS, VOLUMES, DRIVERS = "/registry/persistentvolumeclaims/", "/registry/persistentvolumes/", "/registry/csidrivers/"
LEASE_NAMESPACE = "kube-node-lease"
AUDIENCE_VERB = "request-serviceaccounts-token-audience"
NODE_SIGNERS = (wellknown.SIGNER_KUBELET_SERVING, wellknown.SIGNER_KUBELET_CLIENT)
OWN_LABELS = frozenset((
    wellknown.HOSTNAME, wellknown.ARCH, wellknown.OS, wellknown.ZONE,
    wellknown.REGION, wellknown.BETA_ZONE,
    wellknown.BETA_REGION, wellknown.INSTANCE_TYPE, wellknown.BETA_INSTANCE_TYPE,
    wellknown.BETA_OS, wellknown.BETA_ARCH,
))  # fmt: skip
OWN_LABEL_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_CLAIM_STATUS = ("capacity", "conditions", "allocatedResourceStatuses", "allocatedResources")


class NodeRestriction(BasePlugin):
    name = "NodeRestriction"

    def __init__(self, cache: Cache, authorize: Authorize) -> None:
        self.cache, self.authorize = cache, authorize
        self._rules = {
            ("", "pods"): self._pod, ("", "nodes"): self._node, ("", "persistentvolumeclaims"): self._claim,
            ("", "serviceaccounts"): self._token, ("coordination.k8s.io", "leases"): self._lease,
            ("storage.k8s.io", "csinodes"): self._csi_node, ("certificates.k8s.io", "certificatesigningrequests"): self._csr,
        }  # fmt: skip

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation != CONNECT and (kind.group, kind.resource) in self._rules

    async def validate(self, attributes: Attributes) -> None:
        user = attributes.context.user
        if not is_node(user):
            return
        node = node_name(user)
        if not node:
            raise _forbid(attributes, f'could not determine node from user "{user.name}"')
        self._rules[attributes.kind.group, attributes.kind.resource](attributes, node)

    # Pods

    def _pod(self, attributes: Attributes, node: str) -> None:
        operation, old, new = attributes.operation, attributes.old or {}, attributes.obj or {}
        match attributes.subresource, operation:
            case ("", "CREATE"):
                self._mirror(attributes, node, new)
            case ("", "DELETE"):
                if _bound(old) != node:
                    raise _forbid(attributes, f'node "{node}" can only delete pods with spec.nodeName set to itself')
            case ("", _):
                why = f'unexpected operation "{operation}", node "{node}" can only create and delete mirror pods'
                raise _forbid(attributes, why)
            case ("status", "UPDATE"):
                self._pod_status(attributes, node, old, new)
            case ("status", _):
                raise _forbid(attributes, f'unexpected operation "{operation}"')
            case ("eviction", "CREATE"):
                entry = self.cache.get(PODS, attributes.namespace, attributes.name)
                if entry is None:
                    raise resource_not_found("pods", "", attributes.name)
                if entry.fields.get("spec.nodeName") != node:
                    raise _forbid(attributes, f"node {node} can only evict pods with spec.nodeName set to itself")
            case ("eviction", _):
                raise _forbid(attributes, f"unexpected operation {operation}")
            case (part, _):
                why = f"unexpected pod subresource \"{part}\", only 'status' and 'eviction' are allowed"
                raise _forbid(attributes, why)

    def _mirror(self, attributes: Attributes, node: str, pod: Tree) -> None:
        """A pod that a node creates is its own mirror pod, owned by its Node, and refers to nothing: what a node's pods refer
        to, the node may read."""
        if not is_mirror(pod):
            why = f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
            raise _forbid(attributes, why)
        if _bound(pod) != node:
            raise _forbid(attributes, f'node "{node}" can only create pods with spec.nodeName set to itself')
        owners = pod["metadata"].get("ownerReferences") or []
        if len(owners) > 1:
            why = f'node "{node}" can only create pods with a single owner reference set to itself'
            raise _forbid(attributes, why)
        owner = owners[0] if owners else {}
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
            raise _forbid(attributes, f'node "{node}" can only create pods with an owner reference set to itself')
        if not owner.get("controller"):
            why = f'node "{node}" can only create pods with a controller owner reference set to itself'
            raise _forbid(attributes, why)
        if owner.get("blockOwnerDeletion"):
            raise _forbid(attributes, f'node "{node}" must not set blockOwnerDeletion on an owner reference')
        entry = self.cache.get(NODES, None, node)
        if entry is None:
            raise resource_not_found("nodes", "", node)
        if owner.get("uid") != entry.uid:
            raise _forbid(attributes, f"node {node} UID mismatch: expected {entry.uid} got {owner.get('uid') or ''}")
        if resource := api_reference(pod):
            raise _forbid(attributes, f'node "{node}" can not create pods that reference {resource}')

    def _pod_status(self, attributes: Attributes, node: str, old: Tree, new: Tree) -> None:
        if _bound(old) != node:
            raise _forbid(attributes, f'node "{node}" can only update pod status for pods with spec.nodeName set to itself')
        if _labels(old) != _labels(new):
            raise _forbid(attributes, f'node "{node}" cannot update labels through pod status')
        was, now = old.get("status") or {}, new.get("status") or {}
        if _claims(was) != _claims(now):
            raise _forbid(attributes, f'node "{node}" cannot update resource claim statues')  # upstream's spelling
        if was.get("extendedResourceClaimStatus") != now.get("extendedResourceClaimStatus"):
            raise _forbid(attributes, f'node "{node}" cannot update extended resource claim status')

    # Nodes

    def _node(self, attributes: Attributes, node: str) -> None:
        if attributes.name != node:
            raise _forbid(attributes, f'node "{node}" is not allowed to modify node "{attributes.name}"')
        old, new = attributes.old or {}, attributes.obj or {}
        was, spec = old.get("spec") or {}, new.get("spec") or {}
        if attributes.operation == CREATE:
            if spec.get("configSource") is not None:
                raise _forbid(attributes, f'node "{node}" is not allowed to create pods with a non-nil configSource')
            if bad := _forbidden({}, _labels(new)):
                raise _forbid(attributes, f'node "{node}" is not allowed to set the following labels: {bad}')
        elif attributes.operation == UPDATE:
            if spec.get("configSource") is not None and not same(spec["configSource"], was.get("configSource")):
                why = f'node "{node}" is not allowed to update configSource to a new non-nil configSource'
                raise _forbid(attributes, why)
            if (was.get("taints") or []) != (spec.get("taints") or []):
                raise _forbid(attributes, f'node "{node}" is not allowed to modify taints')
            owners = [(tree.get("metadata") or {}).get("ownerReferences") or [] for tree in (old, new)]
            if owners[0] != owners[1]:
                raise _forbid(attributes, f'node "{node}" is not allowed to modify ownerReferences')
            if bad := _forbidden(_labels(old), _labels(new)):
                raise _forbid(attributes, f"is not allowed to modify labels: {bad}")

    # What belongs to pods and nodes

    def _claim(self, attributes: Attributes, node: str) -> None:
        if attributes.subresource != "status":
            raise _forbid(attributes, "may only update PVC status")
        if attributes.operation != UPDATE:
            raise _forbid(attributes, f'unexpected operation "{attributes.operation}"')
        if not same(*(_fixed(tree or {}) for tree in (attributes.old, attributes.obj))):
            why = f'node "{node}" is not allowed to update fields other than status.quantity and status.conditions'
            raise _forbid(attributes, why)

    def _token(self, attributes: Attributes, node: str) -> None:
        if attributes.operation != CREATE or attributes.subresource != "token":
            return
        spec = (attributes.obj or {}).get("spec") or {}
        bound = spec.get("boundObjectRef") or {}
        if bound.get("kind") != "Pod" or bound.get("apiVersion") != "v1" or not bound.get("name"):
            raise _forbid(attributes, "node requested token not bound to a pod")
        if not bound.get("uid"):
            raise _forbid(attributes, "node requested token with a pod binding without a uid")
        entry = self.cache.get(PODS, attributes.namespace, bound["name"])
        if entry is None:
            raise resource_not_found("pods", "", bound["name"])
        if entry.uid != bound["uid"]:
            raise _forbid(
                attributes,
                f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record. The object might "
                "have been deleted and then recreated",
            )
        if entry.fields.get("spec.nodeName") != node:
            raise _forbid(attributes, "node requested token bound to a pod scheduled on a different node")
        audiences = spec.get("audiences") or []
        if len(audiences) > 1:
            raise _forbid(attributes, "node may only request 0 or 1 audiences")
        audience = audiences[0] if audiences else ""
        if self._mentions(entry.tree(), attributes.namespace, audience):
            return
        user = attributes.context.user
        info = RequestInfo(
            AUDIENCE_VERB, "", True, "", "v1", audience, namespace=attributes.namespace, name=attributes.name
        )
        if not self.authorize(user, info)[0]:
            raise _forbid(
                attributes,
                f'audience "{audience}" not found in pod spec volume, {user.name} is not authorized to request tokens for '
                "this audience",
            )

    def _mentions(self, pod: Tree, namespace: str, audience: str) -> bool:
        """Whether the pod asks for tokens for the audience: by a projected volume, or through the driver of a CSI volume."""
        for volume in (pod.get("spec") or {}).get("volumes") or ():
            for source in (volume.get("projected") or {}).get("sources") or ():
                token = source.get("serviceAccountToken")
                if token is not None and (token.get("audience") or "") == audience:
                    return True
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName") or ""
            if volume.get("ephemeral") is not None:
                claim = f"{pod['metadata']['name']}-{volume.get('name')}"
            driver = (volume.get("csi") or {}).get("driver") or (self._driver(namespace, claim) if claim else "")
            entry = self.cache.get(DRIVERS, None, driver) if driver else None
            requests = ((entry.tree().get("spec") or {}).get("tokenRequests") or ()) if entry is not None else ()
            if any((one.get("audience") or "") == audience for one in requests):
                return True
        return False

    def _driver(self, namespace: str, claim: str) -> str:
        """The CSI driver of the volume that a claim is bound to, "" if there is none."""
        entry = self.cache.get(CLAIMS, namespace, claim)
        name = ((entry.tree().get("spec") or {}).get("volumeName") or "") if entry is not None else ""
        volume = self.cache.get(VOLUMES, None, name) if name else None
        return (((volume.tree().get("spec") or {}).get("csi") or {}).get("driver") or "") if volume is not None else ""

    def _lease(self, attributes: Attributes, node: str) -> None:
        if attributes.namespace != LEASE_NAMESPACE:
            raise _forbid(attributes, f'can only access leases in the "{LEASE_NAMESPACE}" system namespace')
        if _name(attributes) != node:
            raise _forbid(attributes, "can only access node lease with the same name as the requesting node")

    def _csi_node(self, attributes: Attributes, node: str) -> None:
        if _name(attributes) != node:
            raise _forbid(attributes, "can only access CSINode with the same name as the requesting node")

    def _csr(self, attributes: Attributes, node: str) -> None:
        spec = (attributes.obj or {}).get("spec") or {}
        if attributes.operation != CREATE or spec.get("signerName") not in NODE_SIGNERS:
            return
        try:
            subject = parse_request(spec.get("request") or "").subject
        except ValueError as error:
            raise _forbid(attributes, f"unable to parse csr: {error}") from None
        names = [a.value for a in subject if a.oid.dotted_string == "2.5.4.3"]
        if names[-1:] != [f"system:node:{node}"]:
            raise _forbid(attributes, f"can only create a node CSR with CN=system:node:{node}")


def _forbid(attributes: Attributes, why: str) -> Forbidden:
    return resource_forbidden(attributes.kind.resource, attributes.kind.group, attributes.name, why)


def _name(attributes: Attributes) -> str:
    """The object's name; on CREATE it is taken from the body."""
    if attributes.operation == CREATE:
        return str(((attributes.obj or {}).get("metadata") or {}).get("name") or "")
    return attributes.name


def _bound(pod: Tree) -> str:
    return (pod.get("spec") or {}).get("nodeName") or ""


def _labels(tree: Tree) -> dict[str, str]:
    return (tree.get("metadata") or {}).get("labels") or {}


def _claims(status: Tree) -> list[tuple[Any, Any]]:
    return [(one.get("name"), one.get("resourceClaimName")) for one in status.get("resourceClaimStatuses") or ()]


def _fixed(claim: Tree) -> Tree:
    """The part of a claim that a node may not change."""
    metadata = {k: v for k, v in (claim.get("metadata") or {}).items() if k not in ("resourceVersion", "managedFields")}
    status = {k: v for k, v in (claim.get("status") or {}).items() if k not in _CLAIM_STATUS}
    return claim | {"metadata": metadata, "status": status}


def _forbidden(old: dict[str, str], new: dict[str, str]) -> str:
    """The labels that are changed and must not be, as messages list them."""
    changed = {k for k in {**old, **new} if old.get(k) != new.get(k)}
    return ", ".join(sorted(label for label in changed if not _may_set(label)))


def _within(domain: str, *domains: str) -> bool:
    return any(domain == d or domain.endswith("." + d) for d in domains)


def _may_set(label: str) -> bool:
    """A node may label itself freely outside Kubernetes' own domains, and with a few well-known labels inside."""
    domain, slash, _ = label.partition("/")
    if not slash:
        return True
    if _within(domain, "node-restriction.kubernetes.io"):
        return False
    if not _within(domain, "kubernetes.io", "k8s.io"):
        return True
    return label in OWN_LABELS or _within(domain, *OWN_LABEL_DOMAINS)
