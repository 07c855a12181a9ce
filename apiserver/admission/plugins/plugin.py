"""Base classes of admission plugins on pods and on namespaced objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apiserver.admission.chain import CREATE, BasePlugin
from apiserver.request import Attributes
from navarch.api.errors import resource_forbidden
from navarch.api.kinds import Kind

if TYPE_CHECKING:
    from apiserver.server import APIServer

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
    def __init__(self, server: APIServer) -> None:
        self.server = server

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation == CREATE and kind.namespaced

    async def _there(self, namespace: str) -> bool:
        cache = self.server.cache
        if cache.get(NAMESPACES, None, namespace) is None:
            await cache.current()
        return cache.get(NAMESPACES, None, namespace) is not None
