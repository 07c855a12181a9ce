"""Objects that the server makes on its own account, unless they are there."""

from __future__ import annotations

from typing import Any

from apiserver.registry.resource import Resource
from apiserver.request import WriteOptions, own_context
from navarch.api.errors import AlreadyExists

Tree = dict[str, Any]
MANAGER = WriteOptions(field_manager="kube-apiserver")


async def ensure(resource: Resource, obj: Tree) -> bool:
    """Creates an object unless it exists; whether it was created."""
    metadata = obj["metadata"]
    if resource.cached(metadata.get("namespace", ""), metadata["name"]) is not None:
        return False
    return await create(resource, obj)


async def create(resource: Resource, obj: Tree) -> bool:
    """Creates an object; False if it exists."""
    try:
        await resource.create(own_context(resource.world), obj["metadata"].get("namespace", ""), copy(obj), MANAGER)
    except AlreadyExists:
        return False
    return True


def copy(value: Any) -> Any:
    """A deep copy of JSON: default objects come from tables that are shared."""
    if isinstance(value, dict):
        return {k: copy(v) for k, v in value.items()}
    return [copy(v) for v in value] if isinstance(value, list) else value
