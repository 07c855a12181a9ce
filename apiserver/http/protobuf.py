"""Reads request bodies in Kubernetes' protobuf encoding: Go clients from 1.32 on send built-in kinds so.

We always answer in JSON, which every client accepts, but a body has no second choice. The walk is led by the kind's
schema; the numbers of fields are in protobuf_fields.json (see protobuf_table.py). What the table does not know is skipped,
as protobuf has it. Zeros that Go writes for plain fields are left out where Go's JSON would leave them out.
"""

from __future__ import annotations

import base64
import functools
import json
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from navarch.api import schema as shapes
from navarch.api.errors import BadRequest
from navarch.api.kinds import Kind
from navarch.api.schema import Node
from navarch.api.times import text_of
from navarch.api.types.index import INDEX

Tree = dict[str, Any]

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\0"
DELETE_OPTIONS = "meta/v1.DeleteOptions"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SKIP = object()


@functools.cache
def _table() -> dict[str, dict[str, list[Any]]]:
    return json.loads(Path(__file__).with_name("protobuf_fields.json").read_bytes())  # type: ignore[no-any-return]


def type_name(kind: Kind) -> str:
    """The table's name for the type of a kind: ``apps/v1.Deployment``."""
    return f"{kind.group.partition('.')[0] or 'core'}/{kind.version}.{kind.kind}"


def has_encoding(kind: Kind) -> bool:
    """Whether objects of the kind can come in protobuf: built-in ones, as far as the table has them."""
    return (kind.group, kind.version, kind.kind) in INDEX and type_name(kind) in _table()


def decode(data: bytes, name: str, schema: Node) -> Tree:
    """The JSON tree of an encoded object of the type ``name``. Raises BadRequest."""
    if not data.startswith(MAGIC):
        raise BadRequest("the body is not a protobuf object: the magic number is missing")
    if name not in _table():
        raise BadRequest(f"{name} has no protobuf encoding")
    try:
        envelope = {number: value for number, value in _fields(data[len(MAGIC) :])}
        header = {number: value.decode() for number, value in _fields(envelope.get(1, b""))}
        tree = _message(envelope.get(2, b""), name, schema)
    except (ValueError, IndexError, struct.error, AttributeError, TypeError) as error:
        raise BadRequest(f"the body is not a valid protobuf object: {error}") from None
    return {"apiVersion": header.get(1, ""), "kind": header.get(2, ""), **tree}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field: int for varints, bytes for everything else."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"unknown wire type {wire}")
        if at + length > end:
            raise ValueError("unexpected end")
        yield number, data[at : at + length]
        at += length


def _message(data: bytes, name: str, node: Node) -> Tree:
    table = _table().get(name, {})
    out: Tree = {}
    for number, raw in _fields(data):
        field = table.get(str(number))
        if field is None:
            continue
        json_name, refers, zero = field
        if not json_name:
            out |= _message(raw, refers, node)
            continue
        child = node.fields.get(json_name)
        if child is None:
            continue
        if child.kind == shapes.LIST:
            values = out.setdefault(json_name, [])
            if isinstance(raw, bytes) and child.element.kind in (shapes.INT32, shapes.INT64):
                at = 0
                while at < len(raw):  # packed
                    value, at = _varint(raw, at)
                    values.append(_signed(value))
            else:
                values.append(_value(raw, refers, child.element))
        elif child.kind == shapes.MAP:
            entry = dict(_fields(raw))
            missing: Any = b""
            value = _value(entry.get(2, missing), refers, child.element)
            out.setdefault(json_name, {})[entry.get(1, b"").decode()] = value
        else:
            value = _value(raw, refers, child)
            if value is not _SKIP and not (zero and value in ("", 0, False) and not isinstance(value, dict)):
                out[json_name] = value
    return out


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _value(raw: Any, refers: str, node: Node) -> Any:
    match node.kind:
        case shapes.STRING:
            return raw.decode()
        case shapes.BOOL:
            return bool(raw)
        case shapes.INT32 | shapes.INT64 | shapes.INTEGER:
            return _signed(raw)
        case shapes.NUMBER:
            return struct.unpack("<d", raw)[0]
        case shapes.BYTES:
            return base64.b64encode(raw).decode()
        case shapes.QUANTITY:
            return dict(_fields(raw)).get(1, b"0").decode() or "0"
        case shapes.INT_OR_STRING:
            parts = dict(_fields(raw))
            return parts.get(3, b"").decode() if parts.get(1) else _signed(parts.get(2, 0))
        case shapes.TIME | shapes.MICRO_TIME:
            return _time(dict(_fields(raw)), node.kind == shapes.MICRO_TIME)
        case shapes.OBJECT:
            return _message(raw, refers, node)
        case shapes.ANY | shapes.ANY_OBJECT:
            inner = dict(_fields(raw)).get(1, b"")
            return orjson.loads(inner) if inner else _SKIP
        case shapes.LIST:
            return [_value(value, refers, node.element) for _, value in _fields(raw)]
    raise ValueError(f"no protobuf form of {node.kind}")


def _time(parts: dict[int, Any], micro: bool) -> Any:
    if not parts:
        return _SKIP
    try:
        moment = _EPOCH + timedelta(seconds=_signed(parts.get(1, 0)), microseconds=_signed(parts.get(2, 0)) // 1000)
    except OverflowError:
        raise ValueError("a time is not within the years 1 to 9999") from None
    return text_of(moment, micro)
