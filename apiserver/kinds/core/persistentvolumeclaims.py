"""PersistentVolumeClaims: a request for a volume, bound to one PersistentVolume."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, at, fill, kind, name_cell, spec_of, status_of
from apiserver.kinds.checks import (
    non_negative_quantity,
    optional_name,
    positive_quantity,
    validate_label_selector,
)
from apiserver.kinds.core.pods.update import difference
from apiserver.kinds.core.pods.warnings import claim_warnings
from apiserver.kinds.core.volumefields import access_modes, modes_text, phase_cell, storage_class, volume_mode
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names, quantity
from navarch.api.errors import Cause, forbidden, invalid, required

CLAIM_UNCHANGEABLE = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)


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

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        return claim_warnings(obj)

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
