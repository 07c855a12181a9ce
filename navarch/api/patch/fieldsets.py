"""Sets of field paths in the form of FieldsV1, and what changed between two trees as such sets.

A set is a nested dict whose keys are path elements: ``f:NAME`` a field, ``k:{"name":"c"}`` an element of a map list,
``v:VALUE`` an element of a set list, ``i:N`` an index. A node that is empty, or has the key ``"."``, is a member; other nodes
are only on the way to members. The outermost dict is never a member: ``{}`` is the empty set. The wire form is kept
also in memory, so that reading and writing managedFields costs nothing. Sets are never changed once made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import orjson

from navarch.api.patch import same
from navarch.api.schema import ANY, ANY_OBJECT, LIST, MAP, OBJECT, Node

FieldSet = dict[str, Any]
Path = tuple[str, ...]

class FieldSetError(ValueError):
    """The tree has a list element without identity."""


def is_member(node: Mapping[str, Any]) -> bool:
    return not node or "." in node


def problem(fields: Any) -> str:
    """Why a value is no FieldsV1, "" if it is one. Path elements of a kind that nobody knows yet are in order."""
    if not isinstance(fields, dict):
        return f"expected an object, but found {orjson.dumps(fields).decode()[:80]}"
    for key, inner in fields.items():
        kind, _, rest = key.partition(":")
        try:
            if kind == "k" and not isinstance(orjson.loads(rest), dict):
                return f"invalid key {key}"
            if kind == "v":
                orjson.loads(rest)
            if kind == "i":
                int(rest)
        except ValueError:
            return f"invalid path element {key}"
        if why := problem(inner):
            return why
    return ""


# --- sets of a tree ---------------------------------------------------------------------------------------------------


def granular(node: Node | None) -> bool:
    """Whether apply looks into the objects that the node describes; unknown ones it does."""
    return node is None or (not node.atomic and node.kind in (OBJECT, MAP, ANY, ANY_OBJECT))


def keyed(node: Node | None) -> bool:
    """Whether elements of the list have an identity of their own."""
    return node is not None and node.kind == LIST and not node.atomic and node.list_type in ("map", "set")


def element_key(element: Any, node: Node) -> str:
    """The path element of a list's element (``node``: the list). Raises FieldSetError."""
    if node.list_type == "set":
        return "v:" + orjson.dumps(element, option=orjson.OPT_SORT_KEYS).decode()
    if not isinstance(element, dict):
        raise FieldSetError("associative list with keys may not have non-map elements")
    keys = {}
    for name in node.list_keys:
        value = element.get(name)
        if value is None:
            value = node.element.key_default(name)
        if value is not None:
            keys[name] = value
    if not keys:
        names = ", ".join(f'"{k}"' for k in node.list_keys)
        raise FieldSetError(f"associative list with keys has an element that omits all key fields [{names}]")
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


Groups = dict[str, list[Any]]


def grouped(items: list[Any], node: Node) -> Groups:
    """The elements of a keyed list by their path elements; several where a key is there twice. Raises FieldSetError."""
    out: Groups = {}
    for element in items:
        out.setdefault(element_key(element, node), []).append(element)
    return out


def compute(tree: Mapping[str, Any], schema: Node) -> FieldSet:
    """The set of all fields of an object as an apply owns them: leaves, empty objects, elements of lists, and the entries of
    maps with all that is in them. Lists whose elements have an identity are nobody's themselves."""
    return {f"f:{key}": part for key, value in tree.items() if (part := _applied(value, schema, key)) is not None}


def _applied(value: Any, parent: Node | None, key: str) -> FieldSet | None:
    """The set of the value of a field or a map's key; None if nothing in it has an owner."""
    node = parent.child(key) if parent is not None else None
    declared = parent is not None and parent.kind == OBJECT and key in parent.fields
    children = _applied_children(value, node)
    if children is None:
        return {}
    return _join(not declared or value == {}, children)


def _applied_children(value: Any, node: Node | None) -> FieldSet | None:
    """The fields below a value; None for a value that is one."""
    if isinstance(value, dict) and granular(node):
        parts = ((key, _applied(value[key], node, key)) for key in sorted(value))
        return {f"f:{key}": part for key, part in parts if part is not None}
    if isinstance(value, list) and keyed(node) and node is not None:
        items = {element_key(element, node): element for element in value}
        return {key: _join(True, _applied_children(items[key], node.element) or {}) or {} for key in sorted(items)}
    return None


def _is_new(key: str, parent: Node | None, fresh: bool) -> bool:
    """Whether a write that gives this field a value also makes the field. ``fresh``: it makes what holds it."""
    return fresh or parent is None or not always_there(key, parent)


def always_there(key: str, parent: Node) -> bool:
    """Whether the field cannot be absent: in a Go struct those that are no pointers, nor omitempty unless they are structs
    themselves. In custom resources only metadata."""
    return key in parent.always if parent.name else key == "metadata"


def _contents(value: Any, node: Node | None, is_new: bool) -> FieldSet:
    """The fields owned by a write that makes the value: also the containers that it makes, where there was nothing."""
    if not value:
        return {}
    if isinstance(value, dict):
        if not granular(node):
            return {}
        out: FieldSet = {".": {}} if is_new else {}
        for key in sorted(value):
            inner = value[key]
            if inner and isinstance(inner, dict | list):
                child = node.child(key) if node is not None else None
                out["f:" + key] = _contents(inner, child, _is_new(key, node, is_new))
            else:
                out["f:" + key] = {}
        return out
    if isinstance(value, list) and keyed(node) and node is not None:
        items = grouped(value, node)
        out = {".": {}} if is_new else {}
        for key in sorted(items):
            out[key] = _element(items[key][0], node.element) if len(items[key]) == 1 else {}
        return out
    return {}


def _element(element: Any, node: Node) -> FieldSet:
    inner = _contents(element, node, True)
    return {".": {}, **inner} if inner and "." not in inner else inner


# --- changes ----------------------------------------------------------------------------------------------------------


class Changes(NamedTuple):
    """The effect of a write; ``modified`` and ``added`` in order. Members of ``removed`` stand for all below them."""

    removed: FieldSet
    modified: FieldSet
    added: FieldSet

    def __bool__(self) -> bool:
        return bool(self.removed or self.modified or self.added)

    @property
    def written(self) -> FieldSet:
        """Modified and added fields."""
        return union(self.modified, self.added)


_META = frozenset(
    [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ]
)
"""Fields of metadata that belong to the system: nobody owns them."""


def compare(old: Mapping[str, Any], new: Mapping[str, Any], schema: Node) -> Changes:
    """Compares one object to another and returns the changes. The system's own fields are left out."""
    out = Changes({}, {}, {})
    _compare(_ownable(old), _ownable(new), schema, out)
    return out


_CREATED: dict[tuple[Node, bytes], Changes] = {}
_CREATED_LIMIT, _CREATED_BYTES = 512, 32_768


def created(new: Mapping[str, Any], schema: Node) -> Changes:
    """The fields that the making of an object adds; kept by content, since replicas differ in names only."""
    mine = _ownable(new)
    key = (schema, orjson.dumps(mine))
    changes = _CREATED.get(key)
    if changes is None:
        changes = Changes({}, {}, {})
        _compare({}, mine, schema, changes)
        if len(key[1]) <= _CREATED_BYTES:
            if len(_CREATED) >= _CREATED_LIMIT:
                with suppress(RuntimeError, StopIteration):  # large objects come from other threads
                    _CREATED.pop(next(iter(_CREATED)), None)
            _CREATED[key] = changes
    return changes


def _ownable(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    out = {k: v for k, v in tree.items() if k not in ("apiVersion", "kind", "metadata")}
    meta = tree.get("metadata")
    if meta and (rest := {k: v for k, v in meta.items() if k not in _META}):
        out["metadata"] = rest
    return out


def ownable_set(tree: Mapping[str, Any], schema: Node) -> FieldSet:
    """The fields that a manager which applies ``tree`` owns. Raises FieldSetError."""
    return compute(_ownable(tree), schema)


def _compare(old: Mapping[str, Any], new: Mapping[str, Any], node: Node | None, out: Changes) -> None:
    for key in sorted(new):
        value = new[key]
        if key in old:
            before = old[key]
            if before is not value and not same(before, value):
                _compare_values(before, value, node.child(key) if node is not None else None, "f:" + key, out)
        else:
            child = node.child(key) if node is not None else None
            out.added["f:" + key] = _contents(value, child, _is_new(key, node, False))
    for key in old:
        if key not in new:
            out.removed["f:" + key] = {}


def _compare_values(old: Any, new: Any, node: Node | None, at: str, out: Changes) -> None:
    inner = Changes({}, {}, {})
    if isinstance(old, dict) and isinstance(new, dict) and granular(node):
        _compare(old, new, node, inner)
    elif isinstance(old, list) and isinstance(new, list) and keyed(node) and node is not None:
        _compare_elements(grouped(old, node), grouped(new, node), node.element, inner)
    elif granular(node) and (isinstance(old, dict) or isinstance(new, dict)):
        # Something else came in place of an object, or the other way round: what was below it is gone.
        if isinstance(old, dict) and old:
            out.removed[at] = {f"f:{key}": {} for key in old}
        out.modified[at] = _join(True, _contents(new, node, True)) or {}
        return
    else:
        out.modified[at] = {}
        return
    for whole, part in zip(out, inner, strict=True):
        if part:
            whole[at] = part


def _compare_elements(old: Groups, new: Groups, node: Node, out: Changes) -> None:
    """Elements of a keyed list. Several of one key, which only an update may write, are one value."""
    for key in sorted(new):
        after, before = new[key], old.get(key) or []
        if len(after) == 1 and len(before) == 1:
            if not same(before[0], after[0]):
                _compare_values(before[0], after[0], node, key, out)
        elif len(after) > 1 and len(before) > 1:
            if not same(before, after):
                out.modified[key] = {}
        else:
            if before:
                out.removed[key] = {}
            out.added[key] = _element(after[0], node) if len(after) == 1 else {}
    for key in old:
        if key not in new:
            out.removed[key] = {}


# --- algebra ----------------------------------------------------------------------------------------------------------


def _join(member: bool, children: FieldSet) -> FieldSet | None:
    if not member:
        return children or None
    return {".": {}, **children} if children else {}


def _children(node: FieldSet) -> FieldSet:
    return {k: v for k, v in node.items() if k != "."} if "." in node else node


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    """All members of both."""
    if not left or not right:
        return left or right
    out = dict(left)
    for key, node in right.items():
        have = out.get(key)
        if have is None:
            out[key] = node
        elif have != node:
            member = is_member(have) or is_member(node)
            out[key] = _join(member, union(_children(have), _children(node))) or {}
    return out


def difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """Members of ``left`` that are not members of ``right``."""
    out: FieldSet = {}
    for key, node in left.items():
        other = right.get(key)
        if other is None:
            out[key] = node
            continue
        rest = _join(is_member(node) and not is_member(other), difference(_children(node), _children(other)))
        if rest is not None:
            out[key] = rest
    return out


def intersection(left: FieldSet, right: FieldSet) -> FieldSet:
    """Members of both."""
    out: FieldSet = {}
    for key, node in left.items():
        other = right.get(key)
        if other is not None:
            both = _join(is_member(node) and is_member(other), intersection(_children(node), _children(other)))
            if both is not None:
                out[key] = both
    return out


def without(left: FieldSet, right: FieldSet) -> FieldSet:
    """``left`` less the members of ``right`` and all that is below them."""
    out: FieldSet = {}
    for key, node in left.items():
        other = right.get(key)
        if other is None:
            out[key] = node
        elif not is_member(other):
            rest = _join(is_member(node), without(_children(node), other))
            if rest is not None:
                out[key] = rest
    return out


def members(fields: FieldSet, prefix: Path = ()) -> Iterator[Path]:
    """All members, sorted: at each level members first, then what is below."""
    keys = [key for key in sorted(fields) if key != "."]
    for key in keys:
        if is_member(fields[key]):
            yield (*prefix, key)
    for key in keys:
        yield from members(fields[key], (*prefix, key))


def show(path: Path) -> str:
    """A path as messages show it: ``.spec.containers[name="c"].image``."""
    out = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            out += "." + rest
        elif kind == "k":
            keys = orjson.loads(rest)
            out += "[" + ",".join(f"{k}={orjson.dumps(v).decode()}" for k, v in keys.items()) + "]"
        elif kind == "v":
            out += f"[={rest}]"
        else:
            out += f"[{rest}]"
    return out


def ordered(fields: FieldSet) -> FieldSet:
    """The same set with its keys sorted at every level: how it is stored."""
    return {key: ordered(fields[key]) if fields[key] else {} for key in sorted(fields)}
