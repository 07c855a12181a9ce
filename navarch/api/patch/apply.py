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
from navarch.api.patch import Tree, copy_tree, fieldsets, lastapplied, managed, typed
from navarch.api.patch.fieldsets import FieldSet, Path
from navarch.api.patch.managed import Entries, Entry, Manager
from navarch.api.schema import Node

BEFORE = "before-first-apply"
"""Owns what was there when somebody first applied to an object without managedFields."""


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
    if wrong := typed.problems(config, schema):
        raise BadRequest(f"failed to create typed patch object ({_name(config)}): {typed.text(wrong)}")
    config = copy_tree(config)
    config.get("metadata", {}).pop("managedFields", None)
    old: Tree = copy_tree(live) if live is not None else {}
    entries = managed.decode(old.get("metadata", {}).get("managedFields"))
    me = Manager(manager, "Apply", "", subresource)
    try:
        own_fields = fieldsets.ownable_set(config, schema)
        if live is not None and not entries and own_fields:
            before = managed.update(
                None, live, schema, manager=BEFORE, api_version=api_version, now=now, subresource=subresource
            )
            entries = managed.decode(before)
        new: Tree = _merge(copy_tree(old), config, schema)
        last = entries[me].fields if me in entries else {}
        others = [e.fields for m, e in entries.items() if m != me]
        # The system's own fields have no owner; metadata must not go just because its last owned field does.
        keep = _union([own_fields, {"f:metadata": {"f:name": {}}}, *others])
        emptied: Emptied = []
        new = _prune(new, last, keep, schema, emptied)
        changes = fieldsets.compare(old, new, schema)
        for holder, key in reversed(emptied):
            holder.pop(key, None)
    except fieldsets.FieldSetError as error:
        raise BadRequest(f"failed to create typed patch object: {error}") from error
    written = changes.written
    conflicts = {m: both for m, e in entries.items() if m != me and (both := fieldsets.intersection(e.fields, written))}
    if conflicts and not force:
        free = lastapplied.unchanged(old, schema, manager)
        conflicts = {m: contested for m, both in conflicts.items() if (contested := fieldsets.difference(both, free))}
        if conflicts:
            raise conflict_error(conflicts)
    entries = managed.take(entries, changes, me)
    had = entries.get(me)
    own_fields = fieldsets.ordered(own_fields)
    if not own_fields:
        entries.pop(me, None)  # who owns nothing is not noted
    elif had is None or changes or fieldsets.ordered(had.fields) != own_fields or had.api_version != api_version:
        entries[me] = Entry(own_fields, now, api_version)
    else:
        entries[me] = replace(had, fields=own_fields)
    new.setdefault("metadata", {})["managedFields"] = managed.encode(entries)
    lastapplied.follow(new, config, manager)
    return new


def _name(config: Tree) -> str:
    """How upstream names what is applied."""
    metadata = config.get("metadata", {})
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}; {config.get('apiVersion')}, Kind={config.get('kind')}"


def _union(sets: list[FieldSet]) -> FieldSet:
    out: FieldSet = {}
    for one in sets:
        out = fieldsets.union(out, one)
    return out


def conflict_error(conflicts: Mapping[Manager, FieldSet]) -> Conflict:
    """409 with a cause for each field of each manager."""
    owned_paths: list[tuple[Manager, Path]] = [
        (m, path) for m in sorted(conflicts, key=lambda m: (str(m), m)) for path in fieldsets.members(conflicts[m])
    ]
    if len(owned_paths) == 1:
        text = f"Apply failed with 1 conflict: conflict with {owned_paths[0][0]}: {fieldsets.show(owned_paths[0][1])}"
    else:
        lines: list[str] = []
        for m in dict.fromkeys(m for m, _ in owned_paths):
            lines.append(f"conflicts with {m}:")
            lines += [f"- {fieldsets.show(path)}" for other, path in owned_paths if other == m]
        text = f"Apply failed with {len(owned_paths)} conflicts: " + "\n".join(lines)
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {m}", "field": fieldsets.show(path)}
        for m, path in owned_paths
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
    """Elements of both, those that both have merged, in Kubernetes' order: ``new`` decides among its own elements; one
    that only ``old`` has stays behind the common ones that it stood behind; one that only ``new`` has comes after those."""
    groups = fieldsets.grouped(old, node)
    # Of what an update wrote several times nothing is kept where the new list has it.
    before = {key: elements[0] for key, elements in groups.items() if len(elements) == 1}
    after = {fieldsets.element_key(e, node): e for e in new}
    have, new_keys = [fieldsets.element_key(e, node) for e in old], list(after)
    common = iter([key for key in after if key in groups])
    due = next(common, None)  # the next common element by the order of ``new``
    out: list[Any] = []
    placed: set[str] = set()
    i = j = 0
    while i < len(have) or j < len(new_keys):
        key = have[i] if i < len(have) else None
        if key is not None and key not in after:
            out.append(old[i])
            i += 1
        elif key is not None and due is not None and key != due:
            i += 1  # its place is elsewhere
        else:
            if key in placed:
                i += 1
            if j < len(new_keys):
                mine = new_keys[j]
                out.append(_merge(before[mine], after[mine], node.element) if mine in before else after[mine])
                placed.add(mine)
                j += 1
                i += mine == key
                if mine == due:
                    due = next(common, None)
    return out


Emptied = list[tuple[Tree, str]]
"""(object, key) of containers that lost all that was in them."""


def _prune(value: Any, last: FieldSet, keep: FieldSet, node: Node | None, emptied: Emptied) -> Any:
    """Removes what ``last`` claims and ``keep`` does not. A container that becomes empty by it is noted: it goes too, but
    only after the comparison, and whoever owns it goes on doing so; what holds it has not become empty."""
    if isinstance(value, dict) and value and fieldsets.granular(node):
        for key, last_child in last.items():
            name = key[2:]
            if not key.startswith("f:") or name not in value:
                continue
            # A declared field belongs to whoever owns something in it; a key of a map does not.
            named = node is not None and name in (node.fields if node.kind == "object" else ())
            fixed = node is not None and fieldsets.always_there(name, node)
            if _claimed(last_child, named) and not _claimed(keep.get(key), named):
                if fixed and isinstance(value[name], dict):
                    value[name] = {}
                else:
                    del value[name]
            elif last_child and value[name]:
                child = node.child(name) if node is not None else None
                value[name] = _prune(value[name], last_child, keep.get(key) or {}, child, emptied)
                if value[name] == [] or (value[name] == {} and not fixed):
                    emptied.append((value, name))
        return value
    if isinstance(value, list) and value and node is not None and fieldsets.keyed(node):
        out = []
        for element in value:
            key = fieldsets.element_key(element, node)
            last_child, keep_child = last.get(key), keep.get(key)
            if last_child is not None:
                if _claimed(last_child, False) and not _claimed(keep_child, False):
                    continue  # also if somebody owns a field of it: without its key it could not stay
                element = _prune(element, last_child, keep_child or {}, node.element, emptied)
            out.append(element)
        return out
    return value


def _claimed(fields: FieldSet | None, named: bool) -> bool:
    return fields is not None and (named or fieldsets.is_member(fields))


def owned_by(tree: Tree, manager: str, operation: str = "Apply", subresource: str = "") -> FieldSet:
    """The fields that a manager owns of a stored object; {} if none."""
    entries: Entries = managed.decode(tree.get("metadata", {}).get("managedFields"))
    return _union(
        [
            e.fields
            for m, e in entries.items()
            if (m.name, m.operation, m.subresource) == (manager, operation, subresource)
        ]
    )
