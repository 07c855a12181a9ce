"""Server-side apply: merging what one manager wants into an object that several managers own.

:func:`apply` is pure: the stored object and the configuration go in, the new object comes out, or a Conflict that names who
owns what. The rules (KEP-555): the manager owns exactly the fields of its configuration; fields that it owned before and no
longer lists go away unless somebody else owns them; changing a value that another manager owns is a conflict, unless forced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from navarch.api.errors import BadRequest, Conflict
from navarch.api.patch import Tree, copy_tree, fieldsets, managed
from navarch.api.patch.fieldsets import FieldSet, Path
from navarch.api.patch.managed import Entries, Entry, Manager
from navarch.api.schema import Node


def apply(
    live: Tree | None,
    config: Tree,
    schema: Node,
    *,
    manager: str,
    api_version: str,
    now: str,
    force: bool = False,
    subresource: str = "",
) -> Tree:
    """The object after ``manager`` applied ``config`` (pruned already), managedFields included.

    ``live`` is None when there is no object yet. The result equals ``live`` if nothing changes. Raises Conflict (409,
    causes FieldManagerConflict) and BadRequest.
    """
    if config.get("metadata", {}).get("managedFields"):
        raise BadRequest("metadata.managedFields must be nil")
    config = copy_tree(config)
    config.get("metadata", {}).pop("managedFields", None)
    old: Tree = copy_tree(live) if live is not None else {}
    entries = managed.decode(old.get("metadata", {}).get("managedFields"))
    me = Manager(manager, "Apply", "", subresource)
    try:
        wanted = fieldsets.ownable_set(config, schema)
        new: Tree = _merge(copy_tree(old), config, schema)
        last = entries[me].fields if me in entries else {}
        others = [e.fields for m, e in entries.items() if m != me]
        # The system's own fields have no owner; metadata must not go just because its last owned field does.
        keep = _union([wanted, {"f:metadata": {"f:name": {}}}, *others])
        new = _prune(new, last, keep, schema) or {}
        changes = fieldsets.compare(old, new, schema)
    except fieldsets.FieldSetError as error:
        raise BadRequest(f"failed to create typed patch object: {error}") from error
    written = changes.written
    conflicts = {m: both for m, e in entries.items() if m != me and (both := fieldsets.intersection(e.fields, written))}
    if conflicts and not force:
        raise conflict_error(conflicts)
    entries = managed.take(entries, changes, me)
    had = entries.get(me)
    wanted = fieldsets.ordered(wanted)
    if had is None or changes or fieldsets.ordered(had.fields) != wanted or had.api_version != api_version:
        entries[me] = Entry(wanted, now, api_version)
    else:
        entries[me] = replace(had, fields=wanted)
    new.setdefault("metadata", {})["managedFields"] = managed.encode(entries)
    return new


def _union(sets: list[FieldSet]) -> FieldSet:
    out: FieldSet = {}
    for one in sets:
        out = fieldsets.union(out, one)
    return out


def conflict_error(conflicts: Mapping[Manager, FieldSet]) -> Conflict:
    """409 with a cause for each field of each manager."""
    found: list[tuple[Manager, Path]] = [
        (m, path) for m in sorted(conflicts, key=lambda m: (str(m), m)) for path in fieldsets.members(conflicts[m])
    ]
    if len(found) == 1:
        text = f"Apply failed with 1 conflict: conflict with {found[0][0]}: {fieldsets.show(found[0][1])}"
    else:
        lines: list[str] = []
        for m in dict.fromkeys(m for m, _ in found):
            lines.append(f"conflicts with {m}:")
            lines += [f"- {fieldsets.show(path)}" for other, path in found if other == m]
        text = f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {m}", "field": fieldsets.show(path)}
        for m, path in found
    ]
    return Conflict(text, {"causes": causes})


def _merge(old: Any, new: Any, node: Node | None) -> Any:
    """``new`` laid over ``old``: objects and keyed lists merge, everything else is ``new``'s."""
    if isinstance(old, dict) and isinstance(new, dict) and fieldsets.granular(node):
        for key, value in new.items():
            child = node.child(key) if node is not None else None
            old[key] = _merge(old[key], value, child) if key in old else value
        return old
    if isinstance(old, list) and isinstance(new, list) and node is not None and fieldsets.keyed(node):
        return _merge_lists(old, new, node)
    return new


def _merge_lists(old: list[Any], new: list[Any], node: Node) -> list[Any]:
    """Elements of ``new`` in its order, with those that only ``old`` has kept where they were between them."""
    before = {fieldsets.element_key(e, node): e for e in old}
    after = {fieldsets.element_key(e, node): e for e in new}
    if len(after) != len(new):
        raise fieldsets.FieldSetError("duplicate entries for key in an associative list")
    places = {key: i for i, key in enumerate(before)}
    rest = [key for key in before if key not in after]
    out: list[Any] = []
    for key, element in after.items():
        if key in before:
            while rest and places[rest[0]] < places[key]:
                out.append(before[rest.pop(0)])
            out.append(_merge(before[key], element, node.element))
        else:
            out.append(element)
    return out + [before[key] for key in rest]


def _prune(value: Any, last: FieldSet, keep: FieldSet, node: Node | None) -> Any:
    """Removes what ``last`` lists and ``keep`` does not; a container that becomes empty by it goes too (None)."""
    if isinstance(value, dict) and value and fieldsets.granular(node):
        removed = False
        for key, gone in last.items():
            name = key[2:]
            if not key.startswith("f:") or name not in value:
                continue
            child = node.child(name) if node is not None else None
            # A declared field counts as owned by whoever owns something in it; a key of a map does not.
            owned = fieldsets.is_member(gone) or (
                node is not None and name in (node.fields if node.kind == "object" else ())
            )
            kept = keep.get(key)
            if kept is None and owned:
                del value[name]
                removed = True
                continue
            left = _prune(value[name], gone, kept or {}, child) if gone else value[name]
            if left is None:
                del value[name]
                removed = True
            else:
                value[name] = left
        return None if removed and not value else value
    if isinstance(value, list) and value and node is not None and fieldsets.keyed(node):
        out = []
        for element in value:
            key = fieldsets.element_key(element, node)
            gone, kept = last.get(key), keep.get(key)
            if gone is not None:
                if kept is None and fieldsets.is_member(gone):
                    continue
                element = _prune(element, gone, kept or {}, node.element)
                if element is None:
                    continue
            out.append(element)
        return out if out or not value else None
    return value


def owned_by(tree: Tree, manager: str, operation: str = "Apply", subresource: str = "") -> FieldSet:
    """What a manager owns of a stored object; {} if nothing."""
    entries: Entries = managed.decode(tree.get("metadata", {}).get("managedFields"))
    return _union(
        [
            e.fields
            for m, e in entries.items()
            if (m.name, m.operation, m.subresource) == (manager, operation, subresource)
        ]
    )
