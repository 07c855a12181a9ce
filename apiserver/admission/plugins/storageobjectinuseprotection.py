"""StorageObjectInUseProtection: claims, volumes and attribute classes are born with the finalizer that protects them in use."""

from __future__ import annotations

from apiserver.admission.chain import BasePlugin
from apiserver.request import CREATE, Attributes
from navarch.api import wellknown
from navarch.api.kinds import Kind

FINALIZERS = {
    ("", "persistentvolumeclaims"): wellknown.PVC_PROTECTION,
    ("", "persistentvolumes"): wellknown.PV_PROTECTION,
    ("storage.k8s.io", "volumeattributesclasses"): wellknown.VAC_PROTECTION,
}


class StorageObjectInUseProtection(BasePlugin):
    """Claims, volumes and their attribute classes stay until nobody uses them any more."""

    name = "StorageObjectInUseProtection"

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation == CREATE and (kind.group, kind.resource) in FINALIZERS

    async def admit(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        metadata, finalizer = attributes.obj["metadata"], FINALIZERS[attributes.kind.group, attributes.kind.resource]
        finalizers = metadata.get("finalizers") or []
        if finalizer not in finalizers:
            metadata["finalizers"] = [*finalizers, finalizer]
