"""ResourceQuotas: the most that a namespace may use. Admission enforces them."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, kind, name_cell, spec_of, status_of
from apiserver.kinds.checks import non_negative_quantity
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names, quantity
from navarch.api.errors import Cause, invalid, required

COUNTED = (
    "configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services",
    "services.loadbalancers", "services.nodeports",
)  # fmt: skip
COMPUTE = (
    "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage",
    "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage",
)  # fmt: skip
POD_SCOPED = (*(c for c in COMPUTE if c != "requests.storage"), "pods")
SCOPES = (
    "BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating",
    "VolumeAttributesClass",
)  # fmt: skip
OPERATORS = ("DoesNotExist", "Exists", "In", "NotIn")


def is_countable(name: str) -> bool:
    return name in COUNTED or name.startswith("count/")


class ResourceQuotaStrategy(Strategy):
    kind = kind("v1", "ResourceQuota")
    has_status = True
    generation = False
    columns = (NAME_COLUMN, Column("Request"), Column("Limit"), AGE_COLUMN)

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = {}

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        return _amounts(spec.get("hard"), "spec.hard") + _scopes(spec, "spec") + _selector(spec, "spec")

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        new, was = spec_of(obj), spec_of(old)
        out = self.validate(obj)
        for field in ("scopes", "scopeSelector"):
            before, after = was.get(field), new.get(field)
            if field == "scopes":
                before, after = sorted(before or ()), sorted(after or ())
            if before != after:
                out.append(invalid(f"spec.{field}", after, "field is immutable"))
        return out

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        status = status_of(obj)
        return _amounts(status.get("hard"), "status.hard") + _amounts(status.get("used"), "status.used")

    def cells(self, obj: Tree, now: float) -> list[Any]:
        status = status_of(obj)
        hard, used = status.get("hard") or {}, status.get("used") or {}
        texts = {name: f"{name}: {used.get(name, 0)}/{hard[name]}" for name in sorted(hard)}
        requests = ", ".join(text for name, text in texts.items() if not name.startswith("limits."))
        limits = ", ".join(text for name, text in texts.items() if name.startswith("limits."))
        return [name_cell(obj), requests, limits, age_cell(obj, now)]


def _resource_name(name: str, path: str) -> list[Cause]:
    wrong = [invalid(path, name, m) for m in names.qualified_name(name)]
    if not wrong and "/" not in name and name not in COUNTED + COMPUTE and not _huge(name):
        wrong = [invalid(path, name, "must be a standard resource for quotas")]
    return wrong


def _huge(name: str) -> bool:
    return name.startswith(("hugepages-", "requests.hugepages-")) or ".storageclass.storage.k8s.io/" in name


def _amounts(listed: Tree | None, path: str) -> list[Cause]:
    out: list[Cause] = []
    for name, value in sorted((listed or {}).items()):
        at = f"{path}[{name}]"
        out += _resource_name(name, at) + non_negative_quantity(value, at)
        if is_countable(name) and quantity.milli(value) % 1000:
            out.append(invalid(at, str(value), "must be an integer"))
    return out


def _scopes(spec: Tree, path: str) -> list[Cause]:
    scopes, out = spec.get("scopes") or [], []
    hard = sorted(spec.get("hard") or {})
    for scope in scopes:
        if scope not in SCOPES:
            out.append(invalid(f"{path}.scopes", scopes, "unsupported scope"))
        elif any(_out_of_scope(scope, name) for name in hard):
            out.append(invalid(f"{path}.scopes", scopes, "unsupported scope applied to resource"))
    for one, other in (("BestEffort", "NotBestEffort"), ("NotTerminating", "Terminating")):
        if one in scopes and other in scopes:
            out.append(invalid(f"{path}.scopes", scopes, "conflicting scopes"))
    return out


def _out_of_scope(scope: str, name: str) -> bool:
    if scope == "BestEffort":
        return name != "pods"
    if scope == "VolumeAttributesClass":
        return name not in ("persistentvolumeclaims", "requests.storage")
    return name not in POD_SCOPED


def _selector(spec: Tree, path: str) -> list[Cause]:
    """The scope selector: like scopes, with values for PriorityClass."""
    out: list[Cause] = []
    expressions = (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    valued = ("PriorityClass", "VolumeAttributesClass")
    for i, one in enumerate(expressions):
        at = f"{path}.scopeSelector.matchExpressions[{i}]"
        scope, operator, values = one.get("scopeName") or "", one.get("operator") or "", one.get("values") or []
        if scope not in SCOPES:
            out.append(invalid(f"{at}.scopeName", scope, "unsupported scope"))
        elif any(_out_of_scope(scope, name) for name in sorted(spec.get("hard") or {})):
            out.append(invalid(f"{path}.scopeSelector", spec["scopeSelector"], "unsupported scope applied to resource"))
        if scope and scope not in valued and operator != "Exists":
            text = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
            text += "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or "
            text += "ResourceQuotaScopeCrossNamespacePodAffinity"
            out.append(invalid(f"{at}.operator", operator, text))
        if operator not in OPERATORS:
            out.append(invalid(f"{at}.operator", operator, "not a valid selector operator"))
        elif operator in ("In", "NotIn") and not values:
            text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            out.append(required(f"{at}.values", text))
        elif operator in ("Exists", "DoesNotExist") and values:
            text = "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector"
            out.append(invalid(f"{at}.values", values, text))
    return out
