"""Objects as CEL sees them: property names that are identifiers, numbers, times and bytes of the types that the schema
says, nulls absent."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from apiserver.cel.fields import escape
from apiserver.crd import formats

Schema = Mapping[str, Any]
View = Callable[[Any], Any]


def type_of(schema: Schema) -> str:
    """The CEL type of a value, ``dyn`` for objects: their fields are found when they are looked for."""
    kind, form = schema.get("type"), schema.get("format")
    if schema.get("x-kubernetes-int-or-string") or schema.get("nullable"):
        return "dyn"
    if kind == "string":
        times = {"date": "timestamp", "date-time": "timestamp", "duration": "duration"}
        return "bytes" if form == "byte" else times.get(form or "", "string")
    if kind in ("integer", "number", "boolean"):
        return {"integer": "int", "number": "double", "boolean": "bool"}[kind]
    if kind == "array" and isinstance(schema.get("items"), Mapping):
        return f"list({type_of(schema['items'])})"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"map({type_of(schema['additionalProperties'])})"
    return "dyn"


def compile_view(schema: Schema) -> View | None:
    """Compiles the function that turns a value into what CEL sees; None if that is the value itself."""
    kind, form = schema.get("type"), schema.get("format")
    if kind == "number":
        return lambda value: float(value) if type(value) is int else value
    if kind == "integer":
        return lambda value: int(value) if type(value) is float else value
    if kind == "string":
        return {"byte": _bytes, "date": _time, "date-time": _time, "duration": _duration}.get(form or "")
    items, extra = schema.get("items"), schema.get("additionalProperties")
    if kind == "array" and isinstance(items, Mapping):
        element = compile_view(items)
        return None if element is None else lambda value: [element(v) for v in value] if type(value) is list else value
    if isinstance(extra, Mapping):
        inner = compile_view(extra)
        if inner is None:
            return None
        return lambda value: {k: inner(v) for k, v in value.items()} if type(value) is dict else value
    fields: dict[str, tuple[str, View | None]] = {}
    for name, child in (schema.get("properties") or {}).items():
        view, shown = compile_view(child), escape(name)
        if view is not None or shown != name or child.get("nullable"):
            fields[name] = (shown, view)
    return _object(fields) if fields else None


def _object(fields: Mapping[str, tuple[str, View | None]]) -> View:
    def view(value: Any) -> Any:
        if type(value) is not dict:
            return value
        out = {}
        for key, one in value.items():
            if one is None:
                continue
            field = fields.get(key)
            if field is None:
                out[key] = one
            else:
                out[field[0]] = one if field[1] is None else field[1](one)
        return out

    return view


def _bytes(value: Any) -> Any:
    try:
        return base64.b64decode(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _time(value: Any) -> Any:
    """A protobuf Timestamp: the engine takes no datetime inside of objects."""
    from google.protobuf.timestamp_pb2 import Timestamp

    if not isinstance(value, str):
        return value
    out = Timestamp()
    try:
        out.FromJsonString(value.upper() if "T" in value.upper() else f"{value}T00:00:00Z")
    except ValueError:
        return value
    return out


def _duration(value: Any) -> Any:
    from google.protobuf.duration_pb2 import Duration

    if not isinstance(value, str):
        return value
    out = Duration()
    try:
        out.FromNanoseconds(formats.duration(value))
    except ValueError:
        return value  # stored before the schema said so
    return out
