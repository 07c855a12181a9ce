"""Compiled schemas: what fields a kind has, of what types, and how patch and apply merge them.

A :class:`Node` describes one value. Nodes come from the typed structs (:func:`schema_of`) or from the openAPIV3Schema of a
custom resource (:func:`from_openapi`); everything that walks JSON trees (pruning, strategic merge, field sets, apply)
uses nodes only, so that built-in kinds and custom resources take the same path. Nodes compile their fields when
first asked, which also lets schemas contain themselves.

The walker that brings a decoded tree into order is in :mod:`navarch.api.pruning`.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, Union

import msgspec

from navarch.api.types import meta_v1
from navarch.api.types.base import Struct, Tag
from navarch.api.types.zeros import ZEROS

# What a value may be. INTEGER is a custom resource's: any size; INT32 and INT64 are checked for their range.
OBJECT, MAP, LIST = "object", "map", "list"
STRING, BOOL, INT32, INT64, INTEGER, NUMBER = "string", "bool", "int32", "int64", "integer", "number"
QUANTITY, INT_OR_STRING, TIME, MICRO_TIME, BYTES = "quantity", "int-or-string", "time", "micro-time", "bytes"
ANY, ANY_OBJECT = "any", "any-object"

JSON_TYPES: dict[str, type] = {
    OBJECT: dict,
    MAP: dict,
    LIST: list,
    STRING: str,
    BOOL: bool,
    INT32: int,
    INT64: int,
    INTEGER: int,
    NUMBER: float,
    QUANTITY: str,
    TIME: str,
    MICRO_TIME: str,
    BYTES: str,
    ANY_OBJECT: dict,
}

# Defaults of fields that are keys of map lists: with them an element that leaves the key out still has an identity.
KEY_DEFAULTS: dict[tuple[str, str], Any] = {
    ("ContainerPort", "protocol"): "TCP",
    ("ServicePort", "protocol"): "TCP",
    ("LocalObjectReference", "name"): "",
}
_NO_TAG = Tag()


class Walker(NamedTuple):
    """``equip`` sets a node's ``deep`` and ``leaf``, ``looks`` makes what is kept in its field of that name."""

    equip: Callable[[Node], None]
    looks: Callable[[Node], dict[str, Any]]


_walkers: list[Walker] = []


def walk_by(walker: Walker) -> None:
    """Called by navarch.api.pruning as it is imported: schemas know nothing of the walker, but keep its findings."""
    _walkers.append(walker)


class Node:
    """The schema of one value.

    ``kind`` is one of the constants above. ``fields`` (OBJECT) maps wire names to nodes; ``element`` is the node of list
    items and map values; ``required`` lists wire names that must be there. ``tag`` carries the merge rules of the field
    that holds the value; ``atomic`` says that apply takes the whole value as one. ``name`` is the struct's name and ``go``
    the Go type, for messages. ``open`` objects keep unknown fields; ``nullable`` values keep null. ``vanish`` names the fields
    for which empty ("", 0, false, no items) is the same as absent: in Go they are no pointers, and omitempty. ``always``
    names those that Go cannot leave out: they exist as soon as the object does. ``deep``, ``leaf`` and ``looks`` belong to
    the walker.
    """

    __slots__ = (
        "_compile",
        "always",
        "atomic",
        "deep",
        "default",
        "element",
        "fields",
        "go",
        "kind",
        "leaf",
        "looks",
        "name",
        "nullable",
        "open",
        "required",
        "tag",
        "type",
        "vanish",
    )

    fields: dict[str, Node]
    required: tuple[str, ...]
    vanish: frozenset[str]
    always: frozenset[str]
    element: Node
    deep: Callable[[Any, Node, bool], Any] | None
    leaf: Callable[[Any], Any] | None
    looks: dict[str, Any]
    type: type | None

    def __init__(self, kind: str, go: str, *, tag: Tag = _NO_TAG, name: str = "") -> None:
        self.kind, self.go, self.tag, self.name = kind, go, tag, name
        self.type = JSON_TYPES.get(kind)
        self.atomic = tag.map_type == "atomic" or kind in (ANY, ANY_OBJECT)
        self.open = self.nullable = False
        self.default: Any = None
        self._compile: Callable[[Node], None] | None = None

    def __getattr__(self, attribute: str) -> Any:
        # Slots still unset arrive here: the first look at fields compiles them.
        if attribute in ("fields", "required", "vanish", "always"):
            self.fields, self.required, self.vanish, self.always = {}, (), frozenset(), frozenset()
            if self._compile is not None:
                self._compile(self)
            return getattr(self, attribute)
        if attribute in ("deep", "leaf", "looks"):
            walker = _walkers[-1]  # IndexError: nobody has imported navarch.api.pruning, so who asks?
            if attribute == "looks":
                self.looks = walker.looks(self)
            else:
                walker.equip(self)
            return getattr(self, attribute)
        raise AttributeError(attribute)

    def __repr__(self) -> str:
        return f"<Node {self.go}>"

    def child(self, key: str) -> Node | None:
        """The node of a field or of a map's value; None if there is no such field."""
        if self.kind == OBJECT:
            return self.fields.get(key)
        return self.element if self.kind == MAP else None

    @property
    def list_type(self) -> str:
        """atomic, map or set; lists that say nothing are atomic."""
        return self.tag.list_type or "atomic"

    @property
    def list_keys(self) -> tuple[str, ...]:
        return self.tag.list_keys

    @property
    def strategy(self) -> tuple[str, ...]:
        """Patch strategies: merge, replace, retainKeys."""
        return self.tag.strategy

    @property
    def merge_key(self) -> str | None:
        return self.tag.merge_key

    def key_default(self, key: str) -> Any:
        """The value that an element's absent key field stands for (of list items), None if for none."""
        default = KEY_DEFAULTS.get((self.name, key))
        if default is None and self.kind == OBJECT and (field := self.fields.get(key)) is not None:
            default = field.default
        return default


# --- from typed structs -----------------------------------------------------------------------------------------------


@functools.cache
def schema_of(struct: type[Struct]) -> Node:
    """The schema of a typed struct, compiled once."""
    node = Node(OBJECT, _go_name(struct), name=struct.__name__)
    node.atomic = struct._atomic_
    node._compile = functools.partial(_compile_struct, struct)
    return node


def _go_name(struct: type[Struct]) -> str:
    return f"{struct.__module__.rsplit('_', 1)[-1]}.{struct.__name__}"


def _compile_struct(struct: type[Struct], node: Node) -> None:
    infos = msgspec.structs.fields(struct)
    node.fields = {i.encode_name: _of_type(i.type, struct._tags_.get(i.encode_name, _NO_TAG)) for i in infos}
    node.required = tuple(i.encode_name for i in infos if i.required)
    empty, always = ZEROS.get(f"{struct.__module__.rpartition('.')[2]}.{struct.__name__}", ("", " ".join(node.required)))
    node.vanish, node.always = frozenset(empty.split()), frozenset(always.split())


_FORMATS = {
    "date-time": (TIME, "v1.Time"),
    "micro-time": (MICRO_TIME, "v1.MicroTime"),
    "byte": (BYTES, "[]uint8"),
    "quantity": (QUANTITY, "resource.Quantity"),
    "int-or-string": (INT_OR_STRING, "intstr.IntOrString"),
}
_PLAIN: dict[Any, tuple[str, str]] = {
    str: (STRING, "string"),
    bool: (BOOL, "bool"),
    int: (INT64, "int64"),
    float: (NUMBER, "float64"),
    Any: (ANY, "interface {}"),
}


def _of_type(annotation: Any, tag: Tag) -> Node:
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType):
        return _of_type(next(a for a in typing.get_args(annotation) if a is not type(None)), tag)
    if origin is Annotated:
        meta = annotation.__metadata__[0]
        number_kind = _FORMATS.get((meta.extra or {}).get("format", ""))
        if number_kind is None and meta.ge is not None:
            number_kind = (INT32, "int32") if meta.ge == -(2**31) else (INT64, "int64")
        return Node(*number_kind, tag=tag) if number_kind else _of_type(typing.get_args(annotation)[0], tag)
    if origin is list:
        element = _of_type(typing.get_args(annotation)[0], _NO_TAG)
        node = Node(LIST, "[]" + element.go, tag=tag)
        node.element = element
        return node
    if origin is dict:
        value = typing.get_args(annotation)[1]
        if value is Any:
            return Node(ANY_OBJECT, "map[string]interface {}", tag=tag)
        element = _of_type(value, _NO_TAG)
        node = Node(MAP, "map[string]" + element.go, tag=tag)
        node.element = element
        return node
    if annotation in _PLAIN:
        return Node(*_PLAIN[annotation], tag=tag)
    shared = schema_of(annotation)
    if tag == _NO_TAG:
        return shared
    node = Node(OBJECT, shared.go, tag=tag, name=shared.name)
    node.atomic = node.atomic or shared.atomic
    node._compile = shared._compile
    return node


# --- from a CustomResourceDefinition ----------------------------------------------------------------------------------


def from_openapi(schema: Mapping[str, Any], *, root: bool = True) -> Node:
    """The schema of a custom resource's ``openAPIV3Schema``. ``root`` adds apiVersion, kind and metadata."""
    node = _of_openapi(schema)
    if root:
        node = _as_resource(node, schema)
    return node


_JSON_SCHEMA = {"string": STRING, "boolean": BOOL, "integer": INTEGER, "number": NUMBER, "array": LIST}


def _of_openapi(schema: Mapping[str, Any]) -> Node:
    tag = Tag(
        list_type=schema.get("x-kubernetes-list-type"),
        list_keys=tuple(schema.get("x-kubernetes-list-map-keys") or ()),
        map_type=schema.get("x-kubernetes-map-type"),
    )
    kind = schema.get("type") or ""
    extra = schema.get("additionalProperties")
    keeps = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if schema.get("x-kubernetes-int-or-string"):
        node = Node(INT_OR_STRING, "int-or-string", tag=tag)
    elif kind == "array":
        node = Node(LIST, "array", tag=tag)
        node.element = _element(schema.get("items") or {"x-kubernetes-preserve-unknown-fields": True})
    elif isinstance(extra, Mapping) and not schema.get("properties"):
        node = Node(MAP, "object", tag=tag)
        node.element = _element(extra)
    elif extra is True and not schema.get("properties"):
        node = Node(ANY_OBJECT, "object", tag=tag)
    elif kind == "object" or schema.get("properties"):
        node = Node(OBJECT, "object", tag=tag)
        node.open = keeps
        node._compile = functools.partial(_compile_openapi, schema)
        if schema.get("x-kubernetes-embedded-resource"):
            node = _as_resource(node, schema)
    else:
        node = Node(_JSON_SCHEMA.get(kind, ANY), kind, tag=tag)
        if kind == "string" and schema.get("format") == "byte":
            node = Node(BYTES, kind, tag=tag)
    node.nullable = bool(schema.get("nullable"))
    node.default = schema.get("default")
    # What a custom resource says nothing about is merged field by field, unlike a RawExtension of a built-in kind.
    node.atomic = tag.map_type == "atomic"
    return node


def _element(schema: Mapping[str, Any]) -> Node:
    """An element keeps a null: it is up to validation to refuse it."""
    node = _of_openapi(schema)
    node.nullable = True
    return node


def _compile_openapi(schema: Mapping[str, Any], node: Node) -> None:
    node.fields = {name: _of_openapi(s) for name, s in (schema.get("properties") or {}).items()}
    node.required = tuple(schema.get("required") or ())


def _as_resource(node: Node, schema: Mapping[str, Any]) -> Node:
    """Adds what every object has; the schema may say less about metadata, never more."""
    out = Node(OBJECT, "object", tag=node.tag)
    out.open = bool(schema.get("x-kubernetes-preserve-unknown-fields"))

    def compile_(self: Node) -> None:
        _compile_openapi(schema, self)
        self.fields |= {
            "apiVersion": Node(STRING, "string"),
            "kind": Node(STRING, "string"),
            "metadata": schema_of(meta_v1.ObjectMeta),
        }

    out._compile = compile_
    out.nullable, out.default = node.nullable, node.default
    return out
