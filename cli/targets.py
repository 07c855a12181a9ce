"""Which objects a command line means: ``pods``, ``pods,svc``, ``pod web-1 web-2``, ``deploy/web svc/web``, ``-f FILE``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cli import manifests
from cli.errors import CommandError, Failures, with_source
from cli.session import Resource, Session, Tree
from navarch.api.errors import StatusError

PAGE = 500
NOTHING_NAMED = """You must provide one or more resources by argument or filename.
Example resource specifications include:
   '-f rsrc.yaml'
   '--filename=rsrc.json'
   '<resource> <name>'
   '<resource>'"""
FILES_AND_NAMES = "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well"
SLASH_MIXED = (
    "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form "
    "(e.g. 'navarch get resource/<resource_name>' instead of 'navarch get resource resource/<resource_name>'"
)


class Target(NamedTuple):
    """A resource, and the name of one object of it or None for all."""

    resource: Resource
    name: str | None


class LiveObject(NamedTuple):
    """One object that a command is about. ``source`` is the file that named it, if one did."""

    resource: Resource
    tree: Tree
    source: str = ""

    @property
    def name(self) -> str:
        return str(self.tree["metadata"].get("name", ""))

    @property
    def namespace(self) -> str | None:
        namespace: str | None = self.tree["metadata"].get("namespace")
        return namespace

    @property
    def typed_name(self) -> str:
        """``pod/web``, ``deployment.apps/web``."""
        return f"{self.resource.typed}/{self.name}"


@dataclass
class Query:
    """The part of a command line that chooses objects."""

    arguments: Sequence[str] = ()
    filenames: Sequence[str] = ()
    recursive: bool = False
    selector: str = ""
    field_selector: str = ""
    all_namespaces: bool = False
    every: bool = False  # --all
    ignore_not_found: bool = False
    default_type: str = ""  # for a bare NAME
    verb: str = "retrieving"  # for messages about files
    failures: Failures = field(default_factory=Failures)


async def targets(session: Session, arguments: Sequence[str], default_type: str = "") -> list[Target]:
    """Takes TYPE and NAME arguments apart. Raises CommandError."""
    slashed = ["/" in argument for argument in arguments]
    if any(slashed):
        if not all(slashed) and not default_type:
            raise CommandError(SLASH_MIXED)
        out = []
        for argument in arguments:
            word, slash, name = argument.partition("/")
            if not slash:
                word, name = default_type, argument
            if not word or not name or "/" in name:
                raise CommandError(
                    f'arguments in resource/name form must have a single resource and name: "{argument}"'
                )
            out += [Target(r, name) for r in await _resources(session, word)]
        return out
    if default_type and arguments:
        return [Target(await session.resource(default_type), name) for name in arguments]
    if not arguments:
        return []
    resources = await _resources(session, arguments[0])
    if len(arguments) == 1:
        return [Target(resource, None) for resource in resources]
    return [Target(resource, name) for resource in resources for name in arguments[1:]]


async def _resources(session: Session, words: str) -> list[Resource]:
    discovered = await session.resources()
    out: list[Resource] = []
    for word in words.split(","):
        out += discovered.category(word) or [discovered.find(word)]
    return out


async def find(session: Session, query: Query) -> list[LiveObject]:
    """The objects themselves, as the server has them. What fails is collected in ``query.failures``."""
    return [live async for live in _find(session, query)]


async def _find(session: Session, query: Query) -> AsyncIterator[LiveObject]:
    if query.filenames:
        if query.arguments:
            raise CommandError(FILES_AND_NAMES)
        for manifest in manifests.read(query.filenames, query.recursive):
            with query.failures.collect():
                resource = await resource_of(session, manifest)
                namespace = namespace_of(session, resource, manifest)
                try:
                    tree = await session.of(resource).get(manifest.name, namespace)
                except StatusError as error:
                    if error.http_code == 404 and query.ignore_not_found:
                        continue
                    raise with_source(error, query.verb, manifest.source) from None
                yield LiveObject(resource, tree, manifest.source)
        return
    chosen = await targets(session, query.arguments, query.default_type)
    selecting = bool(query.selector or query.field_selector or query.every)
    if not chosen:
        raise CommandError(NOTHING_NAMED)
    for target in chosen:
        with query.failures.collect():
            if target.name is None:
                async for tree in items(session, target.resource, query):
                    yield LiveObject(target.resource, tree)
                continue
            if selecting:
                raise CommandError("name cannot be provided when a selector is specified")
            try:
                tree = await session.of(target.resource).get(target.name, session.scope(target.resource))
            except StatusError as error:
                if error.http_code == 404 and query.ignore_not_found:
                    continue
                raise
            yield LiveObject(target.resource, tree)


async def items(session: Session, resource: Resource, query: Query) -> AsyncIterator[Tree]:
    """All objects of a resource that the selectors of a query choose, page by page."""
    client, token = session.of(resource), None
    while True:
        page = await client.list(
            session.scope(resource, query.all_namespaces),
            label_selector=query.selector or None,
            field_selector=query.field_selector or None,
            limit=PAGE,
            continue_=token,
        )
        for item in page.items:
            yield item
        if not page.continue_:
            return
        token = page.continue_


async def resource_of(session: Session, manifest: manifests.Manifest) -> Resource:
    """The resource of an object in a file. Raises CommandError if the server has no such kind."""
    api_version, kind = str(manifest.tree["apiVersion"]), str(manifest.tree["kind"])
    resource = await session.resource_of(api_version, kind)
    if resource is None:
        raise CommandError(
            f'resource mapping not found for name: "{manifest.name}" namespace: "{manifest.metadata.get("namespace", "")}"'
            f' from "{manifest.source}": no matches for kind "{kind}" in version "{api_version}"\n'
            "ensure CRDs are installed first"
        )
    return resource


def namespace_of(session: Session, resource: Resource, manifest: manifests.Manifest) -> str | None:
    """Where an object in a file belongs. Raises CommandError if that contradicts ``-n``."""
    if not resource.kind.namespaced:
        return None
    own = manifest.metadata.get("namespace") or ""
    if own and session.where.namespace and own != session.where.namespace:
        raise CommandError(
            f'the namespace from the provided object "{own}" does not match the namespace "{session.where.namespace}". '
            f"You must pass '--namespace={own}' to perform this operation."
        )
    return own or session.namespace
