"""Applying manifests as an experiment does: what is there is patched, what is not is created."""

from __future__ import annotations

from typing import Any

from navarch.api import kinds, serialization
from navarch.api.errors import AlreadyExists
from navarch.api.kinds import Kind
from navarch.client.client import Client


async def apply(client: Client, text: str, namespace: str = "default") -> None:
    """Creates every object of a YAML text, or patches the one that exists with what the text says."""
    for tree in serialization.decode_yaml(text):
        kind = kind_of(tree)
        resource = client.tree(kind)
        meta = tree["metadata"]
        where = (meta.get("namespace") or namespace) if kind.namespaced else None
        try:
            await resource.create(tree, where)
        except AlreadyExists:
            await resource.patch(meta["name"], where, tree, "strategic")


def kind_of(tree: dict[str, Any]) -> Kind:
    """Raises ValueError for a kind that navarch does not know."""
    group, version = kinds.group_version(tree.get("apiVersion", ""))
    try:
        return kinds.BY_GVK[group, version, tree["kind"]]
    except KeyError:
        raise ValueError(f"no kind {tree.get('kind')} in {tree.get('apiVersion')}") from None
