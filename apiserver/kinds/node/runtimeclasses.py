"""RuntimeClasses: which way of running containers a pod asks for."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, kind, name_cell
from apiserver.kinds.checks import immutable, non_negative_quantity, validate_labels
from apiserver.kinds.core.pods.placement import validate_tolerations
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from navarch.api import names
from navarch.api.errors import Cause, invalid


class RuntimeClassStrategy(Strategy):
    kind = kind("node.k8s.io/v1", "RuntimeClass")
    unconditional_update = False
    generation = False
    create_on_update = True
    columns = (NAME_COLUMN, Column("Handler"), AGE_COLUMN)

    def validate(self, obj: Tree) -> list[Cause]:
        handler = obj.get("handler") or ""
        out = [invalid("handler", handler, m) for m in names.dns_label(handler)]
        for name, amount in sorted(((obj.get("overhead") or {}).get("podFixed") or {}).items()):
            out += non_negative_quantity(amount, f"overhead.podFixed[{name}]")
        scheduling = obj.get("scheduling") or {}
        out += validate_labels(scheduling.get("nodeSelector"), "scheduling.nodeSelector")
        return out + validate_tolerations(scheduling.get("tolerations"), "scheduling.tolerations")

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return self.validate(obj) + immutable(obj.get("handler"), old.get("handler"), "handler")

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), obj.get("handler") or "", age_cell(obj, now)]
