"""The types in the published documents.

They come from the package kubernetes-validate, which carries a transformed swagger; we undo the transformation. What
is here has the shape of OpenAPI v3; :func:`to_v2` turns it, and the schemas of custom resources, into that of v2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from navarch.api.schema import KEY_DEFAULTS

Tree = dict[str, Any]

LEVEL = "v1.34.0"
V3_SCHEMAS, V2_SCHEMAS = "#/components/schemas/", "#/definitions/"
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
VERSION_INFO = "io.k8s.apimachinery.pkg.version.Info"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
# Events that are written in the core shape have no eventTime, and are read in both.
_MAY_BE_ABSENT = {"io.k8s.api.events.v1.Event": ("eventTime",)}
# What OpenAPI v2 cannot say, or clients of v2 do not understand.
_NOT_IN_V2 = ("oneOf", "anyOf", "not", "nullable", "default", "example", "x-kubernetes-validations")


PRESERVES, GVK = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-group-version-kind"


def builtin() -> dict[str, Tree]:
    """The definitions of every type of the API level, by full name, as they lie in the package (takes 10 ms)."""
    import kubernetes_validate

    root = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"{LEVEL}-local"
    trees: dict[str, Tree] = orjson.loads((root / "_definitions.json").read_bytes())["$defs"]
    return trees


def names_by_kind(trees: Mapping[str, Tree]) -> dict[tuple[str, str, str], str]:
    """The definition of each (group, version, kind)."""
    out: dict[tuple[str, str, str], str] = {}
    for name, one in trees.items():
        own = one.get("x-kubernetes-group-version-kind") or []
        if len(own) == 1:
            out[own[0]["group"], own[0]["version"], own[0]["kind"]] = name
    return out


def restored(schema: Any) -> Any:
    """A definition as Kubernetes publishes it."""
    if isinstance(schema, list):
        return [restored(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out: Tree = {}
    ref = schema.get("$ref")
    if isinstance(ref, str):
        # A sibling of $ref counts for nothing in OpenAPI 3.0.
        link = {"$ref": V3_SCHEMAS + ref.rsplit("/", 1)[1]}
        rest = {k: restored(v) for k, v in schema.items() if k != "$ref"}
        return {"allOf": [link], **rest} if rest else link
    for key, value in schema.items():
        if key == "type" and isinstance(value, list):
            out[key] = next(t for t in value if t != "null")
        elif key == "properties":
            out[key] = {name: _property(name, child) for name, child in value.items()}
        elif key in ("description", "enum", "default", "required") or key.startswith("x-kubernetes"):
            out[key] = value
        else:
            out[key] = restored(value)
    return out


def _property(name: str, child: Tree) -> Tree:
    out: Tree = restored(child)
    if name in ("apiVersion", "kind") and isinstance(out.get("enum"), list):
        del out["enum"]  # put in by the package: these fields are free
    return out


def definition(name: str, trees: Tree) -> Tree:
    """The published definition of a type."""
    if name == INT_OR_STRING:
        return {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
    if name == QUANTITY:
        return {"oneOf": [{"type": "string"}, {"type": "number"}]}
    out: Tree = restored(trees)
    if absent := _MAY_BE_ABSENT.get(name):
        required = [field for field in out.pop("required", ()) if field not in absent]
        if required:  # an empty list is no valid OpenAPI
            out["required"] = required
    for (struct, key), default in KEY_DEFAULTS.items():
        # Clients that merge lists by their keys need to know what an absent one stands for.
        if name.endswith(f".{struct}") and key in out.get("properties", {}):
            out["properties"][key]["default"] = default
    return out


def links(value: Any) -> Iterator[str]:
    """The names of all definitions that a schema refers to."""
    if isinstance(value, dict):
        ref = value.get("$ref")
        if isinstance(ref, str):
            yield ref.removeprefix(V3_SCHEMAS)
        for child in value.values():
            yield from links(child)
    elif isinstance(value, list):
        for child in value:
            yield from links(child)


def closure(roots: set[str], custom: Mapping[str, Tree], trees: Mapping[str, Tree]) -> dict[str, Tree]:
    """The roots and all that they refer to, in order of name."""
    out: dict[str, Tree] = {}
    todo = sorted(roots)
    while todo:
        at = todo.pop()
        if at in out:
            continue
        if at in custom:
            out[at] = custom[at]
        elif at in trees:
            out[at] = definition(at, trees[at])
        else:
            continue
        todo += links(out[at])
    return dict(sorted(out.items()))


def to_v2(name: str, schema: Tree) -> Tree:
    """A definition in the shape of OpenAPI v2."""
    if name == INT_OR_STRING:
        return {"type": "string", "format": "int-or-string"}
    if name == QUANTITY:
        return {"type": "string"}
    if schema.get(PRESERVES) and GVK in schema:
        # kubectl would refuse what a list of properties does not name.
        return {"type": "object", GVK: schema[GVK]}
    return _v2(schema)


def _v2(schema: Tree) -> Tree:
    ref, rest = schema.get("$ref"), schema
    all_of: list[Tree] = schema.get("allOf") or []
    if ref is None and len(all_of) == 1 and "$ref" in all_of[0]:
        ref, rest = all_of[0]["$ref"], {k: v for k, v in schema.items() if k != "allOf"}
    if isinstance(ref, str):
        return {"$ref": ref.replace(V3_SCHEMAS, V2_SCHEMAS)} | {k: v for k, v in rest.items() if k != "$ref"}
    out: Tree = {}
    # v2 has no null, and kubectl takes a list of properties for all that there may be.
    any_value = bool(schema.get("nullable")) or bool(schema.get("x-kubernetes-int-or-string"))
    preserves = bool(schema.get(PRESERVES))
    loose = any_value or preserves
    untyped = (preserves and schema.get("type") in ("object", "array")) or (
        schema.get("type") == "array" and "items" not in schema
    )
    for key, value in schema.items():
        if untyped and key == "type":
            continue  # kubectl knows no objects, and no lists, of what it has not been told
        if key in _NOT_IN_V2 or (any_value and key in ("type", "enum", "required", "allOf")):
            continue
        if key in ("properties", "items", "additionalProperties", "required") and loose:
            continue
        if key == "properties":
            out[key] = {n: _v2(child) for n, child in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            out[key] = _v2(value)
        elif key == "allOf":
            # Constraints on top of a custom type; v2's readers know only references here.
            continue
        else:
            out[key] = value
    if any_value and "x-kubernetes-int-or-string" in schema and not schema.get("nullable"):
        out["format"] = "int-or-string"
    return out
