"""Small things that the strategies of several kinds share: reading trees, cells, selectors as text."""

from __future__ import annotations

from typing import Any

from navarch.api.durations import age
from navarch.api.kinds import BY_GVK, Kind, group_version

Tree = dict[str, Any]


def kind(api_version: str, name: str) -> Kind:
    """The built-in Kind, by the two words a manifest starts with."""
    return BY_GVK[(*group_version(api_version), name)]


def at(obj: Any, *path: str) -> Any:
    """The value at a path of field names, None where anything on the way is absent."""
    for step in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(step)
    return obj


def spec_of(obj: Tree) -> Tree:
    return obj.get("spec") or {}


def status_of(obj: Tree) -> Tree:
    return obj.get("status") or {}


def meta_of(obj: Tree) -> Tree:
    return obj.get("metadata") or {}


def name_cell(obj: Tree) -> str:
    return str(meta_of(obj).get("name", ""))


def age_cell(obj: Tree, now: float) -> str:
    return age(meta_of(obj).get("creationTimestamp"), now)


def bool_text(value: Any) -> str:
    """A boolean as field selectors write it."""
    return "true" if value else "false"


def fill(obj: Tree, **defaults: Any) -> None:
    """Sets each field that is absent."""
    for field, value in defaults.items():
        if obj.get(field) is None:
            obj[field] = value


def fill_empty(obj: Tree, **defaults: Any) -> None:
    """Sets each field that is absent or empty: for what is no pointer in Go and yet written when empty. (Fields that Go
    leaves out when they are empty are absent by the time defaults are filled in: navarch.api.pruning.)"""
    for field, value in defaults.items():
        if not obj.get(field):
            obj[field] = value


def labels_text(labels: dict[str, str] | None) -> str:
    """``a=b,c=d`` in key order; ``<none>`` if empty."""
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or "<none>"


def selector_text(selector: Tree | None) -> str:
    """A metav1.LabelSelector as kubectl prints it: ``<none>`` matches everything."""
    if selector is None:
        return "<none>"
    terms = [f"{k}={v}" for k, v in (selector.get("matchLabels") or {}).items()]
    for requirement in selector.get("matchExpressions") or ():
        key, values = requirement.get("key", ""), ",".join(sorted(requirement.get("values") or ()))
        match requirement.get("operator"):
            case "In":
                terms.append(f"{key} in ({values})")
            case "NotIn":
                terms.append(f"{key} notin ({values})")
            case "Exists":
                terms.append(key)
            case "DoesNotExist":
                terms.append(f"!{key}")
            case other:
                return f"<error: {json_word(other)} is not a valid label selector operator>"
    return ",".join(sorted(terms)) or "<none>"


def json_word(value: Any) -> str:
    return f'"{value}"'


def containers_text(spec: Tree) -> tuple[str, str]:
    """Names and images of a pod template's containers, for the wide columns of the apps kinds."""
    containers = spec.get("containers") or ()
    return ",".join(c.get("name", "") for c in containers), ",".join(c.get("image", "") for c in containers)


def condition(obj: Tree, type_: str) -> Tree | None:
    """The condition of that type in status."""
    for entry in status_of(obj).get("conditions") or ():
        if entry.get("type") == type_:
            return entry  # type: ignore[no-any-return]
    return None
