"""Fields that a struct requires and an object lacks get the zero value, as they would in Go, whose decoder requires nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from navarch.api import schema as s
from navarch.api.schema import Node

ZERO_TIME = "0001-01-01T00:00:00Z"
_ZERO: dict[str, Callable[[], Any]] = {
    s.STRING: str, s.BYTES: str, s.BOOL: bool, s.INT32: int, s.INT64: int, s.INTEGER: int, s.NUMBER: int, s.LIST: list,
    s.MAP: dict, s.OBJECT: dict, s.ANY_OBJECT: dict, s.INT_OR_STRING: int, s.QUANTITY: lambda: "0",
    s.TIME: lambda: ZERO_TIME, s.MICRO_TIME: lambda: ZERO_TIME,
}  # fmt: skip


def fill_required(tree: Any, schema: Node, *, times: bool = True, pointers: bool = True) -> None:
    """Adds what is missing, in place, at any depth. Values of another type than the schema's are left alone.

    Without ``times`` a time that is missing stays so, and without ``pointers`` a field that is a pointer in Go: to validation
    no time is no time, and no selector is none.
    """
    if schema.kind == s.OBJECT and isinstance(tree, dict):
        for name in schema.required:
            kind = schema.fields[name].kind
            if (not times and kind in (s.TIME, s.MICRO_TIME)) or (not pointers and name not in schema.always):
                continue
            if tree.get(name) is None and (zero := _ZERO.get(kind)) is not None:
                tree[name] = zero()
        for name, value in tree.items():
            if isinstance(value, dict | list) and name in schema.fields:
                fill_required(value, schema.fields[name], times=times, pointers=pointers)
    elif schema.kind == s.LIST and isinstance(tree, list):
        for item in tree:
            fill_required(item, schema.element, times=times, pointers=pointers)
    elif schema.kind == s.MAP and isinstance(tree, dict):
        for value in tree.values():
            fill_required(value, schema.element, times=times, pointers=pointers)
