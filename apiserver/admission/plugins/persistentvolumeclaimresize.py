"""PersistentVolumeClaimResize: a claim grows only if its class allows it."""

from __future__ import annotations

from typing import Any

from apiserver.admission.chain import BasePlugin
from apiserver.cache.cache import Cache
from apiserver.request import UPDATE, Attributes
from navarch.api import quantity, wellknown
from navarch.api.errors import resource_forbidden
from navarch.api.kinds import Kind

Tree = dict[str, Any]
CLASSES = "/registry/storageclasses/"


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
        name = notes.get(wellknown.BETA_STORAGE_CLASS) or obj["spec"].get("storageClassName")
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
