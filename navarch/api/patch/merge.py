"""JSON merge patch (RFC 7386)."""

from __future__ import annotations

from typing import Any

from navarch.api.errors import BadRequest
from navarch.api.patch import Tree, copy_tree


def apply_merge(tree: Tree, patch: Any) -> Tree:
    """``tree`` with the patch applied: null removes, objects merge, all else replaces. Raises BadRequest."""
    if not isinstance(patch, dict):
        raise BadRequest("error decoding patch: Invalid JSON Patch")
    out: Tree = _merge(copy_tree(tree), copy_tree(patch))
    return out


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    if not isinstance(target, dict):
        target = {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = _merge(target.get(key), value)
    return target
