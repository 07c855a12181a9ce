"""Discovery: the kinds that a server serves, from its aggregated document or, on older servers, one document a version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from navarch.api.errors import StatusError
from navarch.api.kinds import Kind
from navarch.client.client import Client
from navarch.client.transport import JSON

Tree = dict[str, Any]

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList," + JSON


@dataclass(frozen=True)
class Resource:
    """A kind that the server serves: its names, and what can be done with it."""

    kind: Kind
    verbs: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()

    @property
    def full(self) -> str:
        """``pods``, ``deployments.apps``."""
        return f"{self.kind.resource}.{self.kind.group}" if self.kind.group else self.kind.resource

    @property
    def typed(self) -> str:
        """How output names the type: ``pod``, ``deployment.apps``."""
        kind = self.kind.kind.lower()
        return f"{kind}.{self.kind.group}" if self.kind.group else kind


async def discover(client: Client) -> list[Resource]:
    """All kinds, in every version, in the order in which the server lists them: the preferred version of a group first.
    Raises StatusError, TransportError."""
    try:
        async with client.world.task_group() as group:
            core = group.start(client.get_json("/api", accept=AGGREGATED))
            named = group.start(client.get_json("/apis", accept=AGGREGATED))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None  # callers catch plain errors; two at once fail for one reason
    listed: list[Resource] = []
    for document in (core.result(), named.result()):
        if document.get("kind") == "APIGroupDiscoveryList":
            listed += _aggregated(document)
        else:
            listed += await _legacy(client, document)
    return listed


async def _legacy(client: Client, document: Tree) -> list[Resource]:
    """Servers without aggregated discovery: one request a group and version."""
    if document.get("kind") == "APIVersions":
        versions = [("", v) for v in document.get("versions") or ()]
    else:
        versions = [(g["name"], v["version"]) for g in document.get("groups") or () for v in g.get("versions") or ()]
    out: list[Resource] = []
    for group, version in versions:
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        try:
            document = await client.get_json(path)
        except StatusError:
            continue  # an aggregated API whose server is away must not stop the rest
        subresources: dict[str, list[str]] = {}
        for each in document.get("resources") or ():
            name, slash, sub = each["name"].partition("/")
            if slash:
                subresources.setdefault(name, []).append(sub)
        for each in document.get("resources") or ():
            if "/" not in each["name"]:
                out.append(_resource(group, version, each, tuple(subresources.get(each["name"], ()))))
    return out


def _resource(group: str, version: str, each: Tree, subresources: tuple[str, ...]) -> Resource:
    kind = Kind(
        group,
        version,
        each["kind"],
        each["name"],
        each.get("namespaced", False),
        tuple(each.get("shortNames") or ()),
        tuple(each.get("categories") or ()),
        each.get("singularName") or each["kind"].lower(),
    )
    return Resource(kind, tuple(each.get("verbs") or ()), subresources)


def _aggregated(document: Tree) -> list[Resource]:
    out: list[Resource] = []
    for group in document.get("items") or ():
        name = (group.get("metadata") or {}).get("name", "")
        for version in group.get("versions") or ():
            for each in version.get("resources") or ():
                flat = {
                    "name": each["resource"],
                    "kind": (each.get("responseKind") or {}).get("kind", ""),
                    "namespaced": each.get("scope") == "Namespaced",
                    "shortNames": each.get("shortNames"),
                    "categories": each.get("categories"),
                    "singularName": each.get("singularResource"),
                    "verbs": each.get("verbs"),
                }
                subresources = tuple(s["subresource"] for s in each.get("subresources") or ())
                out.append(_resource(name, version["version"], flat, subresources))
    return out
