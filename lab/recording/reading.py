"""Reading of any cluster that speaks Kubernetes: discovery, list and watch, and nothing else.

The values of Secrets are never asked for: their lists and watches are of metadata only. Annotations, in which ``kubectl apply``
keeps a copy of the values, are dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from navarch.api import kinds
from navarch.api.kinds import Kind
from navarch.client.client import Client, ResourceClient
from navarch.client.codec import TreeCodec
from navarch.client.discovery import Resource
from navarch.client.transport import JSON, Query, Response, Stream

Tree = dict[str, Any]

METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
SECRETS = ("", "secrets")
_OURS = {(k.group, k.resource): k for k in kinds.KINDS}
_TWICE = {("events.k8s.io", "events")}  # stored once, served in two groups


class MetadataClient(Client):
    """A client that asks for nothing but the metadata of objects."""

    async def request(self, method: str, path: str, **options: Any) -> Response:
        return await super().request(method, path, **options | {"accept": METADATA.format("List")})

    def stream(
        self, method: str, path: str, *, query: Query = (), accept: str = JSON
    ) -> AbstractAsyncContextManager[Stream]:
        return super().stream(method, path, query=query, accept=METADATA.format(""))


def is_secret(kind: Kind) -> bool:
    return (kind.group, kind.resource) == SECRETS


def verbs(client: Client, kind: Kind) -> ResourceClient[Tree]:
    """The verbs of a kind on plain trees; of Secrets, on their metadata."""
    if is_secret(kind):
        client = MetadataClient(client.transport, client.world, client.user_agent)
    return ResourceClient(client, kind, TreeCodec(kind))


def cleaned(kind: Kind, tree: Tree) -> Tree:
    """An object without managedFields, and a Secret without anything but names and labels."""
    meta = {k: v for k, v in tree["metadata"].items() if k != "managedFields"}
    typed = {"apiVersion": kind.api_version, "kind": kind.kind}
    if is_secret(kind):
        meta.pop("annotations", None)
        return {**typed, "metadata": meta}
    return {**tree, **typed, "metadata": meta}


def chosen(listed: Sequence[Resource], only: Collection[str] = (), without: Collection[str] = ()) -> list[Resource]:
    """One version of every resource that can be listed and watched: the one that navarch knows, else the preferred one.
    ``only``, ``without``: resources such as ``pods`` or ``deployments.apps``; empty: all, none."""
    out: dict[tuple[str, str], Resource] = {}
    for resource in listed:
        kind = resource.kind
        key = kind.group, kind.resource
        names = {kind.resource, resource.full}
        if key in _TWICE or not {"list", "watch"} <= {*resource.verbs}:
            continue
        if names & {*without} or (only and not names & {*only}):
            continue
        if key not in out or (kind.group, kind.version, kind.kind) in kinds.BY_GVK:
            out.setdefault(key, resource)
            if (out[key].kind.group, out[key].kind.version, out[key].kind.kind) not in kinds.BY_GVK:
                out[key] = resource
    return list(out.values())


def key_of(kind: Kind, tree: Tree) -> str:
    """The key of an object in a recording, as navarch's store has it."""
    group = "" if (kind.group, kind.resource) in _OURS or not kind.group else f"{kind.group}/"
    meta = tree["metadata"]
    where = f"{meta['namespace']}/" if meta.get("namespace") else ""
    return f"/registry/{group}{kind.resource}/{where}{meta['name']}"


def revision_of(tree: Tree) -> int:
    """A resourceVersion as a number; 0 if it is none (Kubernetes' own are numbers, an aggregated server's need not be)."""
    text = str(tree["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdigit() else 0
