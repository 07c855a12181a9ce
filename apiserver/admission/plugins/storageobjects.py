"""What keeps storage safe: objects in use are not lost, and volumes only grow where their class lets them.

controllers/storageprotection.py takes the finalizers away again.
"""

from __future__ import annotations

from typing import Any

from apiserver.admission.chain import CREATE, UPDATE, BasePlugin
from apiserver.cache.cache import Cache
from apiserver.request import Attributes
from navarch.api import quantity
from navarch.api.errors import resource_forbidden
from navarch.api.kinds import Kind

Tree = dict[str, Any]
CLASSES = "/registry/storageclasses/"
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


class PersistentVolumeClaimResize(BasePlugin):
    """A bound claim may ask for more, if its class can give more."""

    name = "PersistentVolumeClaimResize"

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation == UPDATE and (kind.group, kind.resource) == ("", "persistentvolumeclaims")

    async def validate(self, attributes: Attributes) -> None:
        obj, old = attributes.obj, attributes.old
        if attributes.subresource or obj is None or old is None or not _grows(obj, old):
            return
        if (old.get("status") or {}).get("phase") != "Bound":
            raise self._forbid(attributes, "Only bound persistent volume claims can be expanded")
        notes = obj["metadata"].get("annotations") or {}
        name = notes.get("volume.beta.kubernetes.io/storage-class") or obj["spec"].get("storageClassName")
        entry = self.cache.get(CLASSES, None, name) if name else None
        if entry is None or not entry.tree().get("allowVolumeExpansion"):
            raise self._forbid(attributes, (
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must "
                "support resize"
            ))  # fmt: skip

    def _forbid(self, attributes: Attributes, why: str) -> Exception:
        return resource_forbidden("persistentvolumeclaims", "", attributes.name, why)


def _grows(obj: Tree, old: Tree) -> bool:
    new, was = (
        ((t.get("spec") or {}).get("resources") or {}).get("requests", {}).get("storage", "0") for t in (obj, old)
    )
    return quantity.compare(new, was) > 0
