"""How objects are kept as bytes: encoded once when written, with a place for the resource version.

A stored value is the JSON of the object without metadata.resourceVersion (only the store knows it, after the write).
``apiVersion``, ``kind`` and ``metadata`` come first, so the place of the resource version is found in the first hundred
bytes and filled by joining three pieces: no decoding on any read.
"""

from __future__ import annotations

from typing import Any

import orjson

Tree = dict[str, Any]

_METADATA = b'"metadata":{'
_VERSION = b'"resourceVersion":"'


def encode_stored(obj: Tree) -> bytes:
    """The bytes that the store keeps. ``obj`` is not changed; its metadata must not be empty."""
    metadata = obj["metadata"]
    if "resourceVersion" in metadata:
        metadata = {k: v for k, v in metadata.items() if k != "resourceVersion"}
    ordered = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata}
    for key, value in obj.items():
        if key not in ordered:
            ordered[key] = value
    return orjson.dumps(ordered)


def with_revision(value: bytes, revision: int) -> bytes:
    """A stored value as clients see it, with its resource version in place."""
    at = value.index(_METADATA) + len(_METADATA)
    return b'%b"resourceVersion":"%d",%b' % (value[:at], revision, value[at:])


def without_revision(value: bytes) -> bytes:
    """The inverse of :func:`with_revision`."""
    at = value.index(_METADATA) + len(_METADATA)
    if not value.startswith(_VERSION, at):
        return value
    end = value.index(b'",', at + len(_VERSION)) + 2
    return value[:at] + value[end:]


def decode(value: bytes) -> Tree:
    """The tree of an encoded object."""
    return orjson.loads(value)  # type: ignore[no-any-return]


def decode_stored(value: bytes, revision: int) -> Tree:
    """The tree of a stored value, with its resource version."""
    obj: Tree = orjson.loads(value)
    obj["metadata"]["resourceVersion"] = str(revision)
    return obj
