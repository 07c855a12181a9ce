"""PersistentVolumes and the claims that bind to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apiserver.kinds.cells import age_cell, at, fill, kind, meta_of, name_cell, spec_of, status_of
from apiserver.kinds.checks import (
    immutable,
    non_negative_quantity,
    optional_name,
    positive_quantity,
    validate_label_selector,
)
from apiserver.kinds.core.pods.update import difference
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names, quantity
from navarch.api.errors import Cause, forbidden, invalid, not_supported, required

CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
VOLUME_MODES = ("Block", "Filesystem")
RECLAIM = ("Delete", "Recycle", "Retain")
# What a PersistentVolumeSpec has besides the one field that says where the volume is.
NOT_SOURCES = (
    "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
    "storageClassName", "volumeAttributesClassName", "volumeMode",
)  # fmt: skip
CLAIM_UNCHANGEABLE = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)


def modes_text(modes: Sequence[str] | None) -> str:
    """``RWO,ROX``: known modes, each once, in Kubernetes' order."""
    return ",".join(short for mode, short in MODES.items() if mode in (modes or ()))


def access_modes(spec: Tree, path: str, missing: str = "") -> list[Cause]:
    modes = spec.get("accessModes") or []
    out = [not_supported(f"{path}.accessModes", mode, list(MODES)) for mode in modes if mode not in MODES]
    if not modes:
        out.append(required(f"{path}.accessModes", missing))
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        text = "may not use ReadWriteOncePod with other access modes"
        out.append(forbidden(f"{path}.accessModes", text))
    return out


def volume_mode(spec: Tree, path: str) -> list[Cause]:
    mode = spec.get("volumeMode")
    if mode is None or mode in VOLUME_MODES:
        return []
    return [not_supported(f"{path}.volumeMode", mode, VOLUME_MODES)]


def storage_class(obj: Tree) -> str:
    """The class of a volume or a claim, by its old name too."""
    old = (meta_of(obj).get("annotations") or {}).get(CLASS_ANNOTATION)
    return old or spec_of(obj).get("storageClassName") or ""


def phase_cell(obj: Tree) -> str:
    return "Terminating" if meta_of(obj).get("deletionTimestamp") else status_of(obj).get("phase") or ""


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
    found = [field for field in spec if field not in NOT_SOURCES]
    if not found:
        return [required("spec", "must specify a volume type")]
    out = [forbidden(f"spec.{extra}", "may not specify more than 1 volume type") for extra in found[1:]]
    source, here = spec[found[0]], f"spec.{found[0]}"
    match found[0]:
        case "hostPath" | "local" | "nfs":
            path = source.get("path") or ""
            if found[0] == "nfs" and not source.get("server"):
                out.append(required(f"{here}.server"))
            if not path:
                out.append(required(f"{here}.path"))
            elif found[0] == "nfs" and not path.startswith("/"):
                out.append(invalid(f"{here}.path", path, "must be an absolute path"))
            elif ".." in path.split("/"):
                out.append(invalid(f"{here}.path", path, "must not contain '..'"))
            if found[0] == "hostPath" and path.strip("/") == "" and path and policy == "Recycle":
                text = "may not be 'recycle' for a hostPath mount of '/'"
                out.append(forbidden("spec.persistentVolumeReclaimPolicy", text))
            if found[0] == "local" and not spec.get("nodeAffinity"):
                out.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
        case "csi":
            out += [required(f"{here}.{f}") for f in ("driver", "volumeHandle") if not source.get(f)]
    return out


def default_claim(claim: Tree) -> None:
    """The defaults of a PersistentVolumeClaim, alone or as a template."""
    fill(claim.setdefault("spec", {}), volumeMode="Filesystem")
    status = claim.setdefault("status", {})
    if not status.get("phase"):
        status["phase"] = "Pending"


def validate_claim_spec(spec: Tree, path: str) -> list[Cause]:
    out = validate_label_selector(spec.get("selector"), f"{path}.selector")
    out += access_modes(spec, path, "at least 1 access mode is required")
    size, here = at(spec, "resources", "requests", "storage"), f"{path}.resources[storage]"
    if size is None:
        out.append(required(here))
    else:
        out += non_negative_quantity(size, here) + positive_quantity(size, here)
    out += optional_name(spec.get("storageClassName"), f"{path}.storageClassName", names.dns_subdomain)
    out += volume_mode(spec, path)
    for field in ("dataSource", "dataSourceRef"):
        source = spec.get(field)
        if source is None:
            continue
        out += [required(f"{path}.{field}.{f}") for f in ("name", "kind") if not source.get(f)]
        if not source.get("apiGroup") and source.get("kind") not in ("", None, "PersistentVolumeClaim"):
            text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
            out.append(invalid(f"{path}.{field}", source["kind"], text))
    one, other = spec.get("dataSource"), spec.get("dataSourceRef")
    if one is not None and other is not None and one != other:
        out.append(invalid(path, one, "must match dataSourceRef"))
    return out


class PersistentVolumeClaimStrategy(Strategy):
    kind = kind("v1", "PersistentVolumeClaim")
    has_status = True
    generation = False
    columns = (
        NAME_COLUMN, Column("Status"), Column("Volume"), Column("Capacity"), Column("Access Modes"),
        Column("StorageClass"), Column("VolumeAttributesClass"), AGE_COLUMN, Column("VolumeMode", priority=1),
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        default_claim(obj)

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = {"phase": "Pending"}
        # One value under two names; only the new one can point into another namespace.
        spec = obj.setdefault("spec", {})
        source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
        if source is not None and reference is None:
            spec["dataSourceRef"] = dict(source)
        elif reference is not None and source is None and not reference.get("namespace"):
            spec["dataSource"] = dict(reference)

    def validate(self, obj: Tree) -> list[Cause]:
        return validate_claim_spec(spec_of(obj), "spec")

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        new, was = dict(spec_of(obj)), spec_of(old)
        out = self.validate(obj)
        if not was.get("volumeName"):
            new.pop("volumeName", None)  # may be set once
        if was.get("storageClassName") is None and not was.get("volumeName"):
            new.pop("storageClassName", None)  # the default class may come later
        if status_of(old).get("phase") == "Bound":
            for field in ("resources", "volumeAttributesClassName"):
                new.pop(field, None)
                if field in was:
                    new[field] = was[field]
            out += _resized(obj, old)
        if new != was:
            out.append(forbidden("spec", f"{CLAIM_UNCHANGEABLE}\n{difference(was, new)}"))
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec, status = spec_of(obj), status_of(obj)
        capacity = modes = ""
        if spec.get("volumeName"):
            modes = modes_text(status.get("accessModes"))
            capacity = str((status.get("capacity") or {}).get("storage", "0"))
        return [
            name_cell(obj), phase_cell(obj), spec.get("volumeName") or "", capacity, modes, storage_class(obj),
            spec.get("volumeAttributesClassName") or "<unset>", age_cell(obj, now), spec.get("volumeMode") or "<unset>",
        ]  # fmt: skip


def _resized(obj: Tree, old: Tree) -> list[Cause]:
    """A bound claim grows, or shrinks no further than what it has."""
    new, was = (at(spec_of(o), "resources", "requests", "storage") for o in (obj, old))
    if new is None or was is None or quantity.compare(new, was) >= 0:
        return []
    have = (status_of(old).get("capacity") or {}).get("storage")
    if have is not None and quantity.compare(new, have) > 0:
        return []
    text = "field can not be less than status.capacity"
    return [forbidden("spec.resources.requests.storage", text)]
