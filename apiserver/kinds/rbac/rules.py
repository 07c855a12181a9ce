"""The rules that roles and bindings share."""

from __future__ import annotations

from apiserver.registry.strategy import Column, Strategy, Tree
from navarch.api import names
from navarch.api.errors import Cause, invalid, required

GROUP = "rbac.authorization.k8s.io"
CREATED_AT = Column("Created At")


class RbacStrategy(Strategy):
    generation = False
    create_on_update = True

    def name_causes(self, name: str, prefix: bool) -> list[str]:
        return names.path_segment(name)


def rule_causes(rule: Tree, at: str, namespaced: bool) -> list[Cause]:
    """A PolicyRule names verbs, and either resources of groups, or URLs."""
    out: list[Cause] = []
    if not rule.get("verbs"):
        out.append(required(f"{at}.verbs", "verbs must contain at least one value"))
    urls = rule.get("nonResourceURLs") or []
    if urls:
        if namespaced:
            out.append(invalid(f"{at}.nonResourceURLs", urls, "namespaced rules cannot apply to non-resource URLs"))
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            text = "rules cannot apply to both regular resources and non-resource URLs"
            out.append(invalid(f"{at}.nonResourceURLs", urls, text))
        return out
    if not rule.get("apiGroups"):
        out.append(required(f"{at}.apiGroups", "resource rules must supply at least one api group"))
    if not rule.get("resources"):
        out.append(required(f"{at}.resources", "resource rules must supply at least one resource"))
    return out
