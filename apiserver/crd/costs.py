"""Highest cost of a rule, estimated before it ever runs: by its expression, and by how large the schema lets things be.

The units and factors are those of CEL's cost estimator (cel-go) and of Kubernetes' limits. Where they take an unknown size
for endless, an unknown size is 1 here: what Kubernetes takes is taken here, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from apiserver.cel.fields import escape
from apiserver.crd import ast

Schema = Mapping[str, Any]
RULE_LIMIT, SCHEMA_LIMIT = 10_000_000, 100_000_000
MAX_COST = (1 << 64) - 1
REQUEST = 3 << 20  # bytes that an object can have at most
TRAVERSAL, REGEX = 0.1, 0.25  # for each byte of a text, of a pattern
_CONSTRUCTION_COSTS = {"list": 10, "map": 30, "message": 40}
_EQUAL, _ORDER = ("_==_", "_!=_"), ("_<_", "_<=_", "_>_", "_>=_")
_PREFIX = ("startsWith", "endsWith")
_TEXT = (
    "lowerAscii", "upperAscii", "substring", "trim", "replace", "split", "charAt", "quantity", "isQuantity", "url", "isURL",
    "ip", "isIP", "cidr", "isCIDR",
)  # fmt: skip
_TIMES = ("date", "date-time", "duration")
_LIST = ("isSorted", "sum", "min", "max", "indexOf", "lastIndexOf")
_HEAD: dict[str, Schema] = {
    "apiVersion": {"type": "string", "maxLength": 63},
    "kind": {"type": "string", "maxLength": 63},
    "metadata": {"type": "object", "properties": {n: {"type": "string", "maxLength": 63} for n in ("name", "generateName")}},
}


class Value(NamedTuple):
    """The known facts of a part of an expression: its cost, its schema, how large it is."""

    cost: int
    schema: Schema | None = None
    size: int | None = None


def smallest(schema: Schema) -> int:
    """Bytes of the shortest JSON of a value."""
    kind = schema.get("type")
    if kind == "object" and schema.get("properties"):
        needed = [n for n in schema.get("required") or () if n in schema["properties"]]
        own = [n for n in needed if schema["properties"][n].get("default") is None]
        return 2 + sum(len(n) + 4 + smallest(schema["properties"][n]) for n in own)
    if kind == "string":
        return {"date": 12, "date-time": 21, "duration": 3}.get(schema.get("format") or "", 2)
    return {"array": 2, "object": 2, "boolean": 4}.get(kind or "", 1)


def largest(schema: Schema) -> int | None:
    """How many elements, or bytes of a text, a value can have; None if it has none."""
    kind, extra = schema.get("type"), schema.get("additionalProperties")
    if schema.get("x-kubernetes-int-or-string"):
        return REQUEST - 2
    if kind == "string":
        if schema.get("maxLength") is not None:
            return max(0, int(schema["maxLength"])) * 4  # bytes of a character
        if schema.get("enum"):
            return max(len(str(e)) for e in schema["enum"])
        return {"date": 12, "date-time": 32, "duration": 32}.get(schema.get("format") or "", REQUEST - 2)
    if kind == "array" and isinstance(schema.get("items"), Mapping):
        most = schema.get("maxItems")
        return (REQUEST - 2) // (smallest(schema["items"]) + 1) if most is None else max(0, int(most))
    if kind == "object" and isinstance(extra, Mapping):
        most = schema.get("maxProperties")
        return (REQUEST - 2) // (smallest(extra) + 6) if most is None else max(0, int(most))
    return None


def _times(size: int, factor: float) -> int:
    return min(MAX_COST, math.ceil(size * factor))


class Estimate:
    """The costs of expressions about values of one schema."""

    def __init__(self, schema: Schema, root: bool) -> None:
        self.root = {**schema, "properties": {**(schema.get("properties") or {}), **_HEAD}} if root else schema

    def cost(self, node: ast.Node) -> int:
        names = ("self", "oldSelf", "oldSelfValue")
        return min(MAX_COST, self._visit(node, {name: Value(0, self.root) for name in names}).cost)

    def _size(self, value: Value) -> int:
        if value.size is not None:
            return value.size
        return 1 if value.schema is None else largest(value.schema) or 0

    def _visit(self, node: ast.Node, variables: Mapping[str, Value]) -> Value:
        match node:
            case ast.Const(size):
                return Value(0, None, size)
            case ast.Ident(name):
                variable = variables.get(name)
                return Value(1) if variable is None else variable._replace(cost=1)
            case ast.Select(operand, field, test):
                inner = self._visit(operand, variables)
                # Whether a field is there costs no more than to find what it would be in.
                return Value(max(0, inner.cost - 1) if test else inner.cost + 1, _field(inner.schema, field))
            case ast.Construction(kind, parts, size):
                return Value(_CONSTRUCTION_COSTS[kind] + sum(self._visit(p, variables).cost for p in parts), None, size)
            case ast.Loop():
                return self._loop(node, variables)
            case ast.Call(function, args):
                return self._call(function, [self._visit(a, variables) for a in args])
        raise AssertionError(node)

    def _loop(self, loop: ast.Loop, variables: Mapping[str, Value]) -> Value:
        over, start = self._visit(loop.over, variables), self._visit(loop.start, variables)
        schema = over.schema or {}
        items = schema.get("items") if schema.get("type") == "array" else None
        values = schema.get("additionalProperties")
        inner = {**variables, loop.result: start}
        if len(loop.variables) == 2:
            second = items if isinstance(items, Mapping) else values
            inner |= {loop.variables[0]: Value(0), loop.variables[1]: Value(0, second if isinstance(second, Mapping) else None)}
        else:
            inner |= {name: Value(0, items if isinstance(items, Mapping) else None) for name in loop.variables}
        turn = self._visit(loop.condition, inner).cost + self._visit(loop.step, inner).cost
        end = self._visit(loop.end, inner)
        cost = over.cost + start.cost + end.cost + self._size(over) * turn
        grows = isinstance(loop.start, ast.Construction) and loop.start.kind == "list"
        return Value(min(MAX_COST, cost), end.schema, self._size(over) if grows else end.size)

    def _call(self, function: str, args: list[Value]) -> Value:
        cost = sum(a.cost for a in args)
        if function in ("_&&_", "_||_"):
            return Value(cost)
        if function == "_?_:_" and len(args) == 3:
            return Value(args[0].cost + max(args[1].cost, args[2].cost), args[1].schema or args[2].schema)
        if function in ("_[_]", "_[?_]"):
            return Value(cost + 1, _element(args[0].schema))
        sizes = [self._size(a) for a in args]
        if function in _EQUAL or (function in _ORDER and any(map(_is_text, args))):
            return Value(cost + _times(min(sizes), TRAVERSAL))
        if function in ("@in", "_in_") and len(args) == 2:
            return Value(cost + (1 if (args[1].schema or {}).get("type") == "object" else sizes[1]))
        if function in _PREFIX and len(args) == 2:
            return Value(cost + _times(sizes[1], TRAVERSAL))
        if function == "contains" and len(args) == 2:
            return Value(cost + _times(sizes[0], TRAVERSAL) * _times(sizes[1], TRAVERSAL))
        if function in ("matches", "find", "findAll") and len(args) >= 2:
            return Value(cost + _times(sizes[0] + 1, TRAVERSAL) * _times(sizes[1], REGEX))
        if function == "_+_" and len(args) == 2 and (_is_text(args[0]) or _is_text(args[1])):
            return Value(cost + _times(sum(sizes), TRAVERSAL), None, sum(sizes))
        if function in _LIST and args and (args[0].schema or {}).get("type") == "array":
            return Value(cost + sizes[0])
        if function in _TEXT and args:
            return Value(cost + _times(sizes[0], TRAVERSAL))
        return Value(cost + 1)


def _is_text(value: Value) -> bool:
    schema = value.schema or {}
    return value.size is not None or (schema.get("type") == "string" and schema.get("format") not in _TIMES)


def _field(schema: Schema | None, name: str) -> Schema | None:
    for key, child in ((schema or {}).get("properties") or {}).items():
        if escape(key) == name:
            return child  # type: ignore[no-any-return]
    extra = (schema or {}).get("additionalProperties")
    return extra if isinstance(extra, Mapping) else None


def _element(schema: Schema | None) -> Schema | None:
    element = (schema or {}).get("items") or (schema or {}).get("additionalProperties")
    return element if isinstance(element, Mapping) else None


def cardinality(schema: Schema, bound: int | None) -> int:
    """How many values of a schema an object can have. ``bound``: as its arrays and maps say; None if one does not."""
    return REQUEST // (smallest(schema) + 1) if bound is None else bound


def exceeded(what: str, cost: int, limit: int) -> str:
    """The message for a cost above its limit."""
    factor = cost / limit
    shown = "more than 100x" if factor > 100 else f"{factor:f}x" if factor < 1.5 else f"{factor:.1f}x"
    return (
        f"{what} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and "
        "maxLength where arrays, maps, and strings are declared)"
    )
