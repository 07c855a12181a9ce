"""``navarch describe``: an object in words, with what belongs to it and its events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from cli.describing import generic, nodes, pods, services, workloads
from cli.errors import CommandError
from cli.options import App, Option
from cli.session import Session, Tree
from cli.targets import LiveObject, Query, find, items, targets
from cli.verb import AllNamespaces, Filenames, Recursive, Resources, Selector, Where, verb
from navarch.api.errors import NotFound

app = App()

Describer = Callable[[Session, Tree, bool], Awaitable[str]]

DESCRIBERS: dict[str, Describer] = {
    "pods": pods.describe,
    "nodes": nodes.describe,
    "deployments.apps": workloads.deployment,
    "replicasets.apps": workloads.replica_set,
    "services": services.describe,
    "configmaps": generic.config_map,
    "secrets": generic.secret,
    "namespaces": generic.namespace,
}


@verb(app)
def describe(
    where: Where,
    resources: Resources = None,
    filename: Filenames = None,
    recursive: Recursive = False,
    selector: Selector = "",
    all_namespaces: AllNamespaces = False,
    show_events: Annotated[bool, Option("--show-events/--no-show-events", help="With events.")] = True,
) -> None:
    """Show an object in detail, with its events: navarch describe pod web-1; describe nodes."""
    query = Query(resources or (), filename or (), recursive, selector, "", all_namespaces)

    async def main(session: Session) -> None:
        if not query.arguments and not query.filenames:
            raise CommandError(
                "Required resource not specified.\n"
                'Use "navarch describe pods" or any other type; "navarch api-resources" lists all of them.'
            )
        objects, guessed = await _find(session, query)
        for index, each in enumerate(objects):
            with query.failures.collect():
                describer = DESCRIBERS.get(each.resource.full, generic.anything)
                text = await describer(session, each.tree, show_events)
                print(f"{text}\n" if guessed else "\n\n" + text if index else text, flush=True)
        if not objects and not query.failures.errors:
            place = "" if all_namespaces else f" in {session.namespace} namespace."
            raise CommandError(f"No resources found{place}", plain=True, code=0)
        query.failures.raise_any()

    where.run(main)


async def _find(session: Session, query: Query) -> tuple[list[LiveObject], bool]:
    """The objects; a name that is not there stands for all objects whose names begin with it (then True)."""
    try:
        objects = await find(session, query)
        query.failures.raise_any()
        return objects, False
    except NotFound as error:
        out = []
        for target in await targets(session, query.arguments) if not query.filenames else []:
            if target.name is None:
                continue
            async for tree in items(session, target.resource, Query(all_namespaces=query.all_namespaces)):
                if tree["metadata"]["name"].startswith(target.name):
                    out.append(LiveObject(target.resource, tree))
        query.failures.errors.clear()
        if not out:
            raise error
        return out, True
