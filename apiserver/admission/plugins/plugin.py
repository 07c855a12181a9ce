"""Base classes of admission plugins on pods and on namespaced objects."""

from __future__ import annotations

from typing import Any

from apiserver.admission.chain import BasePlugin
from apiserver.cache.cache import Cache
from apiserver.request import CREATE, Attributes
from navarch.api.errors import resource_forbidden
from navarch.api.kinds import Kind

Tree = dict[str, Any]
NAMESPACES = "/registry/namespaces/"


def forbid(attributes: Attributes, why: str) -> Exception:
    return resource_forbidden(attributes.kind.resource, attributes.kind.group, attributes.name, why)


class PodPlugin(BasePlugin):
    operations: tuple[str, ...] = (CREATE,)

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation in self.operations and (kind.group, kind.resource) == ("", "pods")


def containers_of(spec: Tree) -> list[Tree]:
    return [c for f in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(f) or ()]


class NamespacedPlugin(BasePlugin):
    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation == CREATE and kind.namespaced

    async def _there(self, namespace: str) -> bool:
        if self.cache.get(NAMESPACES, None, namespace) is None:
            await self.cache.current()
        return self.cache.get(NAMESPACES, None, namespace) is not None
