"""Finds the default class among those of a kind: the newest one that carries the mark."""

from __future__ import annotations

from typing import Any

from apiserver.admission.chain import BasePlugin
from apiserver.cache.cache import Cache
from apiserver.request import CREATE, Attributes
from navarch.api.kinds import Kind

Tree = dict[str, Any]


class DefaultClass(BasePlugin):
    group = ""
    resource = ""
    prefix = ""
    marks: tuple[str, ...] = ()
    field = ""
    annotation = ""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation == CREATE and (kind.group, kind.resource) == (self.group, self.resource)

    async def admit(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if obj is None or attributes.subresource:
            return
        spec, notes = obj.setdefault("spec", {}), obj["metadata"].get("annotations") or {}
        if spec.get(self.field) is not None or self.annotation in notes:
            return
        classes = [entry.tree()["metadata"] for entry in self.cache.list(self.prefix).entries]
        marked = [m for m in classes if any((m.get("annotations") or {}).get(mark) == "true" for mark in self.marks)]
        if marked:
            # Of several the newest, then the first by name.
            newest = max(m.get("creationTimestamp") or "" for m in marked)
            spec[self.field] = min(m["name"] for m in marked if (m.get("creationTimestamp") or "") == newest)
