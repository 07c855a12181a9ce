"""References of a pod to other API objects: a mirror pod, which shows what a node runs anyway, may have none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from apiserver.authz.node import references
from navarch.api import wellknown

Tree = dict[str, Any]
MIRROR = wellknown.MIRROR_POD
CONTAINERS = {"initContainers": "init container", "containers": "container", "ephemeralContainers": "ephemeral container"}

_VOLUMES = {
    "configMap": "configmaps (via configmap volumes)",
    "secret": "secrets (via secret volumes)",
    "csi": "csidrivers (via CSI volumes)",
    "glusterfs": "endpoints (via glusterFS volumes)",
    "persistentVolumeClaim": "persistentvolumeclaims",
    "ephemeral": "persistentvolumeclaims (via ephemeral volumes)",
    "azureFile": "secrets (via azureFile volumes)",
}
_SOURCES = {
    "configMap": "configmaps (via projected volumes)",
    "secret": "secrets (via projected volumes)",
    "serviceAccountToken": "serviceaccounts (via projected volumes)",
    "clusterTrustBundle": "clustertrustbundles",
    "podCertificate": "podcertificates",
}


def is_mirror(pod: Tree) -> bool:
    return MIRROR in ((pod.get("metadata") or {}).get("annotations") or {})


def api_reference(pod: Tree) -> str:
    """The first kind of objects that the pod refers to, as upstream's HasAPIObjectReference (1.34) names it; "" if none."""
    spec = pod.get("spec") or {}
    if spec.get("serviceAccountName"):
        return "serviceaccounts"
    for resource in ("secrets", "configmaps"):
        if references(pod, resource):
            return resource
    if spec.get("resourceClaims"):
        return "resourceclaims"
    for volume in spec.get("volumes") or ():
        kind_text = next((text for field, text in _VOLUMES.items() if volume.get(field) is not None), "")
        for source in (volume.get("projected") or {}).get("sources") or ():
            kind_text = kind_text or next((text for field, text in _SOURCES.items() if source.get(field) is not None), "")
        if kind_text:
            return kind_text
    return ""


def secret_mentions(spec: Tree, *fields: str) -> Iterator[tuple[str, str]]:
    """(where, name) of each secret that environments of these lists of containers name; ``where`` as messages say it."""
    for field in fields:
        word = CONTAINERS[field]
        for container in spec.get(field) or ():
            name = container.get("name") or ""
            for env in container.get("env") or ():
                ref = (env.get("valueFrom") or {}).get("secretKeyRef")
                if ref is not None:
                    yield f"{word} {name} with envVar {env.get('name') or ''}", ref.get("name") or ""
            for source in container.get("envFrom") or ():
                if source.get("secretRef") is not None:
                    yield f"{word} {name} with envFrom", source["secretRef"].get("name") or ""
