"""LimitRanges: defaults and bounds for each pod, container and claim of a namespace. Admission applies them."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import kind, meta_of, name_cell, spec_of
from apiserver.registry.strategy import NAME_COLUMN, Column, Strategy, Tree
from navarch.api import quantity
from navarch.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required

STANDARD_LIMITED = ("cpu", "memory", "ephemeral-storage", "storage")
LIMIT_TYPES = ("Container", "PersistentVolumeClaim", "Pod")


class LimitRangeStrategy(Strategy):
    kind = kind("v1", "LimitRange")
    generation = False
    create_on_update = True
    columns = (NAME_COLUMN, Column("Created At"))

    def default(self, obj: Tree) -> None:
        for limit in spec_of(obj).get("limits") or ():
            if limit.get("type") != "Container":
                continue
            default, request = limit.setdefault("default", {}), limit.setdefault("defaultRequest", {})
            for name, value in (limit.get("max") or {}).items():
                default.setdefault(name, value)
            for name, value in default.items():
                request.setdefault(name, value)
            for name, value in (limit.get("min") or {}).items():
                request.setdefault(name, value)
            for field in ("default", "defaultRequest"):
                if not limit[field]:
                    del limit[field]

    def validate(self, obj: Tree) -> list[Cause]:
        out: list[Cause] = []
        types: list[str] = []
        for i, limit in enumerate(spec_of(obj).get("limits") or ()):
            at, type_ = f"spec.limits[{i}]", limit.get("type") or ""
            if type_ not in LIMIT_TYPES and "/" not in type_:
                out.append(not_supported(f"{at}.type", type_, LIMIT_TYPES))
            if type_ in types:
                out.append(duplicate(f"{at}.type", type_))
            types.append(type_)
            out += _limit(limit, at, type_)
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), meta_of(obj).get("creationTimestamp") or ""]


def _limit(limit: Tree, at: str, type_: str) -> list[Cause]:
    fields = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
    most, least, default, request, ratio = (limit.get(f) or {} for f in fields)
    out: list[Cause] = []
    names: list[str] = []
    for field in fields:
        for name in sorted(limit.get(field) or {}):
            names.append(name)
            if "/" not in name and name not in STANDARD_LIMITED and not name.startswith("hugepages-"):
                text = "must be a standard limit type or fully qualified"
                out.append(invalid(f"{at}.{field}[{name}]", name, text))
    if type_ == "Pod":
        for field in ("default", "defaultRequest"):
            if limit.get(field):
                text = "may not be specified when `type` is 'Pod'"
                out.append(forbidden(f"{at}.{field}", text))
    if type_ == "PersistentVolumeClaim" and "storage" not in most and "storage" not in least:
        text = "either minimum or maximum storage value is required, but neither was provided"
        out.append(required(f"{at}.limits", text))
    for name in sorted(dict.fromkeys(names)):
        low, high, ask, value = (d.get(name) for d in (least, most, request, default))
        for smaller, larger, field, words in (
            (low, high, "min", "min value {} is greater than max value {}"),
            (low, ask, "defaultRequest", "min value {} is greater than default request value {}"),
            (ask, high, "defaultRequest", "default request value {} is greater than max value {}"),
            (ask, value, "defaultRequest", "default request value {} is greater than default limit value {}"),
            (low, value, "default", "min value {} is greater than default value {}"),
            (value, high, "default", "default value {} is greater than max value {}"),
        ):
            if smaller is not None and larger is not None and quantity.compare(smaller, larger) > 0:
                wrong = larger if words.startswith("min value") and field != "min" else smaller
                out.append(invalid(f"{at}.{field}[{name}]", str(wrong), words.format(smaller, larger)))
        share = ratio.get(name)
        if share is not None and quantity.nanos(share) < quantity.NANO:
            text = f"ratio {share} is less than 1"
            out.append(invalid(f"{at}.maxLimitRequestRatio[{name}]", str(share), text))
        elif share is not None and low is not None and high is not None and quantity.nanos(low):
            bound = quantity.nanos(high) / quantity.nanos(low)
            if quantity.nanos(share) / quantity.NANO > bound:
                text = f"ratio {share} is greater than max/min = {bound:f}"
                out.append(invalid(f"{at}.maxLimitRequestRatio[{name}]", str(share), text))
    return out
