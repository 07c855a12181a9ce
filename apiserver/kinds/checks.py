"""Checks that several kinds' validation share; each returns causes, empty when all is well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from apiserver.kinds.cells import Tree
from navarch.api import names, quantity
from navarch.api.errors import Cause, forbidden, invalid, not_supported, required
from navarch.api.patch import same

Check = Callable[[str], list[str]]
IMMUTABLE = "field is immutable"
MAX_INT32 = 2**31 - 1


def named(value: str | None, path: str, check: Check) -> list[Cause]:
    """A required name that must pass ``check``."""
    if not value:
        return [required(path)]
    return [invalid(path, value, m) for m in check(value)]


def optional_name(value: str | None, path: str, check: Check) -> list[Cause]:
    return [invalid(path, value, m) for m in check(value)] if value else []


def one_of(value: str | None, path: str, choices: Sequence[str]) -> list[Cause]:
    """A required word out of a few."""
    if not value:
        return [required(path)]
    return [] if value in choices else [not_supported(path, value, choices)]


def non_negative(value: int | None, path: str) -> list[Cause]:
    return [invalid(path, value, "must be greater than or equal to 0")] if value is not None and value < 0 else []


def non_negative_quantity(value: Any, path: str) -> list[Cause]:
    """An amount that is there (the schema has made it a quantity) and not below zero."""
    if quantity.nanos(value) < 0:
        return [invalid(path, str(value), "must be greater than or equal to 0")]
    return []


def positive_quantity(value: Any, path: str) -> list[Cause]:
    return [invalid(path, str(value), "must be greater than zero")] if quantity.nanos(value) <= 0 else []


def range_cause(value: int, path: str, check: Callable[[int], list[str]]) -> list[Cause]:
    return [invalid(path, value, m) for m in check(value)]


def immutable(new: Any, old: Any, path: str) -> list[Cause]:
    return [invalid(path, new, IMMUTABLE)] if not same(new, old) else []


def validate_labels(labels: dict[str, str] | None, path: str) -> list[Cause]:
    out: list[Cause] = []
    for key, value in sorted((labels or {}).items()):
        out += [invalid(path, key, m) for m in names.qualified_name(key)]
        out += [invalid(path, value, m) for m in names.label_value(value)]
    return out


def validate_annotations(annotations: dict[str, str] | None, path: str) -> list[Cause]:
    out: list[Cause] = []
    for key in sorted(annotations or {}):
        out += [invalid(path, key, m) for m in names.qualified_name(key.lower())]
    return out


def validate_label_selector(selector: Tree | None, path: str) -> list[Cause]:
    """A metav1.LabelSelector (upstream's ValidateLabelSelector)."""
    out: list[Cause] = []
    if selector is None:
        return out
    for key, value in sorted((selector.get("matchLabels") or {}).items()):
        out += [invalid(f"{path}.matchLabels", key, m) for m in names.qualified_name(key)]
        out += [invalid(f"{path}.matchLabels", value, m) for m in names.label_value(value)]
    for i, requirement in enumerate(selector.get("matchExpressions") or ()):
        at, key, operator = f"{path}.matchExpressions[{i}]", requirement.get("key", ""), requirement.get("operator")
        values = requirement.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                out.append(required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                out.append(forbidden(f"{at}.values", text))
        else:
            out.append(invalid(f"{at}.operator", operator or "", "not a valid selector operator"))
        out += [invalid(f"{at}.key", key, m) for m in names.qualified_name(key)]
        for j, value in enumerate(values):
            out += [invalid(f"{at}.values[{j}]", value, m) for m in names.label_value(value)]
    return out


def selector_empty(selector: Tree | None) -> bool:
    return not selector or not (selector.get("matchLabels") or selector.get("matchExpressions"))


def duplicates(values: Iterable[Any]) -> list[int]:
    """Indexes of values that were there before."""
    earlier: list[Any] = []
    out: list[int] = []
    for i, value in enumerate(values):
        if value in earlier:
            out.append(i)
        earlier.append(value)
    return out


def domain_path(value: str, path: str) -> list[Cause]:
    """``example.com/some/path``."""
    if not value:
        return [required(path)]
    domain, slash, rest = value.partition("/")
    if not slash or not domain or not rest:
        return [invalid(path, value, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    return [invalid(path, domain, m) for m in names.dns_subdomain(domain)]


def int_or_percent(value: Any, path: str) -> list[Cause]:
    """A count of pods, or a share of them."""
    if isinstance(value, str):
        return [invalid(path, value, m) for m in names.percent(value)]
    return non_negative(value, path)
