"""Output of ``navarch explain`` about a field, taken from the server's OpenAPI document."""

from __future__ import annotations

import textwrap
from typing import Any

from cli.errors import CommandError
from navarch.api.kinds import Kind

Tree = dict[str, Any]
WIDTH = 80


def lines(document: Tree, kind: Kind, fields: list[str], recursive: bool) -> list[str]:
    """The lines for a field of a kind, or for the kind itself. Raises CommandError for a field that is not there."""
    schemas: dict[str, Tree] = document["components"]["schemas"]
    node = _schema_of(schemas, kind)
    described: list[str] = []
    for name in fields:
        inner = _properties(schemas, node)
        if name not in inner:
            raise CommandError(f'field "{name}" does not exist')
        node = inner[name]
    out = [f"GROUP:      {kind.group}"] if kind.group else []
    out += [f"KIND:       {kind.kind}", f"VERSION:    {kind.version}", ""]
    if fields:
        out += [f"FIELD: {fields[-1]} <{_type(schemas, node)}>", "", ""]
        described.append(node.get("description") or "")
    target = _target(schemas, node)
    if target is not node or not fields:
        described.append(target.get("description") or "")
    out.append("DESCRIPTION:")
    for text in described or [""]:
        out += _wrapped(text, 4) if text else []
    if not any(described):
        out.append("    <empty>")
    out.append("    ")
    properties = _properties(schemas, node)
    if properties:
        out.append("FIELDS:")
        out += _tree(schemas, node, 1, ()) if recursive else _flat(schemas, node)
    out.append("")
    return out


def _schema_of(schemas: dict[str, Tree], kind: Kind) -> Tree:
    for schema in schemas.values():
        for gvk in schema.get("x-kubernetes-group-version-kind") or ():
            if (gvk.get("group", ""), gvk.get("version"), gvk.get("kind")) == (kind.group, kind.version, kind.kind):
                return schema
    raise CommandError(f"couldn't find resource for {kind.api_version}, Kind={kind.kind}")


def _reference(node: Tree) -> str:
    """The name of the schema that a node refers to, "" if it is one itself."""
    reference = node.get("$ref") or next((each["$ref"] for each in node.get("allOf") or () if "$ref" in each), "")
    return str(reference).rpartition("/")[2]


def _target(schemas: dict[str, Tree], node: Tree) -> Tree:
    """The schema whose fields a value of this node (or each of its elements) has."""
    name = _reference(node)
    if name:
        return schemas[name]
    if isinstance(node.get("items"), dict):
        return _target(schemas, node["items"])
    if isinstance(node.get("additionalProperties"), dict):
        return _target(schemas, node["additionalProperties"])
    return node


def _properties(schemas: dict[str, Tree], node: Tree) -> dict[str, Tree]:
    return _target(schemas, node).get("properties") or {}


def _type(schemas: dict[str, Tree], node: Tree) -> str:
    name = _reference(node)
    if name:
        plain = schemas[name].get("type", "object")  # a time is only text with a name of its own
        return name.rpartition(".")[2] if plain == "object" or "oneOf" in schemas[name] else str(plain)
    if isinstance(node.get("items"), dict):
        return f"[]{_type(schemas, node['items'])}"
    if isinstance(node.get("additionalProperties"), dict):
        return f"map[string]{_type(schemas, node['additionalProperties'])}"
    return str(node.get("type") or "Object").replace("object", "Object")


def _wrapped(text: str, indent: int) -> list[str]:
    out: list[str] = []
    for paragraph in text.split("\n"):
        blank = " " * indent
        out += textwrap.wrap(
            paragraph,
            WIDTH,
            initial_indent=blank,
            subsequent_indent=blank,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [blank]
    return out


def _head(schemas: dict[str, Tree], owner: Tree, name: str, level: int) -> str:
    target = _target(schemas, owner)
    required = " -required-" if name in (target.get("required") or ()) else ""
    return f"{'  ' * level}{name}\t<{_type(schemas, target['properties'][name])}>{required}"


def _flat(schemas: dict[str, Tree], node: Tree) -> list[str]:
    out: list[str] = []
    for name, inner in sorted(_properties(schemas, node).items()):
        out.append(_head(schemas, node, name, 1))
        text = inner.get("description") or _target(schemas, inner).get("description") or "<no description>"
        out += [*_wrapped(text, 4), ""]
    return out


def _tree(schemas: dict[str, Tree], node: Tree, level: int, above: tuple[int, ...]) -> list[str]:
    """Names and types, as deep as they go; a schema that contains itself is shown once on each way down."""
    out: list[str] = []
    for name, inner in sorted(_properties(schemas, node).items()):
        out.append(_head(schemas, node, name, level))
        target = _target(schemas, inner)
        if id(target) not in above:
            out += _tree(schemas, inner, level + 1, (*above, id(target)))
    return out
