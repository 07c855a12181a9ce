"""Patches: JSON patch, merge patch, strategic merge patch, the differences that become patches, field sets, apply.

All of it works on plain JSON trees. Functions never change what they are given, and what they return shares nothing
with it: callers may prune and default a result in place.
"""

from __future__ import annotations

from typing import Any

import orjson

from navarch.api.errors import BadRequest

Tree = dict[str, Any]


def copy_tree(tree: Any) -> Any:
    """A deep copy of a JSON value (a fifth of the time of copy.deepcopy). Raises BadRequest beyond 254 levels."""
    try:
        return orjson.loads(orjson.dumps(tree))
    except orjson.JSONEncodeError as error:
        raise BadRequest(f"json: exceeded max depth or not JSON: {error}") from error


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values: unlike Python's, true is not 1 (but 1 is 1.0)."""
    if left != right:
        return False
    kind = type(left)
    if kind is dict or kind is list:
        # Equal by Python's rule: the same text then proves it at a tenth of the price of a walk.
        try:
            if orjson.dumps(left) == orjson.dumps(right) or _sorted(left) == _sorted(right):
                return True
        except orjson.JSONEncodeError:  # deeper, or longer numbers, than orjson writes
            pass
    return _same(left, right)


def _sorted(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _same(left: Any, right: Any) -> bool:
    """As :func:`same`, of values that are equal by Python's rule."""
    if isinstance(left, dict):
        return all(_same(v, right[k]) for k, v in left.items())
    if isinstance(left, list):
        return all(map(_same, left, right))
    return isinstance(left, bool) == isinstance(right, bool)
