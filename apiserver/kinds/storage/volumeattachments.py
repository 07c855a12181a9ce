"""VolumeAttachments: a volume that is to be attached to a node."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, kind, name_cell, spec_of, status_of
from apiserver.kinds.checks import (
    immutable,
    named,
)
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.errors import Cause, forbidden, required


class VolumeAttachmentStrategy(Strategy):
    kind = kind("storage.k8s.io/v1", "VolumeAttachment")
    unconditional_update = False
    has_status = True
    generation = False
    columns = (
        NAME_COLUMN, Column("Attacher"), Column("PV"), Column("Node"), Column("Attached", "boolean"), AGE_COLUMN,
    )  # fmt: skip

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = self.zero_status()

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        source = spec.get("source") or {}
        out = named(spec.get("attacher"), "spec.attacher", names.dns_subdomain)
        volume, inline = source.get("persistentVolumeName"), source.get("inlineVolumeSpec")
        if inline is None and not volume:
            out.append(required("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
        elif inline is not None and volume is not None:
            text = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
            out.append(forbidden("spec.source", text))
        return out + named(spec.get("nodeName"), "spec.nodeName", names.dns_subdomain)

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return immutable(spec_of(obj), spec_of(old), "spec")

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec = spec_of(obj)
        return [
            name_cell(obj), spec.get("attacher") or "", (spec.get("source") or {}).get("persistentVolumeName") or "",
            spec.get("nodeName") or "", bool(status_of(obj).get("attached")), age_cell(obj, now),
        ]  # fmt: skip
