"""Strategic merge patch: a merge patch that knows from the schema how lists merge, with directives of its own.

The directives:

``$patch: replace | delete | merge``
    in an object: take the patch as it is, empty the object, merge; in an element of a merged list: drop all
    elements that the patch does not list, drop the element with this key.
``$retainKeys: [...]``
    drops all other keys of the object (one-of types such as a Deployment's strategy).
``$deleteFromPrimitiveList/NAME: [...]``
    values to drop from a merged list of scalars.
``$setElementOrder/NAME: [...]``
    the order that the elements of a merged list get.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from navarch.api.errors import BadRequest, Invalid
from navarch.api.patch import Tree, copy_tree
from navarch.api.schema import LIST, Node

PATCH, RETAIN = "$patch", "$retainKeys"
ORDER, DELETE = "$setElementOrder/", "$deleteFromPrimitiveList/"


def apply_strategic(tree: Tree, patch: Any, schema: Node) -> Tree:
    """``tree`` with the patch applied. Raises BadRequest or Invalid for a patch that makes no sense."""
    if not isinstance(patch, dict):
        raise BadRequest("error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}")
    return _merge_map(copy_tree(tree), copy_tree(patch), schema)


def without_directives(patch: Any) -> Any:
    """The patch as an object that can be checked for unknown fields; elements to delete are left out."""
    if isinstance(patch, dict):
        return {
            key: without_directives(value)
            for key, value in patch.items()
            if key not in (PATCH, RETAIN) and not key.startswith((ORDER, DELETE))
        }
    if isinstance(patch, list):
        return [without_directives(v) for v in patch if not (isinstance(v, dict) and PATCH in v)]
    return patch


def _child(schema: Node | None, key: str) -> Node | None:
    return schema.child(key) if schema is not None else None


def merge_key_of(node: Node | None) -> str | None:
    """The key by which elements of a list merge; "" for merged scalars; None for a list that is replaced."""
    if node is None or node.kind != LIST or "merge" not in node.strategy:
        return None
    return node.merge_key or ""


def _merge_map(target: Tree, patch: Tree, schema: Node | None) -> Tree:
    directive = patch.pop(PATCH, "merge")
    if directive == "replace":
        return _clean_map(patch, schema)
    if directive == "delete":
        return {}
    if directive != "merge":
        raise BadRequest(f"unknown patch type found: {directive}")
    if RETAIN in patch:
        _retain(target, patch)
    # Order directives first, for they look at the lists before and after; then deletions; then everything else.
    for key in [k for k in patch if k.startswith(ORDER)]:
        _ordered(target, patch, key, schema)
    for key in [k for k in patch if k.startswith(DELETE)]:
        _delete_values(target, key, patch.pop(key))
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
            continue
        node = _child(schema, key)
        old = target.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            replace = node is not None and "replace" in node.strategy
            target[key] = _clean_map(value, node) if replace else _merge_map(old, value, node)
        elif isinstance(value, dict):
            target[key] = _clean_map(value, node)
        elif isinstance(value, list):
            target[key] = _merge_list(old if isinstance(old, list) else [], value, node)
        else:
            target[key] = value
    return target


def _clean_map(patch: Tree, schema: Node | None) -> Tree:
    """A patch that meets nothing: its values without directives and nulls."""
    if patch.get(PATCH) == "delete":
        return {}
    patch.pop(PATCH, None)
    return _merge_map({}, patch, schema)


def _retain(target: Tree, patch: Tree) -> None:
    keys = patch.pop(RETAIN)
    if not isinstance(keys, list):
        raise BadRequest("Retain keys list must be a list")
    missing = [k for k in patch if k not in keys and not k.startswith("$") and patch[k] is not None]
    if missing:
        raise BadRequest("invalid patch format of retainKeys")
    for key in [k for k in target if k not in keys]:
        del target[key]


def _delete_values(target: Tree, directive: str, values: Any) -> None:
    key = directive[len(DELETE) :]
    if not isinstance(values, list):
        raise BadRequest("invalid patch format of primitive list")
    if isinstance(target.get(key), list):
        target[key] = [v for v in target[key] if v not in values]


def _ordered(target: Tree, patch: Tree, directive: str, schema: Node | None) -> None:
    """Merges the list that a $setElementOrder directive is about, and puts it in order."""
    key = directive[len(ORDER) :]
    order = patch.pop(directive)
    if not isinstance(order, list):
        raise BadRequest("invalid patch format of setElementOrder list")
    node = _child(schema, key)
    by = merge_key_of(node)
    before = target.get(key)
    before = before if isinstance(before, list) else []
    change = patch.pop(key, None) if isinstance(patch.get(key), list) else None
    if by is None:
        if change is not None:
            target[key] = _merge_list(before, change, node)
        return
    if change is not None:
        _check_order(change, order, by)
    if change is None and key not in target:
        return
    merged = _merge_list(list(before), change, node) if change is not None else before
    target[key] = arrange(merged, order, before, by)


def _check_order(change: list[Any], order: list[Any], by: str) -> None:
    """Every element of the patch must be in the order list, in the same order."""
    rest = iter([_identity(value, by) for value in order])
    for value in change:
        if isinstance(value, dict) and PATCH in value:
            continue
        if _identity(value, by) not in rest:  # looks on from where the last one was found
            raise BadRequest("invalid patch format of setElementOrder list")


def _merge_list(old: list[Any], patch: list[Any], node: Node | None) -> list[Any]:
    by = merge_key_of(node)
    if by is None or node is None:
        return [_clean_map(v, None) if isinstance(v, dict) and PATCH in v else v for v in patch if not _deletes(v)]
    if not by:
        merged = list(dict.fromkeys([*old, *patch])) if _scalars(old, patch) else patch
        return arrange(merged, patch, old, by)
    remaining = old
    rest: list[Tree] = []
    replace = False
    for value in patch:
        if not isinstance(value, dict):
            raise BadRequest(f"cannot merge a list of objects with {value!r}")
        directive = value.get(PATCH)
        if directive is None:
            _identity(value, by)
            rest.append(value)
        elif directive == "delete":
            deletion = _identity(value, by)
            remaining = [v for v in remaining if _identity(v, by) != deletion]
        elif directive == "replace":
            replace = True
        else:
            raise BadRequest(f"unknown patch type found: {directive}")
    element = node.element
    if replace or not old:
        return [_clean_map(v, element) for v in rest]
    merged = list(remaining)
    places: dict[Hashable, int] = {}
    for i, value in enumerate(merged):
        places.setdefault(_identity(value, by), i)
    for value in rest:
        at = places.get(_identity(value, by))
        if at is None:  # the patch's own elements do not merge with each other: ports 53/TCP and 53/UDP stay two
            merged.append(_clean_map(value, element))
        else:
            merged[at] = _merge_map(merged[at], value, element)
    return arrange(merged, rest, old, by)


def _deletes(value: Any) -> bool:
    return isinstance(value, dict) and value.get(PATCH) == "delete"


def _scalars(*lists: list[Any]) -> bool:
    return not any(isinstance(v, dict | list) for values in lists for v in values)


def _identity(value: Any, by: str) -> Hashable:
    """The key that tells an element from the others: its merge key, or itself if it is a scalar."""
    if not by:
        return (type(value).__name__, value) if not isinstance(value, dict | list) else repr(value)
    if not isinstance(value, dict) or by not in value:
        raise Invalid(f"map: {value} does not contain declared merge key: {by}")
    key = value[by]
    return key if not isinstance(key, dict | list) else repr(key)


def arrange(merged: list[Any], order: Sequence[Any], before: Sequence[Any], by: str) -> list[Any]:
    """Puts elements that ``order`` names into its order, and the others between them where ``before`` had them.

    An element of the second sort goes before one of the first only if ``before`` had both, in that order.
    """
    places: dict[Hashable, int] = {}
    for i, value in enumerate(order):
        if not (isinstance(value, dict) and PATCH in value):
            places.setdefault(_identity(value, by), i)
    had: dict[Hashable, int] = {}
    for i, value in enumerate(before):
        had.setdefault(_identity(value, by), i)
    named = sorted((v for v in merged if _identity(v, by) in places), key=lambda v: places[_identity(v, by)])
    others = sorted(
        (v for v in merged if _identity(v, by) not in places), key=lambda v: had.get(_identity(v, by), len(before))
    )
    out: list[Any] = []
    i = 0
    for value in named:
        place = had.get(_identity(value, by))
        while place is not None and i < len(others) and had.get(_identity(others[i], by), len(before)) < place:
            out.append(others[i])
            i += 1
        out.append(value)
    return out + others[i:]
