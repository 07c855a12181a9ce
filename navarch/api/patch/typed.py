"""Finds what makes a tree unfit to be applied: lists in which elements do not have an identity each.

Other writes may store such lists; an apply could not tell what belongs to whom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from navarch.api.patch import fieldsets
from navarch.api.schema import LIST, MAP, OBJECT, Node


def problems(tree: Mapping[str, Any], schema: Node) -> list[str]:
    """All that is wrong, with paths: ``.spec.ports: duplicate entries for key [port=80,protocol="TCP"]``."""
    return list(_problems(tree, schema, ""))


def text(wrong: list[str]) -> str:
    """Several problems in one message."""
    return wrong[0] if len(wrong) == 1 else "errors:\n" + "\n".join(f"  {one}" for one in wrong)


def _problems(value: Any, node: Node | None, path: str) -> Iterator[str]:
    if node is None or not value:
        return
    if isinstance(value, dict) and node.kind in (OBJECT, MAP):
        for key, inner in value.items():
            if isinstance(inner, dict | list):
                yield from _problems(inner, node.child(key), f"{path}.{key}")
    elif isinstance(value, list) and node.kind == LIST:
        if not fieldsets.keyed(node):
            for i, inner in enumerate(value):
                yield from _problems(inner, node.element, f"{path}[{i}]")
            return
        keys: set[str] = set()
        for i, inner in enumerate(value):
            try:
                key = fieldsets.element_key(inner, node)
            except fieldsets.FieldSetError as error:
                yield f"{path}: element {i}: {error}"
                continue
            if key in keys:
                yield f"{path}: duplicate entries for key {fieldsets.show((key,))}"
            keys.add(key)
            yield from _problems(inner, node.element, path + fieldsets.show((key,)))
