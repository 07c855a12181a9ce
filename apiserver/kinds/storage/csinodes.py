"""CSINodes: the storage drivers of one node, and how many volumes each may attach."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, fill, kind, name_cell, spec_of
from apiserver.kinds.checks import (
    non_negative,
)
from apiserver.kinds.storage.drivers import driver_name
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from navarch.api import names
from navarch.api.errors import Cause, duplicate, invalid, required

MAX_NODE_ID = 256


class CSINodeStrategy(Strategy):
    kind = kind("storage.k8s.io/v1", "CSINode")
    unconditional_update = False
    generation = False
    columns = (NAME_COLUMN, Column("Drivers", "integer"), AGE_COLUMN)

    def default(self, obj: Tree) -> None:
        fill(obj.setdefault("spec", {}), drivers=[])

    def validate(self, obj: Tree) -> list[Cause]:
        out: list[Cause] = []
        earlier: list[str] = []
        for i, driver in enumerate(spec_of(obj).get("drivers") or ()):
            at, name, node = f"spec.drivers[{i}]", driver.get("name") or "", driver.get("nodeID") or ""
            out += driver_name(name, f"{at}.name")
            if name in earlier:
                out.append(duplicate(f"{at}.name", name))
            earlier.append(name)
            if not node:
                out.append(required(f"{at}.nodeID"))
            elif len(node) > MAX_NODE_ID:
                out.append(invalid(f"{at}.nodeID", node, f"must be {MAX_NODE_ID} characters or less"))
            out += non_negative((driver.get("allocatable") or {}).get("count"), f"{at}.allocatable.count")
            keys = driver.get("topologyKeys") or []
            for j, key in enumerate(keys):
                if not key:
                    out.append(required(f"{at}.topologyKeys"))
                if key in keys[:j]:
                    out.append(duplicate(f"{at}.topologyKeys", key))
                out += [invalid(f"{at}.topologyKeys", key, m) for m in names.qualified_name(key) if key]
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        out = self.validate(obj)
        before = {d.get("name"): d for d in spec_of(old).get("drivers") or ()}
        for i, driver in enumerate(spec_of(obj).get("drivers") or ()):
            was = before.get(driver.get("name"))
            if was is not None and {**driver, "allocatable": 0} != {**was, "allocatable": 0}:
                out.append(invalid(f"spec.drivers[{i}]", driver, "field is immutable"))
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), len(spec_of(obj).get("drivers") or ()), age_cell(obj, now)]
