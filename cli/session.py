"""One command's connection to the cluster: client, namespace, and what kinds the server knows."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli.errors import CommandError, refused, warn
from navarch.api.errors import StatusError
from navarch.api.kinds import Kind
from navarch.client import kubeconfig
from navarch.client.client import Client, ResourceClient
from navarch.client.transport import JSON, Response, TransportError, connect

if TYPE_CHECKING:
    from cli.target import Target
    from navarch.world import World

Tree = dict[str, Any]

WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
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


class Resources:
    """All kinds that the server serves, in the order in which it lists them."""

    def __init__(self, listed: list[Resource]) -> None:
        self.listed = listed

    def find(self, word: str) -> Resource:
        """By plural, singular or short name, or kind, with or without ``.group`` or ``.version.group``."""
        text = word.lower()
        name, _, rest = text.partition(".")
        for resource in self.listed:
            kind = resource.kind
            if name in _names(kind) and rest in ("", kind.group, f"{kind.version}.{kind.group}", f"{kind.version}."):
                return resource
        for resource in self.listed:  # foo.exam is short for foo.example.com
            if rest and name in _names(resource.kind) and resource.kind.group.startswith(rest):
                return resource
        raise CommandError(f'the server doesn\'t have a resource type "{word}"')

    def category(self, word: str) -> list[Resource]:
        """The resources of a category such as ``all``; empty if there is none of that name."""
        by_name: dict[str, Resource] = {}
        for resource in self.listed:
            if word in resource.kind.categories:
                by_name.setdefault(resource.full, resource)
        return list(by_name.values())

    def of(self, api_version: str, kind: str) -> Resource | None:
        """The resource of an object that says what it is."""
        for resource in self.listed:
            if resource.kind.kind == kind and resource.kind.api_version == api_version:
                return resource
        return None


def _names(kind: Kind) -> tuple[str, ...]:
    return (kind.resource, kind.singular_name, kind.kind.lower(), *kind.short_names)


class PoliteClient(Client):
    """A client that shows people what the server warns of, once, and says in words that it does not listen."""

    shown_warnings: frozenset[str] = frozenset()
    server = ""

    async def request(self, *arguments: Any, **options: Any) -> Response:
        try:
            response = await super().request(*arguments, **options)
        except TransportError as error:
            raise refused(error, self.server) or error from None
        for text in WARNING.findall(response.headers.get("warning", "")):
            shown = re.sub(r"\\(.)", r"\1", text)
            if shown not in self.shown_warnings:
                self.shown_warnings |= {shown}
                warn(shown)
        return response


class Session:
    """Open it with ``async with``. ``namespace`` is the one given or, if none was, the context's."""

    def __init__(self, where: Target, world: World) -> None:
        self.where, self.world = where, world
        self.config = kubeconfig.load(where.kubeconfig_path(), where.context or None)
        self.namespace = where.namespace or self.config.namespace
        self.client = PoliteClient(connect(self.config), world, "navarch")
        self.client.server = self.config.server
        self._resources: Resources | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    def of(self, resource: Resource) -> ResourceClient[Tree]:
        """The verbs of a resource, on plain trees."""
        return self.client.tree(resource.kind)

    def scope(self, resource: Resource, all_namespaces: bool = False) -> str | None:
        """The namespace for a request about this resource, None if it has none or all are meant."""
        return self.namespace if resource.kind.namespaced and not all_namespaces else None

    async def resources(self, *, again: bool = False) -> Resources:
        """The resources that the server serves, asked once (``again``: asked anew, after a new kind was defined)."""
        async with self._lock:
            if self._resources is None or again:
                async with self.world.task_group() as group:
                    core = group.start(self.client.get_json("/api", accept=AGGREGATED))
                    named = group.start(self.client.get_json("/apis", accept=AGGREGATED))
                listed: list[Resource] = []
                for document in (core.result(), named.result()):
                    if document.get("kind") == "APIGroupDiscoveryList":
                        listed += _aggregated(document)
                    else:
                        listed += await self._legacy(document)
                self._resources = Resources(listed)
            return self._resources

    async def resource(self, word: str) -> Resource:
        """The resource that a person means with ``word``. Raises CommandError."""
        return (await self.resources()).find(word)

    async def resource_of(self, api_version: str, kind: str) -> Resource | None:
        """The resource of an object's apiVersion and kind; asks the server again before it says None."""
        resource = (await self.resources()).of(api_version, kind)
        return resource or (await self.resources(again=True)).of(api_version, kind)

    async def _legacy(self, document: Tree) -> list[Resource]:
        """Servers without aggregated discovery: one request a group and version."""
        if document.get("kind") == "APIVersions":
            versions = [("", v) for v in document.get("versions") or ()]
        else:
            versions = [
                (g["name"], v["version"]) for g in document.get("groups") or () for v in g.get("versions") or ()
            ]
        out: list[Resource] = []
        for group, version in versions:
            path = f"/apis/{group}/{version}" if group else f"/api/{version}"
            try:
                discovery = await self.client.get_json(path)
            except StatusError:
                continue  # an aggregated API whose server is away must not stop the rest
            subresources: dict[str, list[str]] = {}
            for each in discovery.get("resources") or ():
                name, slash, sub = each["name"].partition("/")
                if slash:
                    subresources.setdefault(name, []).append(sub)
            for each in discovery.get("resources") or ():
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
