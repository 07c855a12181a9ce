"""CSIStorageCapacities: how much room a driver has, where."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import kind, name_cell
from apiserver.kinds.checks import (
    immutable,
    non_negative_quantity,
    validate_label_selector,
)
from apiserver.registry.strategy import NAME_COLUMN, Column, Strategy, Tree
from navarch.api import names
from navarch.api.errors import Cause, invalid


class CSIStorageCapacityStrategy(Strategy):
    kind = kind("storage.k8s.io/v1", "CSIStorageCapacity")
    unconditional_update = False
    generation = False
    columns = (NAME_COLUMN, Column("StorageClassName"), Column("Capacity"))

    def validate(self, obj: Tree) -> list[Cause]:
        class_name = obj.get("storageClassName") or ""
        out = [invalid("storageClassName", class_name, m) for m in names.dns_subdomain(class_name)]
        out += validate_label_selector(obj.get("nodeTopology"), "nodeTopology")
        for field in ("capacity", "maximumVolumeSize"):
            if obj.get(field) is not None:
                out += non_negative_quantity(obj[field], field)
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        out = self.validate(obj)
        for field in ("nodeTopology", "storageClassName"):
            out += immutable(obj.get(field), old.get(field), field)
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        capacity = obj.get("capacity")
        return [name_cell(obj), obj.get("storageClassName") or "", "<unset>" if capacity is None else str(capacity)]
