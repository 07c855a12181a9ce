"""Defaults of a structural schema, and nulls that stand for nothing; in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from navarch.api.patch import copy_tree

Schema = Mapping[str, Any]
Fill = Callable[[Any], None]


def compile_defaults(schema: Schema) -> Fill | None:
    """Compiles the function that fills in the defaults below a value; None if the schema has none.

    A default counts where the field is absent, or null while the schema does not allow null. Other nulls of fields and
    keys that do not allow them are removed.
    """
    if "items" in schema and isinstance(schema["items"], Mapping):
        element = compile_defaults(schema["items"])
        return _in_list(element) if element else None
    parts: list[tuple[str, Any, bool, bool, Fill | None]] = []
    for name, child in (schema.get("properties") or {}).items():
        fill = compile_defaults(child)
        has = child.get("default") is not None
        if has or fill:
            parts.append((name, child.get("default"), has, bool(child.get("nullable")), fill))
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping):
        return _in_map(extra)
    return _in_object(parts) if parts else None


def _in_object(parts: list[tuple[str, Any, bool, bool, Fill | None]]) -> Fill:
    def fill(value: Any) -> None:
        if type(value) is not dict:
            return
        for name, default, has, nullable, below in parts:
            child = value.get(name)
            if has and child is None and (name not in value or not nullable):
                child = value[name] = copy_tree(default)
            if below is not None and child is not None:
                below(child)

    return fill


def _in_list(element: Fill) -> Fill:
    def fill(value: Any) -> None:
        if type(value) is list:
            for one in value:
                element(one)

    return fill


def _in_map(extra: Schema) -> Fill:
    element = compile_defaults(extra)
    default, nullable = extra.get("default"), bool(extra.get("nullable"))

    def fill(value: Any) -> None:
        if type(value) is not dict:
            return
        for key in [k for k, v in value.items() if v is None and not nullable]:
            if default is not None:
                value[key] = copy_tree(default)
            else:
                del value[key]
        if element is not None:
            for one in value.values():
                element(one)

    return fill
