"""An OpenAPI v2 document in protobuf, as openapi.v2.Document: what Go clients ask for.

The message types are those of the protocol; here stand the numbers of the fields that our documents use. A message is
written from a JSON tree: each key has a number and a way to write its value. A key that no table knows is an error, so
that nothing is lost without a word.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

import orjson

Tree = Mapping[str, Any]
Write = Callable[[int, Any], bytes]  # field number, value -> the field with its key
Fields = Mapping[str, tuple[int, Write]]


def varint(value: int) -> bytes:
    if value < 0:
        value += 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def block(number: int, data: bytes) -> bytes:
    """A field with a length: text, bytes, a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def text(number: int, value: str) -> bytes:
    return block(number, value.encode())


def integer(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(int(value))


def double(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def anything(number: int, value: Any) -> bytes:
    """An Any: the value as YAML, which JSON is."""
    return block(number, text(2, orjson.dumps(value).decode() + "\n"))


def each(write: Write) -> Write:
    return lambda number, values: b"".join([write(number, value) for value in values])


def inside(inner: int, write: Write) -> Write:
    """A value in a message that has nothing but it."""
    return lambda number, value: block(number, write(inner, value))


def named(write: Write) -> Write:
    """A map as a list of messages of a name and a value."""

    def out(number: int, values: Tree) -> bytes:
        return b"".join([block(number, text(1, name) + write(2, value)) for name, value in values.items()])

    return out


def message(fields: Callable[[], tuple[Fields, int]]) -> Write:
    """A message by its table; keys that begin with x- go into the field for extensions."""

    def out(number: int, value: Tree) -> bytes:
        return block(number, encode(value, *fields()))

    return out


def encode(value: Tree, fields: Fields, extensions: int) -> bytes:
    parts = []
    for key, child in value.items():
        if key.startswith("x-"):
            parts.append(block(extensions, text(1, key) + anything(2, child)))
        else:
            number, write = fields[key]
            parts.append(write(number, child))
    return b"".join(parts)


def _type(number: int, value: str | list[str]) -> bytes:
    return block(number, each(text)(1, [value] if isinstance(value, str) else value))


def _additional(number: int, value: Any) -> bytes:
    return block(number, integer(2, value) if isinstance(value, bool) else _schema(1, value))


_schema = message(lambda: (SCHEMA, 31))
_items = inside(1, _schema)

SCHEMA: Fields = {
    "$ref": (1, text), "format": (2, text), "title": (3, text), "description": (4, text), "default": (5, anything),
    "multipleOf": (6, double), "maximum": (7, double), "exclusiveMaximum": (8, integer), "minimum": (9, double),
    "exclusiveMinimum": (10, integer), "maxLength": (11, integer), "minLength": (12, integer), "pattern": (13, text),
    "maxItems": (14, integer), "minItems": (15, integer), "uniqueItems": (16, integer), "maxProperties": (17, integer),
    "minProperties": (18, integer), "required": (19, each(text)), "enum": (20, each(anything)),
    "additionalProperties": (21, _additional), "type": (22, _type), "items": (23, _items),
    "properties": (25, inside(1, named(_schema))), "externalDocs": (29, message(lambda: (DOCS, 3))),
}  # fmt: skip
DOCS: Fields = {"description": (1, text), "url": (2, text)}
_BODY: Fields = {
    "description": (1, text), "name": (2, text), "in": (3, text), "required": (4, integer), "schema": (5, _schema),
}  # fmt: skip
_QUERY: Fields = {
    "required": (1, integer), "in": (2, text), "description": (3, text), "name": (4, text), "type": (6, text),
}  # fmt: skip
_PATH: Fields = {
    "required": (1, integer), "in": (2, text), "description": (3, text), "name": (4, text), "type": (5, text),
}  # fmt: skip


def _parameter(number: int, value: Tree) -> bytes:
    match value["in"]:
        case "body":
            inner = block(1, encode(value, _BODY, 6))
        case "query":
            inner = block(2, block(3, encode(value, _QUERY, 23)))
        case "path":
            inner = block(2, block(4, encode(value, _PATH, 22)))
        case other:
            raise ValueError(f"no parameters in {other}")
    return block(number, block(1, inner))


_RESPONSE: Fields = {"description": (1, text), "schema": (2, inside(1, _schema))}
_responses = inside(1, message(lambda: (_RESPONSE, 5)))  # in a ResponseValue


def _all_responses(number: int, values: Tree) -> bytes:
    return block(number, b"".join([block(1, text(1, code) + _responses(2, one)) for code, one in values.items()]))


_OPERATION: Fields = {
    "tags": (1, each(text)), "description": (3, text), "operationId": (5, text), "produces": (6, each(text)),
    "consumes": (7, each(text)), "parameters": (8, each(_parameter)), "responses": (9, _all_responses),
    "schemes": (10, each(text)),
}  # fmt: skip
_operation = message(lambda: (_OPERATION, 13))
_PATH_ITEM: Fields = {
    "get": (2, _operation), "put": (3, _operation), "post": (4, _operation), "delete": (5, _operation),
    "options": (6, _operation), "head": (7, _operation), "patch": (8, _operation), "parameters": (9, each(_parameter)),
}  # fmt: skip
_INFO: Fields = {"title": (1, text), "version": (2, text)}
_KEY: Fields = {"type": (1, text), "name": (2, text), "in": (3, text), "description": (4, text)}


def _paths(number: int, values: Tree) -> bytes:
    item = message(lambda: (_PATH_ITEM, 10))
    return block(number, b"".join([block(2, text(1, path) + item(2, one)) for path, one in values.items()]))


_key = inside(2, message(lambda: (_KEY, 5)))  # the only kind of security that we name
_requirement = inside(1, named(lambda number, scopes: block(number, each(text)(1, scopes))))
_DOCUMENT: Fields = {
    "swagger": (1, text), "info": (2, message(lambda: (_INFO, 7))), "paths": (8, _paths),
    "definitions": (9, inside(1, named(_schema))), "security": (12, each(_requirement)),
    "securityDefinitions": (13, inside(1, named(_key))),
}  # fmt: skip


def document(tree: Tree) -> bytes:
    """The encoded document. Raises KeyError for what has no place in it."""
    return encode(tree, _DOCUMENT, 16)
