"""namespaces/finalize: the namespace controller takes its finalizer away once the namespace is empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from apiserver.kinds.cells import kind
from apiserver.kinds.core.pods.binding import is_dry_run
from apiserver.registry.resources import Resources
from apiserver.registry.subresources import Endpoint, EndpointKey
from apiserver.request import Context, WriteOptions
from navarch.api.errors import BadRequest

Tree = dict[str, Any]


@dataclass(frozen=True)
class Finalizer:
    """Serves namespaces/finalize."""

    resources: Resources

    async def finalize(
        self, context: Context, namespace: str, name: str, body: Tree, query: Mapping[str, str]
    ) -> Tree:
        """Replaces spec.finalizers; a namespace that is being deleted and has none left is gone. Returns the Namespace."""
        name = name or namespace
        metadata = body.get("metadata") or {}
        if metadata.get("name") != name:
            raise BadRequest(
                f"the name of the object ({metadata.get('name', '')}) does not match the name on the URL ({name})"
            )
        finalizers = (body.get("spec") or {}).get("finalizers") or []
        namespaces = self.resources["", "namespaces"]

        def change(old: Tree) -> Tree:
            namespaces.check_preconditions(old, metadata.get("uid"), metadata.get("resourceVersion"))
            spec = old.setdefault("spec", {})
            if finalizers:
                spec["finalizers"] = list(finalizers)
            else:
                spec.pop("finalizers", None)
            return old

        options = WriteOptions(dry_run=is_dry_run(query), field_manager=query.get("fieldManager", ""))
        result = await namespaces.change(context, "", name, change, options, subresource="finalize")
        tree: Tree = orjson.loads(result.data)
        return tree


def namespace_endpoints(resources: Resources) -> dict[EndpointKey, Endpoint]:
    finalizer = Finalizer(resources)
    return {EndpointKey("", "namespaces", "finalize", "update"): Endpoint(finalizer.finalize, kind("v1", "Namespace"), 200)}
