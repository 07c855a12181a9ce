"""Roles and bindings: who may do what."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, kind, meta_of, name_cell
from apiserver.kinds.checks import validate_label_selector
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from navarch.api import names
from navarch.api.errors import Cause, invalid, not_supported, required

GROUP = "rbac.authorization.k8s.io"
CREATED_AT = Column("Created At")
SUBJECTS = ("Group", "ServiceAccount", "User")


class _Rbac(Strategy):
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


class RoleStrategy(_Rbac):
    kind = kind(f"{GROUP}/v1", "Role")
    columns = (NAME_COLUMN, CREATED_AT)

    def validate(self, obj: Tree) -> list[Cause]:
        rules = obj.get("rules") or ()
        return [c for i, rule in enumerate(rules) for c in rule_causes(rule, f"rules[{i}]", True)]

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), meta_of(obj).get("creationTimestamp") or ""]


class ClusterRoleStrategy(_Rbac):
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


class RoleBindingStrategy(_Rbac):
    kind = kind(f"{GROUP}/v1", "RoleBinding")
    columns = (
        NAME_COLUMN, Column("Role"), AGE_COLUMN, Column("Users", priority=1), Column("Groups", priority=1),
        Column("ServiceAccounts", priority=1),
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        reference = obj.get("roleRef")
        if reference is not None and not reference.get("apiGroup"):
            reference["apiGroup"] = GROUP
        for subject in obj.get("subjects") or ():
            if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
                subject["apiGroup"] = GROUP

    def validate(self, obj: Tree) -> list[Cause]:
        reference, out = obj.get("roleRef") or {}, []
        kinds = ("ClusterRole", "Role") if self.kind.namespaced else ("ClusterRole",)
        if reference.get("apiGroup") != GROUP:
            out.append(not_supported("roleRef.apiGroup", reference.get("apiGroup") or "", (GROUP,)))
        if reference.get("kind") not in kinds:
            out.append(not_supported("roleRef.kind", reference.get("kind") or "", kinds))
        name = reference.get("name") or ""
        if not name:
            out.append(required("roleRef.name"))
        out += [invalid("roleRef.name", name, m) for m in names.path_segment(name)]
        for i, subject in enumerate(obj.get("subjects") or ()):
            out += _subject(subject, f"subjects[{i}]", self.kind.namespaced)
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        out = self.validate(obj)
        if obj.get("roleRef") != old.get("roleRef"):
            out.append(invalid("roleRef", obj.get("roleRef"), "cannot change roleRef"))
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        reference, subjects = obj.get("roleRef") or {}, obj.get("subjects") or ()
        accounts = [
            f"{s.get('namespace', '')}/{s.get('name', '')}" for s in subjects if s.get("kind") == "ServiceAccount"
        ]

        def of(word: str) -> str:
            return ", ".join(s.get("name", "") for s in subjects if s.get("kind") == word)

        return [
            name_cell(obj), f"{reference.get('kind', '')}/{reference.get('name', '')}", age_cell(obj, now),
            of("User"), of("Group"), ", ".join(accounts),
        ]  # fmt: skip


class ClusterRoleBindingStrategy(RoleBindingStrategy):
    kind = kind(f"{GROUP}/v1", "ClusterRoleBinding")


def _subject(subject: Tree, at: str, namespaced: bool) -> list[Cause]:
    out: list[Cause] = []
    name, group = subject.get("name") or "", subject.get("apiGroup") or ""
    if not name:
        out.append(required(f"{at}.name"))
    match subject.get("kind"):
        case "ServiceAccount":
            if name:
                out += [invalid(f"{at}.name", name, m) for m in names.dns_subdomain(name)]
            if group:
                out.append(not_supported(f"{at}.apiGroup", group, ("",)))
            if not namespaced and not subject.get("namespace"):
                out.append(required(f"{at}.namespace"))
        case "User" | "Group":
            if group != GROUP:
                out.append(not_supported(f"{at}.apiGroup", group, (GROUP,)))
        case other:
            out.append(not_supported(f"{at}.kind", other or "", SUBJECTS))
    return out
