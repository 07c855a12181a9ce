"""StorageClasses: how volumes are made for claims."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, fill, kind, meta_of, name_cell
from apiserver.kinds.checks import (
    immutable,
    one_of,
)
from apiserver.kinds.storage.drivers import parameters_causes
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from navarch.api import names, wellknown
from navarch.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required

DEFAULT_CLASS = (wellknown.DEFAULT_STORAGE_CLASS, wellknown.BETA_DEFAULT_STORAGE_CLASS)
RECLAIM = ("Delete", "Retain")
BINDING = ("Immediate", "WaitForFirstConsumer")


def is_default_class(obj: Tree) -> bool:
    notes = meta_of(obj).get("annotations") or {}
    return any(notes.get(key) == "true" for key in DEFAULT_CLASS)


class StorageClassStrategy(Strategy):
    kind = kind("storage.k8s.io/v1", "StorageClass")
    generation = False
    columns = (
        NAME_COLUMN, Column("Provisioner"), Column("ReclaimPolicy"), Column("VolumeBindingMode"),
        Column("AllowVolumeExpansion"), AGE_COLUMN,
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        fill(obj, reclaimPolicy="Delete", volumeBindingMode="Immediate")

    def validate(self, obj: Tree) -> list[Cause]:
        provisioner, policy = obj.get("provisioner") or "", obj.get("reclaimPolicy") or ""
        out: list[Cause] = []
        if not provisioner:
            out.append(required("provisioner"))
        out += [invalid("provisioner", provisioner, m) for m in names.qualified_name(provisioner.lower()) if provisioner]
        out += parameters_causes(obj.get("parameters"), "parameters")
        if policy and policy not in RECLAIM:
            out.append(not_supported("reclaimPolicy", policy, RECLAIM))
        out += one_of(obj.get("volumeBindingMode"), "volumeBindingMode", BINDING)
        return out + _topologies(obj.get("allowedTopologies") or (), "allowedTopologies")

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        out = []
        for field in ("parameters", "provisioner", "reclaimPolicy"):
            if (obj.get(field) or None) != (old.get(field) or None):
                out.append(forbidden(field, f"updates to {field} are forbidden."))
        out += immutable(obj.get("volumeBindingMode"), old.get("volumeBindingMode"), "volumeBindingMode")
        return out + _topologies(obj.get("allowedTopologies") or (), "allowedTopologies")

    def cells(self, obj: Tree, now: float) -> list[Any]:
        name = name_cell(obj) + (" (default)" if is_default_class(obj) else "")
        return [
            name, obj.get("provisioner") or "", obj.get("reclaimPolicy") or "Delete",
            obj.get("volumeBindingMode") or "Immediate", bool(obj.get("allowVolumeExpansion")), age_cell(obj, now),
        ]  # fmt: skip


def _topologies(terms: Any, path: str) -> list[Cause]:
    out: list[Cause] = []
    for i, term in enumerate(terms):
        keys: list[str] = []
        for j, one in enumerate(term.get("matchLabelExpressions") or ()):
            at, key, values = f"{path}[{i}].matchLabelExpressions[{j}]", one.get("key") or "", one.get("values") or []
            out += [invalid(f"{at}.key", key, m) for m in names.qualified_name(key)]
            if not values:
                out.append(required(f"{at}.values"))
            out += [duplicate(f"{at}.values[{n}]", v) for n, v in enumerate(values) if v in values[:n]]
            if key in keys:
                out.append(duplicate(f"{at}.key", key))
            keys.append(key)
    return out
