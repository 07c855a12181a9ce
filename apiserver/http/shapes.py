"""The shapes in which an object can be sent: itself, metadata only, or a row of a Table; as JSON or YAML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from apiserver.registry.reads import ListResult
from apiserver.registry.strategy import Strategy
from apiserver.wire.negotiation import META_GROUP, YAML, Accept
from navarch.api.errors import BadRequest
from navarch.api.kinds import Kind

Tree = dict[str, Any]

PIECE = 64  # objects of a list that are sent at once
INCLUDE_NONE, INCLUDE_METADATA, INCLUDE_OBJECT = "None", "Metadata", "Object"


def include_object(query: Any) -> str:
    """The includeObject parameter of Table requests. Raises BadRequest."""
    value = query.get("includeObject") or INCLUDE_METADATA
    if value not in (INCLUDE_NONE, INCLUDE_METADATA, INCLUDE_OBJECT):
        raise BadRequest(f'unrecognized includeObject value: "{value}"')
    return str(value)


def partial(obj: Tree, version: str = "v1") -> Tree:
    """The PartialObjectMetadata of an object."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"{META_GROUP}/{version}",
        "metadata": obj.get("metadata") or {},
    }


def columns(strategy: Strategy) -> list[Tree]:
    """columnDefinitions of a kind."""
    return [
        {"name": c.name, "type": c.type, "format": c.format, "description": c.description, "priority": c.priority}
        for c in strategy.columns
    ]


def row(strategy: Strategy, data: bytes, version: str, include: str, now: float) -> Tree:
    """The row of a Table for one object."""
    obj = orjson.loads(data)
    out: Tree = {"cells": strategy.cells(obj, now)}
    if include == INCLUDE_METADATA:
        out["object"] = partial(obj, version)
    elif include == INCLUDE_OBJECT:
        out["object"] = obj
    return out


def table_head(strategy: Strategy, metadata: Tree, version: str, head: bool = True) -> Tree:
    """A Table without its rows; ``head`` False leaves the column definitions out (later events of a watch)."""
    return {
        "kind": "Table",
        "apiVersion": f"{META_GROUP}/{version}",
        "metadata": metadata,
        "columnDefinitions": columns(strategy) if head else None,
    }


def table(
    strategy: Strategy, objects: Iterable[bytes], metadata: Tree, version: str, include: str, now: float, head: bool = True
) -> Tree:
    """A Table with one row an object."""
    rows = [row(strategy, data, version, include, now) for data in objects]
    return table_head(strategy, metadata, version, head) | {"rows": rows}


def one(strategy: Strategy, data: bytes, accept: Accept, include: str, now: float) -> bytes:
    """The reply with one object (``data`` is its JSON)."""
    if not accept.shape and accept.media_type != YAML:
        return data
    tree: Any = orjson.loads(data)
    # A Status (the answer of a delete) has no other shape.
    if tree.get("kind") == strategy.kind.kind:
        if accept.shape == "Table":
            version = tree["metadata"].get("resourceVersion")
            metadata = {"resourceVersion": version} if version else {}
            tree = table(strategy, [data], metadata, accept.version, include, now)
        elif accept.shape:
            tree = partial(tree)
    return encode(tree, accept)


def many(
    strategy: Strategy, kind: Kind, result: ListResult, accept: Accept, include: str, now: float, pretty: bool = False
) -> bytes:
    """The reply with a list. The plain shape only joins bytes; see also :func:`pieces`.

    Objects are encoded one by one: one call of orjson holds the GIL, and with it all threads, until it is done.
    """
    metadata = list_metadata(result)
    if accept.shape == "Table":
        head, name = table_head(strategy, metadata, accept.version), b"rows"
        trees = (row(strategy, data, accept.version, include, now) for data in result.items)
    elif accept.shape:
        head = {"kind": "PartialObjectMetadataList", "apiVersion": f"{META_GROUP}/v1", "metadata": metadata}
        trees, name = (partial(orjson.loads(data)) for data in result.items), b"items"
    elif accept.media_type == YAML or pretty:
        head, name = list_head(kind, result), b"items"
        trees = (orjson.loads(data) for data in result.items)
    else:
        return b"".join(pieces(kind, result)[1])
    if accept.media_type == YAML:
        return encode(head | {name.decode(): list(trees)}, accept)
    if not pretty:
        return b'%b,"%b":[%b]}' % (orjson.dumps(head)[:-1], name, b",".join([orjson.dumps(tree) for tree in trees]))
    # JSON has no line breaks but those between its parts, so a part can be moved to the right as it is.
    start = orjson.dumps(head, option=orjson.OPT_INDENT_2)[:-2]
    parts = [orjson.dumps(tree, option=orjson.OPT_INDENT_2).replace(b"\n", b"\n    ") for tree in trees]
    inner = b"\n    %b\n  " % b",\n    ".join(parts) if parts else b""
    return b'%b,\n  "%b": [%b]\n}' % (start, name, inner)


def pieces(kind: Kind, result: ListResult) -> tuple[int, Iterator[bytes]]:
    """The plain list as its length and pieces that can be sent one after the other, without a copy of all of it."""
    head, items = b'%b,"items":[' % orjson.dumps(list_head(kind, result))[:-1], result.items

    def parts() -> Iterator[bytes]:
        yield head
        for at in range(0, len(items), PIECE):
            yield b"%b%b" % (b"," if at else b"", b",".join(items[at : at + PIECE]))
        yield b"]}"

    return len(head) + sum(map(len, items)) + max(0, len(items) - 1) + 2, parts()


def list_head(kind: Kind, result: ListResult) -> Tree:
    return {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": list_metadata(result)}


def list_metadata(result: ListResult) -> Tree:
    metadata: Tree = {"resourceVersion": str(result.revision)}
    if result.token:
        metadata["continue"] = result.token
    if result.remaining is not None:
        metadata["remainingItemCount"] = result.remaining
    return metadata


def encode(tree: Any, accept: Accept) -> bytes:
    if accept.media_type == YAML:
        from navarch.api.serialization import dump_yaml

        return dump_yaml(tree).encode()
    return orjson.dumps(tree)
