"""ConfigMaps: keys and values for pods, at most 1 MiB, immutable if they say so."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, kind, name_cell
from apiserver.kinds.core.keyvalues import MAX_SIZE, base64_cause, decoded, immutable_causes, key_causes
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from navarch.api.errors import Cause, invalid, too_long


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
            raw = decoded(value)
            if raw is None:
                out.append(base64_cause("binaryData", key, value))
            size += len(raw or b"")
        if size > MAX_SIZE:
            out.append(too_long("[]", MAX_SIZE))
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return immutable_causes(obj, old, ("data", "binaryData")) + self.validate(obj)

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), age_cell(obj, now)]
