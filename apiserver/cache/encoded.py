"""How an object lies in the store: JSON that begins with kind, apiVersion and metadata, without a resourceVersion.

The resourceVersion is the store's revision, which is not known before the object is written. So reading puts it in,
as the first member of metadata: a splice of bytes, no parsing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

_METADATA = b'"metadata":{'
_SLOT = b'"resourceVersion":"'


def encode(tree: Mapping[str, Any]) -> bytes:
    """The stored form of an object; its resourceVersion is left out. Does not change ``tree``."""
    metadata = tree.get("metadata") or {}
    if "resourceVersion" in metadata:
        metadata = {key: value for key, value in metadata.items() if key != "resourceVersion"}
    head = {"kind": tree.get("kind", ""), "apiVersion": tree.get("apiVersion", ""), "metadata": metadata}
    return orjson.dumps(head | {key: value for key, value in tree.items() if key not in head})


def with_revision(value: bytes, revision: int) -> bytes:
    """The object with ``metadata.resourceVersion`` set: takes the stored form, or what this function returned."""
    at = value.index(_METADATA) + 12
    if value.startswith(_SLOT, at):
        return b"%b%d%b" % (value[: at + 19], revision, value[value.index(b'"', at + 19) :])
    comma = b"" if value[at] == 0x7D else b","
    return b'%b"resourceVersion":"%d"%b%b' % (value[:at], revision, comma, value[at:])


def decode(data: bytes) -> dict[str, Any]:
    """The object as a plain tree."""
    tree: dict[str, Any] = orjson.loads(data)
    return tree
