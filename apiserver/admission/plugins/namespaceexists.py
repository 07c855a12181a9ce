"""NamespaceExists: refuses requests in namespaces that do not exist."""

from __future__ import annotations

from apiserver.admission.plugins.plugin import NamespacedPlugin
from apiserver.request import Attributes
from navarch.api.errors import resource_not_found


class NamespaceExists(NamespacedPlugin):
    name = "NamespaceExists"

    async def validate(self, attributes: Attributes) -> None:
        if not await self._there(attributes.namespace):
            raise resource_not_found("namespaces", "", attributes.namespace)
