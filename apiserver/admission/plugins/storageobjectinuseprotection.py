"""StorageObjectInUseProtection: claims, volumes and attribute classes are born with the finalizer that protects them in use."""

from __future__ import annotations

from apiserver.admission.chain import BasePlugin
from apiserver.request import CREATE, Attributes
from navarch.api.kinds import Kind

FINALIZERS = {
    ("", "persistentvolumeclaims"): "kubernetes.io/pvc-protection",
    ("", "persistentvolumes"): "kubernetes.io/pv-protection",
    ("storage.k8s.io", "volumeattributesclasses"): "kubernetes.io/vac-protection",
}


class StorageObjectInUseProtection(BasePlugin):
    """Claims, volumes and their attribute classes stay until nobody uses them any more."""

    name = "StorageObjectInUseProtection"

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation == CREATE and (kind.group, kind.resource) in FINALIZERS

    async def admit(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        metadata, wanted = attributes.obj["metadata"], FINALIZERS[attributes.kind.group, attributes.kind.resource]
        found = metadata.get("finalizers") or []
        if wanted not in found:
            metadata["finalizers"] = [*found, wanted]
