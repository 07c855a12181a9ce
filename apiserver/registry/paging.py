"""Continue tokens: base64url of ``{"v", "rv", "start"}``, where the page before ended and at which revision it was read."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, NamedTuple

import orjson

from navarch.api.errors import BadRequest, Expired
from navarch.api.serialization import DecodeError, decode_json, go_type

VERSION = "meta.k8s.io/v1"
ANY_REVISION = -1  # the list was compacted in the middle and the client accepted to go on with what is there now

_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the "
    "continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing "
    "with the provided token results in an inconsistent list - objects that were created, modified, or deleted between "
    "the time the first chunk was returned and now may show up in the list."
)


class Position(NamedTuple):
    """``after`` is the key, below the resource's prefix, of the last object that was sent."""

    revision: int
    after: str


class ExpiredPage(Expired):
    """410 in the middle of a list, with a token that goes on from the same place, inconsistently."""

    def __init__(self, position: Position) -> None:
        super().__init__(_EXPIRED)
        self.token = encode(Position(ANY_REVISION, position.after))

    def status(self) -> dict[str, Any]:
        return super().status() | {"metadata": {"continue": self.token}}


_not_base64url = re.compile(r"[^A-Za-z0-9_-]").search


def encode(position: Position) -> str:
    token = orjson.dumps({"v": VERSION, "rv": position.revision, "start": position.after + "\0"})
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def decode(token: str, namespace: str) -> Position:
    """Reads a token of a list in ``namespace`` ("" for all). Raises BadRequest."""
    if (bad := _not_base64url(token)) is not None:
        raise _bad(f"illegal base64 data at input byte {bad.start()}")
    try:
        tree = decode_json(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except binascii.Error:
        raise _bad(f"illegal base64 data at input byte {len(token)}") from None
    except DecodeError as error:
        raise _bad(str(error)) from None
    if not isinstance(tree, dict):
        raise _bad(f"json: cannot unmarshal {go_type(tree)} into Go value of type storage.continueToken")
    version, revision, start = tree.get("v"), tree.get("rv"), tree.get("start")
    if version != VERSION:
        raise _bad(f"server does not recognize this encoded version {version}")
    if not isinstance(revision, int) or not isinstance(start, str) or not start or revision == 0:
        raise _bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
    after = start.rstrip("\0")
    if ".." in after.split("/") or after.startswith("/"):
        raise _bad(f"continue key is not valid: {start}")
    if namespace and not after.startswith(namespace + "/"):
        raise _bad("continue token is for another namespace")
    return Position(revision, after)


def _bad(why: str) -> BadRequest:
    return BadRequest(f"continue key is not valid: {why}")
