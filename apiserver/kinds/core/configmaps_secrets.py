"""ConfigMaps and Secrets: keys and values for pods, at most 1 MiB, immutable if they say so."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from apiserver.kinds.cells import age_cell, kind, meta_of, name_cell
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.errors import Cause, forbidden, invalid, required, too_long

MAX_SIZE = 1024 * 1024
SERVICE_ACCOUNT_TOKEN = "kubernetes.io/service-account-token"
# Keys that a Secret of a type must have.
REQUIRED_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def key_causes(field: str, key: str) -> list[Cause]:
    return [invalid(f"{field}[{key}]", key, m) for m in names.config_key(key)]


def _decoded(value: str) -> bytes | None:
    try:
        return base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return None


def _base64_cause(field: str, key: str, value: str) -> Cause:
    return invalid(f"{field}[{key}]", value, "illegal base64 data")


class ConfigMapStrategy(Strategy):
    kind = kind("v1", "ConfigMap")
    generation = False
    columns = (NAME_COLUMN, Column("Data"), AGE_COLUMN)

    def validate(self, obj: Tree) -> list[Cause]:
        out: list[Cause] = []
        data, binary, size = obj.get("data") or {}, obj.get("binaryData") or {}, 0
        for key, value in sorted(data.items()):
            out += key_causes("data", key)
            if key in binary:
                out.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
            size += len(value.encode())
        for key, value in sorted(binary.items()):
            out += key_causes("binaryData", key)
            raw = _decoded(value)
            if raw is None:
                out.append(_base64_cause("binaryData", key, value))
            size += len(raw or b"")
        if size > MAX_SIZE:
            out.append(too_long("[]", MAX_SIZE))
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return _immutable(obj, old, ("data", "binaryData")) + self.validate(obj)

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), age_cell(obj, now)]


def _immutable(obj: Tree, old: Tree, fields: tuple[str, ...]) -> list[Cause]:
    if not old.get("immutable"):
        return []
    out = []
    if not obj.get("immutable"):
        out.append(forbidden("immutable", "field is immutable when `immutable` is set"))
    for field in fields:
        if (obj.get(field) or {}) != (old.get(field) or {}):
            out.append(forbidden(field, "field is immutable when `immutable` is set"))
    return out


class SecretStrategy(Strategy):
    kind = kind("v1", "Secret")
    generation = False
    selectable_fields = ("type",)
    columns = (NAME_COLUMN, Column("Type"), Column("Data"), AGE_COLUMN)

    def default(self, obj: Tree) -> None:
        if not obj.get("type"):
            obj["type"] = "Opaque"
        plain = obj.pop("stringData", None)  # write-only: merged into data, never stored
        if plain:
            data = obj.setdefault("data", {})
            for key, value in plain.items():
                data[key] = base64.b64encode(value.encode()).decode()

    def prepare_update(self, context: Context, obj: Tree, old: Tree) -> None:
        if not obj.get("type"):
            obj["type"] = old.get("type", "Opaque")

    def validate(self, obj: Tree) -> list[Cause]:
        out: list[Cause] = []
        data, type_, size = obj.get("data") or {}, obj.get("type", ""), 0
        values: dict[str, bytes | None] = {}
        for key, value in sorted(data.items()):
            out += key_causes("data", key)
            values[key] = raw = _decoded(value)
            if raw is None:
                out.append(_base64_cause("data", key, value))
            size += len(raw or b"")
        if size > MAX_SIZE:
            out.append(too_long("data", MAX_SIZE))
        if type_ == SERVICE_ACCOUNT_TOKEN:
            note = "kubernetes.io/service-account.name"
            if not (meta_of(obj).get("annotations") or {}).get(note):
                out.append(required(f"metadata.annotations[{note}]"))
        if type_ == "kubernetes.io/basic-auth" and not ("username" in data or "password" in data):
            out += [required("data[username]"), required("data[password]")]
        for key in REQUIRED_KEYS.get(type_, ()):
            if key not in data:
                out.append(required(f"data[{key}]"))
            elif key.startswith(".docker") and values.get(key) is not None:
                try:
                    json.loads(values[key] or b"")
                except ValueError as why:
                    out.append(invalid(f"data[{key}]", "<secret contents redacted>", str(why)))
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        out: list[Cause] = []
        if obj.get("type") != old.get("type"):
            out.append(invalid("type", obj.get("type"), "field is immutable"))
        return out + _immutable(obj, old, ("data",)) + self.validate(obj)

    def fields(self, obj: Tree) -> dict[str, str]:
        return {"type": obj.get("type", "")}

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), obj.get("type", ""), len(obj.get("data") or {}), age_cell(obj, now)]
