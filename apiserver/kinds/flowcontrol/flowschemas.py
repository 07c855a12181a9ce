"""FlowSchemas: which requests go to which priority level."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, condition, fill_empty, kind, name_cell, spec_of
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.errors import Cause, forbidden, invalid, not_supported, required

GROUP = "flowcontrol.apiserver.k8s.io/v1"
VERBS = ("*", "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
SUBJECTS = {"Group": "group", "ServiceAccount": "serviceAccount", "User": "user"}
METHODS = ("ByNamespace", "ByUser")
MAX_PRECEDENCE = 10000


class FlowSchemaStrategy(Strategy):
    kind = kind(GROUP, "FlowSchema")
    has_status = True
    columns = (
        NAME_COLUMN, Column("PriorityLevel"), Column("MatchingPrecedence", "integer"), Column("DistinguisherMethod"),
        AGE_COLUMN, Column("MissingPL"),
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        fill_empty(obj.setdefault("spec", {}), matchingPrecedence=1000)

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = {}

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        precedence, out = spec.get("matchingPrecedence") or 0, []
        if precedence <= 0:
            out.append(invalid("spec.matchingPrecedence", precedence, "must be a positive value"))
        if precedence > MAX_PRECEDENCE:
            text = f"must not be greater than {MAX_PRECEDENCE}"
            out.append(invalid("spec.matchingPrecedence", precedence, text))
        if precedence == 1 and name_cell(obj) != "exempt":
            text = "only the schema named 'exempt' may have matchingPrecedence 1"
            out.append(invalid("spec.matchingPrecedence", precedence, text))
        method = spec.get("distinguisherMethod")
        if method is not None and method.get("type") not in METHODS:
            out.append(not_supported("spec.distinguisherMethod", method.get("type") or "", METHODS))
        level, at = (spec.get("priorityLevelConfiguration") or {}).get("name") or "", "spec.priorityLevelConfiguration.name"
        out += [invalid(at, level, m) for m in names.dns_subdomain(level)] if level else [
            required(at, "must reference a priority level")
        ]
        for i, rule in enumerate(spec.get("rules") or ()):
            out += _rule(rule, f"spec.rules[{i}]")
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec, missing = spec_of(obj), condition(obj, "Dangling")
        return [
            name_cell(obj), (spec.get("priorityLevelConfiguration") or {}).get("name") or "",
            spec.get("matchingPrecedence") or 0, (spec.get("distinguisherMethod") or {}).get("type") or "<none>",
            age_cell(obj, now), (missing or {}).get("status") or "?",
        ]  # fmt: skip


def _rule(rule: Tree, path: str) -> list[Cause]:
    subjects, resources, others = (rule.get(f) or [] for f in ("subjects", "resourceRules", "nonResourceRules"))
    out = [] if subjects else [required(f"{path}.subjects", "subjects must contain at least one value")]
    for i, subject in enumerate(subjects):
        at, field = f"{path}.subjects[{i}]", SUBJECTS.get(subject.get("kind") or "", "")
        if not field:
            out.append(not_supported(f"{at}.kind", subject.get("kind") or "", list(SUBJECTS)))
            continue
        one = subject.get(field)
        if one is None:
            out.append(required(f"{at}.{field}", f"{field} is required when subject kind is '{subject['kind']}'"))
        else:
            needed = ("name", "namespace") if field == "serviceAccount" else ("name",)
            out += [required(f"{at}.{field}.{f}") for f in needed if not one.get(f)]
        for other in SUBJECTS.values():
            if other != field and subject.get(other) is not None:
                word = next(k for k, v in SUBJECTS.items() if v == other)
                out.append(forbidden(f"{at}.{other}", f"{other} is forbidden when subject kind is not '{word}'"))
    if not resources and not others:
        text = "at least one of resourceRules and nonResourceRules has to be non-empty"
        out.append(required(path, text))
    for i, one in enumerate(resources):
        at = f"{path}.resourceRules[{i}]"
        out += _verbs(one, at)
        for field, text in (
            ("apiGroups", "resource rules must supply at least one api group"),
            ("resources", "resource rules must supply at least one resource"),
        ):
            if not one.get(field):
                out.append(required(f"{at}.{field}", text))
        if not one.get("namespaces") and not one.get("clusterScope"):
            text = "resource rules that are not cluster scoped must supply at least one namespace"
            out.append(required(f"{at}.namespaces", text))
    for i, one in enumerate(others):
        out += _verbs(one, f"{path}.nonResourceRules[{i}]")
        if not one.get("nonResourceURLs"):
            text = "nonResourceURLs must contain at least one value"
            out.append(required(f"{path}.nonResourceRules[{i}].nonResourceURLs", text))
    return out


def _verbs(rule: Tree, path: str) -> list[Cause]:
    verbs = rule.get("verbs") or []
    if not verbs:
        return [required(f"{path}.verbs", "verbs must contain at least one value")]
    if "*" in verbs and len(verbs) > 1:
        return [invalid(f"{path}.verbs", verbs, "if '*' is present, must not specify other verbs")]
    return [not_supported(f"{path}.verbs", verb, VERBS) for verb in verbs if verb not in VERBS and path.count("resourceR")]
