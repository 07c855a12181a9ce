"""One command's connection to the cluster: client, namespace, and what kinds the server knows."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from cli.errors import CommandError, refused, warn
from navarch.api.kinds import Kind
from navarch.client import kubeconfig
from navarch.client.client import Client, ResourceClient
from navarch.client.discovery import Resource as Resource
from navarch.client.discovery import discover
from navarch.client.transport import Response, TransportError, connect

if TYPE_CHECKING:
    from cli.target import Target
    from navarch.world import World

Tree = dict[str, Any]

WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


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
                self._resources = Resources(await discover(self.client))
            return self._resources

    async def resource(self, word: str) -> Resource:
        """The resource that a person means with ``word``. Raises CommandError."""
        return (await self.resources()).find(word)

    async def resource_of(self, api_version: str, kind: str) -> Resource | None:
        """The resource of an object's apiVersion and kind; asks the server again before it says None."""
        resource = (await self.resources()).of(api_version, kind)
        return resource or (await self.resources(again=True)).of(api_version, kind)
