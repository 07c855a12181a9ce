"""Roles: rights in one namespace."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import kind, meta_of, name_cell
from apiserver.kinds.rbac.rules import CREATED_AT, GROUP, RbacStrategy, rule_causes
from apiserver.registry.strategy import NAME_COLUMN, Tree
from navarch.api.errors import Cause


class RoleStrategy(RbacStrategy):
    kind = kind(f"{GROUP}/v1", "Role")
    columns = (NAME_COLUMN, CREATED_AT)

    def validate(self, obj: Tree) -> list[Cause]:
        rules = obj.get("rules") or ()
        return [c for i, rule in enumerate(rules) for c in rule_causes(rule, f"rules[{i}]", True)]

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), meta_of(obj).get("creationTimestamp") or ""]
