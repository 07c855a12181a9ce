"""The rules that ConfigMaps and Secrets share: keys, sizes, base64, immutability."""

from __future__ import annotations

import base64
import binascii

from apiserver.registry.strategy import Tree
from navarch.api import names
from navarch.api.errors import Cause, forbidden, invalid

MAX_SIZE = 1024 * 1024


def key_causes(field: str, key: str) -> list[Cause]:
    return [invalid(f"{field}[{key}]", key, m) for m in names.config_key(key)]


def decoded(value: str) -> bytes | None:
    try:
        return base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return None


def base64_cause(field: str, key: str, value: str) -> Cause:
    return invalid(f"{field}[{key}]", value, "illegal base64 data")


def immutable_causes(obj: Tree, old: Tree, fields: tuple[str, ...]) -> list[Cause]:
    if not old.get("immutable"):
        return []
    out = []
    if not obj.get("immutable"):
        out.append(forbidden("immutable", "field is immutable when `immutable` is set"))
    for field in fields:
        if (obj.get(field) or {}) != (old.get(field) or {}):
            out.append(forbidden(field, "field is immutable when `immutable` is set"))
    return out
