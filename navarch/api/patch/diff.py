"""From two or three versions of an object to a patch, as kubectl edit and kubectl apply make them.

Three-way: what the user wanted before (``original``, from the last-applied annotation), what is wanted now (``modified``)
and what the server has (``current``). Additions and changes come from current against modified; deletions from
original against modified, so that what others added stays.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from navarch.api.patch import Tree, copy_tree, same
from navarch.api.patch.strategic import DELETE, ORDER, PATCH, RETAIN, merge_key_of
from navarch.api.schema import Node


def create_merge_patch(original: Tree, modified: Tree) -> Tree:
    """The merge patch (RFC 7386) that turns one into the other; {} if they are the same."""
    return _merge_diff(original, modified, original)


def create_three_way_merge_patch(original: Tree, modified: Tree, current: Tree) -> Tree:
    """As kubectl apply makes it for kinds without strategic merge (custom resources)."""
    return _merge_diff(original, modified, current)


def _merge_diff(original: Tree, modified: Tree, current: Tree) -> Tree:
    patch: Tree = {}
    for key, new in modified.items():
        have = current.get(key)
        base = original.get(key)
        if isinstance(new, dict) and isinstance(have, dict):
            inner = _merge_diff(base if isinstance(base, dict) else {}, new, have)
            if inner:
                patch[key] = inner
        elif key not in current or not same(have, new):
            patch[key] = copy_tree(new)
    for key in original:
        if key not in modified:
            patch[key] = None
    return patch


def create_strategic_patch(original: Tree, modified: Tree, schema: Node) -> Tree:
    """The strategic merge patch that turns one into the other; {} if they are the same."""
    return _map_diff(original, modified, original, schema)


def create_three_way_strategic_patch(original: Tree, modified: Tree, current: Tree, schema: Node) -> Tree:
    """The patch of kubectl apply for built-in kinds; {} if there is nothing to do."""
    return _map_diff(original, modified, current, schema)


def _map_diff(original: Tree, modified: Tree, current: Tree, schema: Node | None) -> Tree:
    patch: Tree = {}
    for key, new in modified.items():
        node = schema.child(key) if schema is not None else None
        have, base = current.get(key), original.get(key)
        if isinstance(new, dict) and isinstance(have, dict):
            inner = _map_diff(base if isinstance(base, dict) else {}, new, have, node)
            _retain(inner, new, have, node)
            if inner:
                patch[key] = inner
        elif isinstance(new, list) and isinstance(have, list) and merge_key_of(node) is not None and node is not None:
            _list_diff(patch, key, base if isinstance(base, list) else [], new, have, node)
        elif key not in current or not same(have, new):
            patch[key] = copy_tree(new)
    for key in original:
        if key not in modified:
            patch[key] = None
    return patch


def _retain(patch: Tree, new: Tree, have: Tree, node: Node | None) -> None:
    """Names the keys that stay, if anything changes or the current object has others, such as a default that only fits
    what was there before."""
    if node is not None and "retainKeys" in node.strategy and new and (patch or any(key not in new for key in have)):
        patch[RETAIN] = sorted(new)


def _identities(values: list[Any], by: str) -> dict[Hashable, Any] | None:
    """Elements by what identifies them; None if that is not possible (a key missing or twice)."""
    out: dict[Hashable, Any] = {}
    for value in values:
        if not by:
            if isinstance(value, dict | list):
                return None
            key: Hashable = (type(value).__name__, value)
        else:
            if not isinstance(value, dict) or isinstance(value.get(by), dict | list | None):
                return None
            key = value[by]
        if key in out:
            return None
        out[key] = value
    return out


def _list_diff(patch: Tree, key: str, original: list[Any], modified: list[Any], current: list[Any], node: Node) -> None:
    by = merge_key_of(node) or ""
    base, new, have = (_identities(x, by) for x in (original, modified, current))
    if base is None or new is None or have is None:
        # Elements cannot be told apart (two ports of one number): the whole list goes.
        if not same(modified, current):
            patch[key] = [*copy_tree(modified), {PATCH: "replace"}] if by else copy_tree(modified)
            if not by:
                patch[DELETE + key] = [v for v in current if v not in modified]
        return
    changes: list[Any] = []
    for identity, value in new.items():
        if identity not in have:
            changes.append(copy_tree(value))
        elif by:
            before = base.get(identity)
            inner = _map_diff(before if before is not None else {}, value, have[identity], node.element)
            _retain(inner, value, have[identity], node)
            if inner:
                changes.append({by: value[by], **inner})
    removals = [value for identity, value in base.items() if identity not in new]
    if by:
        changes += [{PATCH: "delete", by: value[by]} for value in removals]
    elif removals:
        patch[DELETE + key] = removals
    if changes:
        patch[key] = changes
    # An element that only the current list has keeps its place by the order of the others.
    moved = bool(current) and list(have) != list(new)
    if modified and (removals or moved or (changes and current)):
        patch[ORDER + key] = [{by: value[by]} for value in modified] if by else list(modified)
