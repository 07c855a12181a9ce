"""NamespaceLifecycle: nothing is made in a namespace that does not exist or is going away."""

from __future__ import annotations

from apiserver.admission.chain import BasePlugin
from apiserver.cache.cache import Cache
from apiserver.request import CREATE, Attributes
from navarch.api.errors import resource_forbidden, resource_not_found
from navarch.api.kinds import Kind

PREFIX = "/registry/namespaces/"
# What may be asked about in a namespace that is not there: access reviews store nothing.
REVIEWS = ("localsubjectaccessreviews",)


class NamespaceLifecycle(BasePlugin):
    name = "NamespaceLifecycle"

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation == CREATE and kind.namespaced and kind.resource not in REVIEWS

    async def admit(self, attributes: Attributes) -> None:
        namespace, kind = attributes.namespace, attributes.kind
        entry = self.cache.get(PREFIX, None, namespace)
        if entry is None:
            await self.cache.current()  # it may have been made a moment ago, by another server
            entry = self.cache.get(PREFIX, None, namespace)
        if entry is None:
            raise resource_not_found("namespaces", "", namespace)
        if entry.fields.get("status.phase") != "Terminating":
            return
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        error = resource_forbidden(kind.resource, kind.group, attributes.name, why)
        since = entry.tree()["metadata"].get("deletionTimestamp", "")
        text = f"namespace {namespace} is being terminated" + (f" since {since}" if since else "")
        error.details["causes"] = [{"reason": "NamespaceTerminating", "message": text, "field": "metadata.namespace"}]
        raise error
