"""Whether an openAPIV3Schema is structural: it says what every part of an object is, so that the server can prune,
give defaults and merge by it. See KEP-1979 and the API reference of JSONSchemaProps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apiserver.cel.patterns import PatternError, compile_pattern
from apiserver.crd.defaults import compile_defaults
from apiserver.crd.parts import compile_parts
from apiserver.crd.rules import check_rules
from apiserver.crd.values import Check
from navarch.api import pruning
from navarch.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required, show
from navarch.api.patch import copy_tree
from navarch.api.schema import from_openapi

Tree = Mapping[str, Any]
TYPES = ("array", "boolean", "integer", "number", "object", "string")
NESTED = ("allOf", "anyOf", "oneOf")
_EXTENSIONS = (
    "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string", "x-kubernetes-list-map-keys", "x-kubernetes-list-type",
    "x-kubernetes-map-type", "x-kubernetes-preserve-unknown-fields",
)  # fmt: skip
_NEVER_NESTED = ("additionalProperties", "type", "default", "title", "description", "nullable", *_EXTENSIONS)
_UNSUPPORTED = ("$ref", "definitions", "dependencies", "id", "patternProperties", "additionalItems")
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]


def check_schema(schema: Tree, path: str) -> list[Cause]:
    """Everything that is wrong with the schema of a version."""
    out: list[Cause] = []
    _check_props(schema, path, out)
    _check_structure(schema, path, out, "root")
    if not out:
        _check_metadata(schema, path, out)
        _check_defaults(schema, path, out)
        out += check_rules(schema, path)
    return out


def _children(schema: Tree, path: str) -> list[tuple[str, Tree, str]]:
    """(where, schema, path) of everything that a schema says of the parts of a value."""
    out = []
    for name, child in (schema.get("properties") or {}).items():
        out.append(("field", child, f"{path}.properties[{name}]"))
    if isinstance(schema.get("additionalProperties"), Mapping):
        out.append(("field", schema["additionalProperties"], f"{path}.additionalProperties"))
    if isinstance(schema.get("items"), Mapping):
        out.append(("item", schema["items"], f"{path}.items"))
    return out


def _nested(schema: Tree, path: str) -> list[tuple[Tree, str]]:
    """The value validations of a schema: what stands in allOf, anyOf, oneOf and not."""
    out = [(one, f"{path}.{word}[{i}]") for word in NESTED for i, one in enumerate(schema.get(word) or ())]
    if schema.get("not") is not None:
        out.append((schema["not"], f"{path}.not"))
    return out


# --- what no schema of a definition may say -----------------------------------------------------------------------------


def _check_props(schema: Tree, path: str, out: list[Cause]) -> None:
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        out.append(forbidden(f"{path}.uniqueItems", text))
    extra = schema.get("additionalProperties")
    if extra is False:
        out.append(forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false"))
    if extra is not None and schema.get("properties"):
        text = "additionalProperties and properties are mutual exclusive"
        out.append(forbidden(f"{path}.additionalProperties", text))
    for word in _UNSUPPORTED:
        if schema.get(word):
            out.append(forbidden(f"{path}.{word}", f"{word} is not supported"))
    kind = schema.get("type") or ""
    if kind == "null":
        out.append(forbidden(f"{path}.type", "type cannot be set to null, use nullable as an alternative"))
    elif kind and kind not in TYPES:
        out.append(not_supported(f"{path}.type", kind, TYPES))
    if isinstance(schema.get("items"), list):
        out.append(forbidden(f"{path}.items", "items must be a schema object and not an array"))
    if schema.get("pattern"):
        try:
            compile_pattern(schema["pattern"])
        except PatternError as error:
            text = f"must be a valid regular expression, but isn't: error parsing regexp: {error}"
            out.append(invalid(f"{path}.pattern", schema["pattern"], text))
    if "enum" in schema and not schema["enum"]:
        out.append(required(f"{path}.enum"))
    if len({show(e) for e in schema.get("enum") or ()}) != len(schema.get("enum") or ()):
        values: list[str] = []
        for i, one in enumerate(schema["enum"]):
            if show(one) in values:
                out.append(duplicate(f"{path}.enum[{i}]", one))
            values.append(show(one))
    _check_extensions(schema, path, out)
    for _, child, at in _children(schema, path):
        _check_props(child, at, out)
    for one, at in _nested(schema, path):
        _check_props(one, at, out)


def _check_extensions(schema: Tree, path: str, out: list[Cause]) -> None:
    kind = schema.get("type") or ""
    for word in ("x-kubernetes-preserve-unknown-fields",):
        if schema.get(word) is False:
            out.append(invalid(f"{path}.{word}", False, "must be true or undefined"))
    list_type, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
    if map_type := schema.get("x-kubernetes-map-type"):
        if kind != "object":
            text = "must be object if x-kubernetes-map-type is specified"
            out.append(invalid(f"{path}.type", kind, text) if kind else required(f"{path}.type", text))
        if map_type not in ("atomic", "granular"):
            out.append(not_supported(f"{path}.x-kubernetes-map-type", map_type, ["atomic", "granular"]))
    if list_type is not None:
        if kind != "array":
            text = "must be array if x-kubernetes-list-type is specified"
            out.append(invalid(f"{path}.type", kind, text) if kind else required(f"{path}.type", text))
        if list_type not in ("atomic", "set", "map"):
            out.append(not_supported(f"{path}.x-kubernetes-list-type", list_type, ["atomic", "set", "map"]))
    items = schema.get("items") if isinstance(schema.get("items"), Mapping) else None
    if list_type == "set" and items is not None:
        simple = items.get("type") not in ("object", "array") or (
            items.get("x-kubernetes-map-type") == "atomic" or items.get("x-kubernetes-list-type") in (None, "atomic")
        )
        if not simple or (items.get("type") == "object" and items.get("x-kubernetes-map-type") != "atomic"):
            if items.get("type") == "array":
                text = "must be atomic as item of a list with x-kubernetes-list-type=set"
                out.append(invalid(f"{path}.items.x-kubernetes-list-type", items.get("x-kubernetes-list-type"), text))
            else:
                text = "must be atomic as item of a list with x-kubernetes-list-type=set"
                out.append(invalid(f"{path}.items.x-kubernetes-map-type", items.get("x-kubernetes-map-type"), text))
        if items.get("nullable"):
            out.append(forbidden(f"{path}.items.nullable", "cannot be nullable when x-kubernetes-list-type is set"))
    if list_type == "map":
        _check_map_list(schema, items, keys, path, out)
    elif keys:
        text = "must be map if x-kubernetes-list-map-keys is non-empty"
        at = f"{path}.x-kubernetes-list-type"
        out.append(required(at, text) if list_type is None else invalid(at, list_type, text))


def _check_map_list(schema: Tree, items: Tree | None, keys: list[str], path: str, out: list[Cause]) -> None:
    at = f"{path}.x-kubernetes-list-map-keys"
    if not keys:
        out.append(required(at, "must not be empty if x-kubernetes-list-type is map"))
    if items is None:
        out.append(required(f"{path}.items", "must have a schema if x-kubernetes-list-type is map"))
        return
    if items.get("type") != "object":
        text = "must be object if parent array's x-kubernetes-list-type is map"
        out.append(invalid(f"{path}.items.type", items.get("type") or "", text))
    if items.get("nullable"):
        out.append(forbidden(f"{path}.items.nullable", "cannot be nullable when x-kubernetes-list-type is map"))
    properties, needed = items.get("properties") or {}, items.get("required") or ()
    for i, key in enumerate(keys):
        field = properties.get(key)
        if field is None:
            text = 'entries must all be names of item properties'
            out.append(invalid(f"{at}[{i}]", key, text))
            continue
        if field.get("type") in ("object", "array"):
            out.append(invalid(f"{path}.items.properties[{key}].type", field["type"], "must be a scalar type if parent array's "
                               "x-kubernetes-list-type is map"))  # fmt: skip
        if field.get("default") is None and key not in needed:
            text = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            out.append(required(f"{path}.items.properties[{key}].default", text))
    for i, key in enumerate(keys):
        if key in keys[:i]:
            out.append(duplicate(f"{at}[{i}]", key))


# --- structure ------------------------------------------------------------------------------------------------------------


def _check_structure(schema: Tree, path: str, out: list[Cause], where: str) -> None:
    kind = schema.get("type") or ""
    either = bool(schema.get("x-kubernetes-int-or-string"))
    keeps = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if not kind and not either and not (keeps and where != "root"):
        text = {
            "root": "must not be empty at the root",
            "item": "must not be empty for specified array items",
            "field": "must not be empty for specified object fields",
        }[where]
        out.append(required(f"{path}.type", text))
    if where == "root" and kind and kind != "object":
        out.append(invalid(f"{path}.type", kind, "must be object at the root"))
    if kind == "array" and not isinstance(schema.get("items"), Mapping) and schema.get("items") is None:
        out.append(required(f"{path}.items", "must be specified"))
    if either:
        at = f"{path}.x-kubernetes-int-or-string"
        if kind:
            out.append(forbidden(f"{path}.type", "must be empty if x-kubernetes-int-or-string is true"))
        if keeps:
            text = "must be false if x-kubernetes-int-or-string is true"
            out.append(forbidden(f"{path}.x-kubernetes-preserve-unknown-fields", text))
        if schema.get("x-kubernetes-embedded-resource"):
            out.append(forbidden(at, "must be false if x-kubernetes-embedded-resource is true"))
    if schema.get("x-kubernetes-embedded-resource"):
        if kind and kind != "object":
            text = "must be object if x-kubernetes-embedded-resource is true"
            out.append(invalid(f"{path}.type", kind, text))
        if not keeps and not schema.get("properties"):
            text = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
            out.append(required(f"{path}.properties", text))
    if keeps and kind and kind not in ("object", "array"):
        out.append(invalid(f"{path}.type", kind, "must be object if x-kubernetes-preserve-unknown-fields is true"))
    for one, at in _nested(schema, path):
        _check_nested(one, schema, at, path, out, either)
    for below, child, at in _children(schema, path):
        _check_structure(child, at, out, below)


def _check_nested(one: Tree, outer: Tree | None, path: str, home: str, out: list[Cause], either: bool) -> None:
    """A value validation may only speak of parts that the schema around it specifies."""
    free_type = either and (path.endswith((".anyOf[0]", ".anyOf[1]")))
    for word in _NEVER_NESTED:
        value = one.get(word)
        if value is None or value == "" or value is False or (word == "type" and free_type):
            continue
        out.append(forbidden(f"{path}.{word}", f"must be {'undefined' if word == 'default' else 'empty'} to be structural"))
    if one.get("x-kubernetes-validations"):
        out.append(forbidden(f"{path}.x-kubernetes-validations", "must be empty to be structural"))
    for name, child in (one.get("properties") or {}).items():
        inner = ((outer or {}).get("properties") or {}).get(name)
        extra = (outer or {}).get("additionalProperties")
        if inner is None and isinstance(extra, Mapping):
            inner = extra
        at = f"{path}.properties[{name}]"
        if inner is None and not (outer or {}).get("x-kubernetes-preserve-unknown-fields"):
            out.append(required(f"{home}.properties[{name}]", f"because it is defined in {at}"))
        _check_nested(child, inner, at, f"{home}.properties[{name}]", out, _is_either(inner))
    if isinstance(one.get("items"), Mapping):
        inner = (outer or {}).get("items")
        at = f"{path}.items"
        if not isinstance(inner, Mapping):
            out.append(required(f"{home}.items", f"because it is defined in {at}"))
            inner = None
        _check_nested(one["items"], inner, at, f"{home}.items", out, _is_either(inner))
    for deeper, at in _nested(one, path):
        _check_nested(deeper, outer, at, home, out, either)


def _is_either(schema: Tree | None) -> bool:
    return bool((schema or {}).get("x-kubernetes-int-or-string"))


def _check_metadata(schema: Tree, path: str, out: list[Cause]) -> None:
    """Of metadata a schema may only restrict the name."""
    metadata = (schema.get("properties") or {}).get("metadata")
    if metadata is not None:
        words = [w for w in metadata if w not in ("type", "properties", "description") and metadata[w]]
        fields = [f for f in metadata.get("properties") or {} if f not in ("name", "generateName")]
        if words or fields:
            text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            out.append(forbidden(f"{path}.properties[metadata]", text))
    for name, kind in (("apiVersion", "string"), ("kind", "string"), ("metadata", "object")):
        part = (schema.get("properties") or {}).get(name)
        if part is not None and part.get("type") != kind:
            out.append(invalid(f"{path}.properties[{name}].type", part.get("type") or "", f"must be {kind}"))


# --- defaults -------------------------------------------------------------------------------------------------------------


def _check_defaults(schema: Tree, path: str, out: list[Cause], root: bool = True) -> None:
    """A default must pass the very schema that it stands in, and lose nothing by pruning."""
    default = schema.get("default")
    if default is not None:
        at = f"{path}.default"
        if root:
            out.append(forbidden(at, "must not be set at the root"))
        else:
            _check_default(schema, default, at, out)
    for _, child, below in _children(schema, path):
        if schema is not None and not (root and below == f"{path}.properties[metadata]"):
            _check_defaults(child, below, out, root=False)


def _check_default(schema: Tree, default: Any, at: str, out: list[Cause]) -> None:
    causes: list[Cause] = []
    value = copy_tree(default)
    if (fill := compile_defaults(schema)) is not None:
        fill(value)
    Check(schema).run(value, "", causes)
    if (parts := compile_parts(schema)) is not None:
        parts(value, "", causes)
    for cause in causes:
        inner = "" if cause.field == "<nil>" else cause.field
        out.append(cause._replace(field=at + (("." + inner) if inner and not inner.startswith("[") else inner)))
    if causes or not isinstance(default, dict | list):
        return
    holder = {"value": copy_tree(default)}
    problems = pruning.prepare(holder, from_openapi({"type": "object", "properties": {"value": schema}}, root=False))
    if problems.unknown:
        out.append(invalid(at, default, "must not have unknown fields"))
