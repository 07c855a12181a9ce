"""NamespaceAutoProvision: makes the namespace of a request if it does not exist."""

from __future__ import annotations

from apiserver.admission.plugins.plugin import NamespacedPlugin
from apiserver.registry.resources import Resources
from apiserver.request import Attributes, WriteOptions, own_context
from navarch.api.errors import AlreadyExists


class NamespaceAutoProvision(NamespacedPlugin):
    """The first object of a namespace makes it."""

    name = "NamespaceAutoProvision"

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources.backend.cache)
        self.resources = resources

    async def admit(self, attributes: Attributes) -> None:
        if attributes.dry_run or await self._there(attributes.namespace):
            return
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": attributes.namespace}}
        try:
            await self.resources["", "namespaces"].create(own_context(attributes.context.world), "", namespace, WriteOptions())
        except AlreadyExists:
            return
        await self.cache.current()
