"""PersistentVolumes and the claims that bind to them."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, fill, kind, name_cell, spec_of, status_of
from apiserver.kinds.checks import (
    immutable,
    non_negative_quantity,
    optional_name,
    positive_quantity,
)
from apiserver.kinds.core.pods.defaults import default_volume_source
from apiserver.kinds.core.pods.update import difference
from apiserver.kinds.core.volumefields import access_modes, modes_text, phase_cell, storage_class, volume_mode
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.errors import Cause, forbidden, invalid, not_supported, required

RECLAIM = ("Delete", "Recycle", "Retain")
# What a PersistentVolumeSpec has besides the one field that says where the volume is.
NOT_SOURCES = (
    "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
    "storageClassName", "volumeAttributesClassName", "volumeMode",
)  # fmt: skip


class PersistentVolumeStrategy(Strategy):
    kind = kind("v1", "PersistentVolume")
    has_status = True
    generation = False
    columns = (
        NAME_COLUMN, Column("Capacity"), Column("Access Modes"), Column("Reclaim Policy"), Column("Status"),
        Column("Claim"), Column("StorageClass"), Column("VolumeAttributesClass"), Column("Reason"), AGE_COLUMN,
        Column("VolumeMode", priority=1),
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("persistentVolumeReclaimPolicy"):
            spec["persistentVolumeReclaimPolicy"] = "Retain"
        fill(spec, volumeMode="Filesystem")
        if spec.get("hostPath") is not None:
            fill(spec["hostPath"], type="")
        default_volume_source(spec)
        status = obj.setdefault("status", {})
        if not status.get("phase"):
            status["phase"] = "Pending"

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = {"phase": "Pending"}

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        out = access_modes(spec, "spec")
        capacity = spec.get("capacity") or {}
        if not capacity:
            out.append(required("spec.capacity"))
        elif list(capacity) != ["storage"]:
            out.append(not_supported("spec.capacity", capacity, ("storage",)))
        for name, value in sorted(capacity.items()):
            here = f"spec.capacity[{name}]"
            out += non_negative_quantity(value, here) + positive_quantity(value, here)
        policy = spec.get("persistentVolumeReclaimPolicy")
        if policy not in RECLAIM:
            out.append(not_supported("spec.persistentVolumeReclaimPolicy", policy or "", RECLAIM))
        affinity = spec.get("nodeAffinity")
        if affinity is not None and not affinity.get("required"):
            out.append(required("spec.nodeAffinity.required", "must specify required node constraints"))
        out += _source(spec, policy)
        out += optional_name(spec.get("storageClassName"), "spec.storageClassName", names.dns_subdomain)
        return out + volume_mode(spec, "spec")

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        new, was, out = spec_of(obj), spec_of(old), self.validate(obj)
        sources = [{k: v for k, v in spec.items() if k not in NOT_SOURCES} for spec in (new, was)]
        if sources[0] != sources[1]:
            text = f"spec.persistentvolumesource is immutable after creation\n{difference(sources[1], sources[0])}"
            out.append(forbidden("spec.persistentvolumesource", text))
        out += immutable(new.get("volumeMode"), was.get("volumeMode"), "spec.volumeMode")
        if was.get("nodeAffinity") is not None and new.get("nodeAffinity") != was["nodeAffinity"]:
            text = "field is immutable, except for updating from beta label to GA"
            out.append(invalid("spec.nodeAffinity", new.get("nodeAffinity"), text))
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec, claim = spec_of(obj), spec_of(obj).get("claimRef")
        bound = f"{claim.get('namespace') or ''}/{claim.get('name') or ''}" if claim else ""
        return [
            name_cell(obj), str((spec.get("capacity") or {}).get("storage", "0")), modes_text(spec.get("accessModes")),
            spec.get("persistentVolumeReclaimPolicy") or "", phase_cell(obj), bound, storage_class(obj),
            spec.get("volumeAttributesClassName") or "<unset>", status_of(obj).get("reason") or "", age_cell(obj, now),
            spec.get("volumeMode") or "<unset>",
        ]  # fmt: skip


def _source(spec: Tree, policy: Any) -> list[Cause]:
    sources = [field for field in spec if field not in NOT_SOURCES]
    if not sources:
        return [required("spec", "must specify a volume type")]
    out = [forbidden(f"spec.{extra}", "may not specify more than 1 volume type") for extra in sources[1:]]
    source, here = spec[sources[0]], f"spec.{sources[0]}"
    match sources[0]:
        case "hostPath" | "local" | "nfs":
            path = source.get("path") or ""
            if sources[0] == "nfs" and not source.get("server"):
                out.append(required(f"{here}.server"))
            if not path:
                out.append(required(f"{here}.path"))
            elif sources[0] == "nfs" and not path.startswith("/"):
                out.append(invalid(f"{here}.path", path, "must be an absolute path"))
            elif ".." in path.split("/"):
                out.append(invalid(f"{here}.path", path, "must not contain '..'"))
            if sources[0] == "hostPath" and path.strip("/") == "" and path and policy == "Recycle":
                text = "may not be 'recycle' for a hostPath mount of '/'"
                out.append(forbidden("spec.persistentVolumeReclaimPolicy", text))
            if sources[0] == "local" and not spec.get("nodeAffinity"):
                out.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
        case "csi":
            out += [required(f"{here}.{f}") for f in ("driver", "volumeHandle") if not source.get(f)]
    return out
