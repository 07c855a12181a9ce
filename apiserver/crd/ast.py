"""A compiled CEL expression as a tree. The engine gives it as a CheckedExpr or ParsedExpr in protobuf (cel-spec,
checked.proto and syntax.proto); this reads the part that estimates of costs need."""

from __future__ import annotations

from typing import Any, NamedTuple

Fields = dict[int, list[Any]]


class Const(NamedTuple):
    """``size``: of a text or of bytes; None for what has no size."""

    size: int | None


class Ident(NamedTuple):
    name: str


class Select(NamedTuple):
    operand: Node
    field: str
    test: bool  # has(a.b)


class Call(NamedTuple):
    """``args`` begins with the target of a member function."""

    function: str
    args: tuple[Node, ...]


class Construction(NamedTuple):
    """A list, map or message that the expression writes down. ``kind``: list, map or message."""

    kind: str
    parts: tuple[Node, ...]
    size: int


class Loop(NamedTuple):
    """The loop that the macros (all, exists, map, filter, cel.bind) become."""

    over: Node
    variables: tuple[str, ...]
    result: str
    start: Node
    condition: Node
    step: Node
    end: Node


Node = Const | Ident | Select | Call | Construction | Loop


def parse(data: bytes) -> Node:
    """The tree of a serialized expression. Raises ValueError for what is none."""
    try:
        around = _fields(data)  # an Any
        fields_ = _fields(around[2][0])
        return _node(fields_[2 if around[1][0].endswith(b"ParsedExpr") else 4][0])
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"not an expression: {error!r}") from None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> Fields:
    """The fields of a message: number -> values, as they came."""
    out: Fields = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value: Any
        match key & 7:
            case 0:
                value, at = _varint(data, at)
            case 1:
                value, at = data[at : at + 8], at + 8
            case 2:
                size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
            case 5:
                value, at = data[at : at + 4], at + 4
            case other:
                raise ValueError(f"wire type {other}")
        out.setdefault(key >> 3, []).append(value)
    return out


def _text(fields: Fields, number: int) -> str:
    return fields[number][0].decode() if number in fields else ""


def _node(data: bytes) -> Node:
    fields = _fields(data)
    if 3 in fields:
        constant = _fields(fields[3][0])
        return Const(next((len(constant[n][0]) for n in (6, 7) if n in constant), None))
    if 4 in fields:
        return Ident(_text(_fields(fields[4][0]), 1))
    if 5 in fields:
        select = _fields(fields[5][0])
        return Select(_node(select[1][0]), _text(select, 2), bool(select.get(3)))
    if 6 in fields:
        call = _fields(fields[6][0])
        return Call(_text(call, 2), tuple(_node(one) for one in (*call.get(1, ()), *call.get(3, ()))))
    if 7 in fields:
        parts = tuple(_node(one) for one in _fields(fields[7][0]).get(1, ()))
        return Construction("list", parts, len(parts))
    if 8 in fields:
        struct = _fields(fields[8][0])
        entries = [_fields(entry) for entry in struct.get(2, ())]
        parts = tuple(_node(entry[n][0]) for entry in entries for n in (3, 4) if n in entry)
        return Construction("message" if 1 in struct else "map", parts, len(entries))
    loop = _fields(fields[9][0])
    names = tuple(name for name in (_text(loop, 1), _text(loop, 8)) if name)
    over, start, condition, step, end = (_node(loop[n][0]) for n in (2, 4, 5, 6, 7))
    return Loop(over, names, _text(loop, 3), start, condition, step, end)
