"""RoleBindings and ClusterRoleBindings: who has the rights of a role. They differ in scope alone."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, kind, name_cell
from apiserver.kinds.rbac.rules import GROUP, RbacStrategy
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Tree
from navarch.api import names
from navarch.api.errors import Cause, invalid, not_supported, required

SUBJECTS = ("Group", "ServiceAccount", "User")


class RoleBindingStrategy(RbacStrategy):
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
