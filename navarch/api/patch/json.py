"""JSON patch (RFC 6902), with Kubernetes' limits."""

from __future__ import annotations

from typing import Any

from navarch.api.errors import BadRequest, Invalid, RequestEntityTooLarge
from navarch.api.patch import Tree, copy_tree, same
from navarch.api.serialization import encode_json, go_type

MAX_OPERATIONS = 10_000
MAX_COPIED = 3 * 1024 * 1024
"""Bytes that copy operations may add: a short patch must not make a huge object."""

REJECTED = "the server rejected our request due to an error in our request"
OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")


class _Failed(Exception):
    """An operation cannot be done; the message says why."""


def apply_json(tree: Tree, patch: Any) -> Any:
    """``tree`` after all operations; none is done if one fails.

    Raises BadRequest for what is no patch, Invalid for an operation that fails, RequestEntityTooLarge.
    """
    if not isinstance(patch, list):
        raise BadRequest(f"error decoding patch: json: cannot unmarshal {go_type(patch)} into Go value of type jsonpatch.Patch")
    for operation in patch:
        if not isinstance(operation, dict):
            what = f"json: cannot unmarshal {go_type(operation)} into Go value of type jsonpatch.Operation"
            raise BadRequest(f"error decoding patch: {what}")
    if len(patch) > MAX_OPERATIONS:
        raise RequestEntityTooLarge(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(patch)}"
        )
    document = _Document(copy_tree(tree))
    for i, operation in enumerate(patch):
        try:
            document.do(operation)
        except _Failed as error:
            cause = {"reason": "FieldValueInvalid", "message": str(error), "field": f"patch[{i}]"}
            raise Invalid(REJECTED, {"causes": [cause]}) from error
    return document.root


def _parse(path: Any) -> list[str]:
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise _Failed(f"Unable to parse path: {path}")
    return [t.replace("~1", "/").replace("~0", "~") for t in path.split("/")[1:]]


class _Document:
    def __init__(self, root: Any) -> None:
        self.root, self.copied = root, 0

    def do(self, operation: Tree) -> None:
        name = operation.get("op")
        if name not in OPERATIONS:
            raise _Failed(f"Unexpected kind: {name}")
        if "path" not in operation:
            raise _Failed("missing path")
        path = _parse(operation["path"])
        if name in ("add", "replace", "test"):
            if "value" not in operation and name != "test":
                raise _Failed(f"{name} operation needs a value: missing value")
            value = copy_tree(operation.get("value"))
            if name == "test":
                self.test(path, value)
            elif name == "add":
                self.add(path, value)
            else:
                self.replace(path, value)
        elif name == "remove":
            self.remove(path)
        else:
            source = _parse(operation.get("from"))
            value = self.get(source)
            if name == "move":
                if path[: len(source)] == source and len(path) > len(source):
                    raise _Failed("move operation cannot move a value into itself")
                self.remove(source)
            else:
                encoded = encode_json(value)
                self.copied += len(encoded)
                if self.copied > MAX_COPIED:
                    raise _Failed(
                        f"Unable to complete the copy, the accumulated size increase of copy is {self.copied}"
                    )
                value = copy_tree(value)
            self.add(path, value)

    def get(self, path: list[str]) -> Any:
        here = self.root
        for token in path:
            if isinstance(here, dict):
                if token not in here:
                    raise _Failed(f"doc is missing path: {'/'.join(['', *path])}")
                here = here[token]
            elif isinstance(here, list):
                here = here[_index(token, len(here))]
            else:
                raise _Failed(f"doc is missing path: {'/'.join(['', *path])}")
        return here

    def test(self, path: list[str], value: Any) -> None:
        try:
            current = self.get(path)
        except _Failed:
            # An absent value is as good as null.
            if value is None:
                return
            raise
        if not same(current, value):
            raise _Failed(f"testing value {'/'.join(['', *path])} failed: test failed")

    def add(self, path: list[str], value: Any) -> None:
        if not path:
            self.root = value
            return
        parent = self.get(path[:-1])
        if isinstance(parent, dict):
            parent[path[-1]] = value
        elif isinstance(parent, list):
            parent.insert(len(parent) if path[-1] == "-" else _index(path[-1], len(parent) + 1), value)
        else:
            raise _Failed(f"doc is missing path: {'/'.join(['', *path])}")

    def replace(self, path: list[str], value: Any) -> None:
        if not path:
            self.root = value
            return
        self.get(path)
        parent = self.get(path[:-1])
        if isinstance(parent, dict):
            parent[path[-1]] = value
        else:
            parent[_index(path[-1], len(parent))] = value

    def remove(self, path: list[str]) -> None:
        if not path:
            raise _Failed("cannot remove the whole document")
        self.get(path)
        parent = self.get(path[:-1])
        if isinstance(parent, dict):
            del parent[path[-1]]
        else:
            del parent[_index(path[-1], len(parent))]


def _index(token: str, length: int) -> int:
    """An array index below ``length``; negative ones count from the end, as upstream's library allows."""
    digits = token.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or (len(digits) > 1 and digits[0] == "0") or len(digits) > 9:
        raise _Failed(f"Unable to access invalid index: {token}")
    index = int(token)
    if not -length <= index < length:
        raise _Failed(f"Unable to access invalid index: {index}: invalid index referenced")
    return index + length if index < 0 else index
