"""ClusterRoles: rights everywhere, also gathered from other ClusterRoles by label."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import kind, meta_of, name_cell
from apiserver.kinds.checks import validate_label_selector
from apiserver.kinds.rbac.rules import CREATED_AT, GROUP, RbacStrategy, rule_causes
from apiserver.registry.strategy import NAME_COLUMN, Tree
from navarch.api.errors import Cause, required


class ClusterRoleStrategy(RbacStrategy):
    kind = kind(f"{GROUP}/v1", "ClusterRole")
    columns = (NAME_COLUMN, CREATED_AT)

    def validate(self, obj: Tree) -> list[Cause]:
        rules = obj.get("rules") or ()
        out = [c for i, rule in enumerate(rules) for c in rule_causes(rule, f"rules[{i}]", False)]
        aggregation = obj.get("aggregationRule")
        if aggregation is not None:
            selectors = aggregation.get("clusterRoleSelectors") or []
            at = "aggregationRule.clusterRoleSelectors"
            if not selectors:
                out.append(required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
            for i, selector in enumerate(selectors):
                out += validate_label_selector(selector, f"{at}[{i}]")
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), meta_of(obj).get("creationTimestamp") or ""]
