"""Kinds that the API server serves, asked of itself; objects of any kind reduced to what controllers need of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from navarch.api.kinds import Kind
from navarch.api.types.base import Struct
from navarch.api.types.meta_v1 import OwnerReference
from navarch.client.client import Client

ACCEPT = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


class PartialMetadata(Struct, kw_only=True, omit_defaults=True):
    """The part of metadata that says what an object is, whom it belongs to and whether it is going."""

    name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = msgspec.field(default=None, name="resourceVersion")
    deletion_timestamp: str | None = msgspec.field(default=None, name="deletionTimestamp")
    finalizers: list[str] | None = None
    owner_references: list[OwnerReference] | None = msgspec.field(default=None, name="ownerReferences")


class PartialObject(Struct, kw_only=True, omit_defaults=True):
    """An object of any kind, without its content: cheap to hold by the ten thousand."""

    api_version: str | None = msgspec.field(default=None, name="apiVersion")
    kind: str | None = None
    metadata: PartialMetadata = msgspec.field(default_factory=PartialMetadata)


@dataclass(frozen=True)
class Resource:
    """A resource as served, in its group's preferred version that has it."""

    kind: Kind
    verbs: frozenset[str]

    @property
    def name(self) -> tuple[str, str]:
        return self.kind.group, self.kind.resource

    def can(self, *verbs: str) -> bool:
        return all(v in self.verbs for v in verbs)


async def served(client: Client) -> list[Resource]:
    """All resources (no subresources), sorted by group and name. Raises StatusError, TransportError."""
    resources: dict[tuple[str, str], Resource] = {}
    for path in ("/api", "/apis"):
        tree = await client.get_json(path, accept=ACCEPT)
        listed = _aggregated(tree) if tree.get("kind") == "APIGroupDiscoveryList" else await _legacy(client, path, tree)
        for resource in listed:
            resources.setdefault(resource.name, resource)
    return [resources[name] for name in sorted(resources)]


def _aggregated(tree: Mapping[str, Any]) -> Iterable[Resource]:
    for group in tree.get("items") or ():
        name = (group.get("metadata") or {}).get("name") or ""
        for version in group.get("versions") or ():
            for entry in version.get("resources") or ():
                kind = (entry.get("responseKind") or {}).get("kind")
                if not kind:
                    continue
                entry_kind = Kind(name, version["version"], kind, entry["resource"], entry.get("scope") == "Namespaced")
                yield Resource(entry_kind, frozenset(entry.get("verbs") or ()))


async def _legacy(client: Client, path: str, tree: Mapping[str, Any]) -> list[Resource]:
    versions: list[tuple[str, str]] = [("", v) for v in tree.get("versions") or ()]
    for group in tree.get("groups") or ():
        listed = [group.get("preferredVersion") or {}, *(group.get("versions") or ())]
        names = dict.fromkeys(v["version"] for v in listed if v)
        versions += [(group["name"], v) for v in names]
    out = []
    for group_name, version in versions:
        page = await client.get_json(f"{path}/{group_name}/{version}" if group_name else f"{path}/{version}")
        for entry in page.get("resources") or ():
            if "/" not in entry["name"]:
                kind = Kind(group_name, version, entry["kind"], entry["name"], bool(entry.get("namespaced")))
                out.append(Resource(kind, frozenset(entry.get("verbs") or ())))
    return out
