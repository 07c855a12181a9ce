"""ControllerRevisions: past templates of DaemonSets and StatefulSets. Their data never changes."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, kind, meta_of, name_cell
from apiserver.kinds.checks import immutable, non_negative
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from navarch.api.errors import Cause, required


class ControllerRevisionStrategy(Strategy):
    kind = kind("apps/v1", "ControllerRevision")
    generation = False
    columns = (NAME_COLUMN, Column("Controller"), Column("Revision"), AGE_COLUMN)

    def validate(self, obj: Tree) -> list[Cause]:
        out = [required("data", "data is mandatory")] if obj.get("data") is None else []
        return out + non_negative(obj.get("revision"), "revision")

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return self.validate(obj) + immutable(obj.get("data"), old.get("data"), "data")

    def cells(self, obj: Tree, now: float) -> list[Any]:
        owner = "<none>"
        for reference in meta_of(obj).get("ownerReferences") or ():
            if reference.get("controller"):
                group = (reference.get("apiVersion") or "").rpartition("/")[0]
                word = (reference.get("kind") or "").lower() + (f".{group}" if group else "")
                owner = f"{word}/{reference.get('name') or ''}"
        return [name_cell(obj), owner, obj.get("revision") or 0, age_cell(obj, now)]
