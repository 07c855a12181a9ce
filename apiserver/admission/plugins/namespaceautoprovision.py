"""NamespaceAutoProvision: makes the namespace of a request if it does not exist."""

from __future__ import annotations

from apiserver.admission.plugins.plugin import NamespacedPlugin
from apiserver.request import Attributes
from navarch.api.errors import AlreadyExists


class NamespaceAutoProvision(NamespacedPlugin):
    """The first object of a namespace makes it."""

    name = "NamespaceAutoProvision"

    async def admit(self, attributes: Attributes) -> None:
        if attributes.dry_run or await self._there(attributes.namespace):
            return
        from apiserver.request import WriteOptions

        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": attributes.namespace}}
        try:
            await self.server.resource("", "namespaces").create(self.server.context(), "", made, WriteOptions())
        except AlreadyExists:
            return
        await self.server.cache.current()
