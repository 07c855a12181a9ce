"""Secrets: keys and values that few may read; some types require keys."""

from __future__ import annotations

import base64
import json
from typing import Any

from apiserver.kinds.cells import age_cell, kind, meta_of, name_cell
from apiserver.kinds.core.keyvalues import MAX_SIZE, base64_cause, decoded, immutable_causes, key_causes
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import wellknown
from navarch.api.errors import Cause, invalid, required, too_long

SERVICE_ACCOUNT_TOKEN = wellknown.SERVICE_ACCOUNT_TOKEN


# Keys that a Secret of a type must have.
REQUIRED_KEYS = {
    wellknown.DOCKER_CONFIG: (".dockercfg",),
    wellknown.DOCKER_CONFIG_JSON: (".dockerconfigjson",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


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
            values[key] = raw = decoded(value)
            if raw is None:
                out.append(base64_cause("data", key, value))
            size += len(raw or b"")
        if size > MAX_SIZE:
            out.append(too_long("data", MAX_SIZE))
        if type_ == SERVICE_ACCOUNT_TOKEN:
            note = wellknown.SERVICE_ACCOUNT_NAME
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
        return out + immutable_causes(obj, old, ("data",)) + self.validate(obj)

    def fields(self, obj: Tree) -> dict[str, str]:
        return {"type": obj.get("type", "")}

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), obj.get("type", ""), len(obj.get("data") or {}), age_cell(obj, now)]
