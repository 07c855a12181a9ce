"""Apply of one object, apart from files and printing: the last-applied annotation and the three-way patch.

Managers and bytes are kubectl's own (its field manager's name, the JSON in the annotation), so that people may change
between ``navarch apply`` and ``kubectl apply`` on the same objects.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from cli.errors import CommandError
from cli.session import Resource
from navarch.api import wellknown
from navarch.api.patch.diff import (
    create_merge_patch,
    create_strategic_patch,
    create_three_way_merge_patch,
    create_three_way_strategic_patch,
)
from navarch.api.schema import Node, schema_of

Tree = dict[str, Any]

LAST_APPLIED = wellknown.LAST_APPLIED
CLIENT_SIDE_MANAGER = "kubectl-client-side-apply"
# Go's JSON encoder writes these characters escaped.
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class Patch(NamedTuple):
    """``type`` as the client's patch verb names it."""

    type: str
    tree: Tree


def go_json(tree: Any) -> str:
    """Compact JSON as Go writes it: keys sorted, HTML characters escaped."""
    text = json.dumps(tree, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


def annotated(tree: Tree) -> Tree:
    """The object with itself in the last-applied annotation."""
    meta = dict(tree.get("metadata") or {})
    annotations = {k: v for k, v in (meta.get("annotations") or {}).items() if k != LAST_APPLIED}
    applied = go_json(tree | {"metadata": meta | {"annotations": annotations}}) + "\n"
    return tree | {"metadata": meta | {"annotations": annotations | {LAST_APPLIED: applied}}}


def last_applied(current: Tree) -> Tree | None:
    """The configuration that was applied before; None if the object was not made by apply."""
    text = (current["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    if text is None:
        return None
    try:
        original = json.loads(text) if text else {}
    except ValueError as error:
        raise CommandError(f"the {LAST_APPLIED} annotation of the live object is not JSON: {error}") from error
    return original if isinstance(original, dict) else {}


def three_way(resource: Resource, original: Tree | None, modified: Tree, current: Tree) -> Patch | None:
    """The patch that brings ``current`` to ``modified``; None if there is nothing to do.

    ``modified`` carries its annotation; ``original`` is what was applied before. Fields of ``original`` that are gone
    from ``modified`` are removed, fields that others added stay.
    """
    schema = schema_for(resource)
    desired = without_settled_nulls(modified, current)
    before = without_settled_nulls(original or {}, {})  # what was null was not set: nothing to remove
    if "status" in resource.subresources:
        # The server ignores status in such a patch, and generated manifests carry empty ones.
        desired, before = ({k: v for k, v in tree.items() if k != "status"} for tree in (desired, before))
    if schema is not None:
        patch = create_three_way_strategic_patch(before, desired, current, schema)
        kind = "strategic"
    else:
        patch = create_three_way_merge_patch(before, desired, current)
        kind = "merge"
    return Patch(kind, patch) if patch else None


def two_way(resource: Resource, before: Tree, after: Tree) -> Patch | None:
    """The patch that turns one into the other, by name within lists where the kind has such; None if they are the same.
    What others do to other elements meanwhile stays."""
    own = before.get("kind") in (None, resource.kind.kind)  # not a scale of it
    schema = schema_for(resource) if own else None
    if schema is not None:
        kind, patch = "strategic", create_strategic_patch(before, after, schema)
    else:
        kind, patch = "merge", create_merge_patch(before, after)
    return Patch(kind, patch) if patch else None


def schema_for(resource: Resource) -> Node | None:
    """The schema of a built-in kind; None for a custom one, which has no strategic merge."""
    try:
        return schema_of(resource.kind.type)
    except KeyError:
        return None


def without_settled_nulls(modified: Any, current: Any, path: tuple[str, ...] = ()) -> Any:
    """Without fields that are null here and absent there: generated manifests are full of
    ``creationTimestamp: null``, which is nothing to change."""
    if not isinstance(modified, dict):
        return modified
    out: Tree = {}
    have = current if isinstance(current, dict) else {}
    for key, value in modified.items():
        if value is None and (key not in have or (path, key) == (("metadata",), "creationTimestamp")):
            continue
        out[key] = without_settled_nulls(value, have.get(key), (*path, key))
    return out
