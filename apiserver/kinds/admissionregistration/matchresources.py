"""matchResources and matchConstraints: which requests a policy or its binding is about."""

from __future__ import annotations

from apiserver.kinds.admissionregistration.webhooks import rule_causes
from apiserver.kinds.cells import fill
from apiserver.kinds.checks import validate_label_selector
from apiserver.registry.strategy import Tree
from navarch.api import names
from navarch.api.errors import Cause, duplicate, invalid, not_supported

UNSET = "<unset>"


def default_match(match: Tree) -> None:
    """Defaults of matchConstraints and matchResources."""
    fill(match, matchPolicy="Equivalent", namespaceSelector={}, objectSelector={})
    for field in ("resourceRules", "excludeResourceRules"):
        for rule in match.get(field) or ():
            fill(rule, scope="*")


def match_causes(match: Tree, at: str) -> list[Cause]:
    out: list[Cause] = []
    policy = match.get("matchPolicy")
    if policy not in ("Equivalent", "Exact"):
        out.append(not_supported(f"{at}.matchPolicy", policy or "", ("Equivalent", "Exact")))
    for field in ("namespaceSelector", "objectSelector"):
        out += validate_label_selector(match.get(field), f"{at}.{field}")
    for field in ("resourceRules", "excludeResourceRules"):
        for i, rule in enumerate(match.get(field) or ()):
            where = f"{at}.{field}[{i}]"
            resource_names = rule.get("resourceNames") or []
            for j, name in enumerate(resource_names):
                out += [invalid(f"{where}.resourceNames[{j}]", name, m) for m in names.path_segment(name)]
                if name in resource_names[:j]:
                    out.append(duplicate(f"{where}.resourceNames[{j}]", name))
            out += rule_causes(rule, where)
    return out
