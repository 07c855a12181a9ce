"""``navarch wait``: until objects meet a condition, have a value in a field, exist, or are gone."""

from __future__ import annotations

import json
from typing import Annotated, Any

from cli.errors import CommandError
from cli.objectwait import Test, parse_duration, until, wait_for_deletion
from cli.options import App, Option
from cli.output import jsonpath
from cli.session import Session, Tree
from cli.targets import Query, Target, find, targets
from cli.verb import AllNamespaces, FieldSelector, Filenames, Recursive, Resources, Selector, Where, verb
from navarch.api.errors import NotFound

app = App()

LONG = 7 * 24 * 3600.0  # what a timeout below zero means


@verb(app)
def wait(
    where: Where,
    resources: Resources = None,
    for_: Annotated[
        str,
        Option(
            "--for", metavar="WHAT", help="condition=NAME[=VALUE], jsonpath={PATH}[=VALUE], delete or create."
        ),
    ] = "",
    timeout: Annotated[
        str, Option("--timeout", metavar="TIME", help="How long; 0: look once, below 0: a week.")
    ] = "30s",
    filename: Filenames = None,
    recursive: Recursive = False,
    selector: Selector = "",
    field_selector: FieldSelector = "",
    all_: Annotated[bool, Option("--all", help="All objects of the given types.")] = False,
    all_namespaces: AllNamespaces = False,
) -> None:
    """Wait for objects: navarch wait pod/web --for=condition=Ready; wait job/x --for=delete --timeout=60s."""
    query = Query(resources or (), filename or (), recursive, selector, field_selector, all_namespaces, all_)

    async def main(session: Session) -> None:
        seconds = parse_duration(timeout)
        deadline = session.world.monotonic() + (seconds if seconds >= 0 else LONG)
        await _wait(session, query, for_, deadline)

    where.run(main)


async def _wait(session: Session, query: Query, condition: str, deadline: float) -> None:
    kind, _, rest = condition.partition("=")
    kind = kind.lower()
    if kind not in ("delete", "create", "condition", "jsonpath") or (kind in ("condition", "jsonpath") and not rest):
        raise CommandError(f'unrecognized condition: "{condition}"')
    test = {"condition": _condition, "jsonpath": _jsonpath}.get(kind, _present)(rest)
    by_name = [t for t in await targets(session, query.arguments) if t.name] if not query.filenames else []
    if kind in ("delete", "create") and by_name:
        await _named(session, by_name, kind, deadline)
        return
    if kind == "delete":
        query.ignore_not_found = True
    objects = await find(session, query)
    query.failures.raise_any()
    if not objects and (kind != "delete" or not query.filenames):
        raise CommandError("no matching resources found")
    for each in objects:
        with query.failures.collect():
            remaining = max(deadline - session.world.monotonic(), 0.001)
            if kind == "delete":
                uid = each.tree["metadata"].get("uid", "")
                await wait_for_deletion(session, each.resource, each.name, each.namespace, uid, remaining)
            else:
                await _until(session, Target(each.resource, each.name), each.namespace, test, remaining)
            print(f"{each.typed_name} condition met", flush=True)
    query.failures.raise_any()


async def _named(session: Session, named: list[Target], kind: str, deadline: float) -> None:
    """Objects given by name that may not exist yet, or not any more."""
    for target in named:
        name, resource = target.name or "", target.resource
        namespace = session.scope(resource)
        remaining = max(deadline - session.world.monotonic(), 0.001)
        if kind == "create":
            await _until(session, target, namespace, _present(""), remaining)
        else:
            try:
                tree = await session.of(resource).get(name, namespace)
            except NotFound:
                continue  # gone already: nothing to say, as kubectl
            await wait_for_deletion(session, resource, name, namespace, tree["metadata"].get("uid", ""), remaining)
        print(f"{resource.typed}/{name} condition met", flush=True)


async def _until(session: Session, target: Target, namespace: str | None, test: Test, seconds: float) -> None:
    deleted = False
    existed = False

    def wrapped(tree: Tree | None) -> bool:
        nonlocal deleted, existed
        if tree is None:
            deleted = existed
            return deleted
        existed = True
        return test(tree)

    await until(session, target.resource, target.name or "", namespace, wrapped, seconds)
    if deleted:
        raise NotFound(f'{target.resource.full} "{target.name}" not found')


def _present(_: str) -> Test:
    return lambda tree: tree is not None


def _condition(text: str) -> Test:
    name, _, value = text.partition("=")
    value = value or "True"

    def test(tree: Tree | None) -> bool:
        if tree is None:
            return False
        status = tree.get("status") or {}
        generation = tree["metadata"].get("generation") or 0
        for condition in status.get("conditions") or ():
            if condition.get("type", "").lower() != name.lower():
                continue
            # A condition about an older spec says nothing about this one.
            observed = condition.get("observedGeneration", status.get("observedGeneration", generation))
            same: bool = str(condition.get("status", "")).lower() == value.lower()
            return bool(observed >= generation) and same
        return False

    return test


def _jsonpath(text: str) -> Test:
    expression, value = _split(text)

    def test(tree: Tree | None) -> bool:
        if tree is None:
            return False
        values = jsonpath.select(expression, tree)
        if not values:
            return False
        if len(values) > 1:
            raise CommandError("given jsonpath expression matches more than one value")
        if isinstance(values[0], dict | list):
            raise CommandError("jsonpath leads to a nested object or list which is not supported")
        return value is None or _shown(values[0]) == value

    try:
        jsonpath.select(expression, {})
    except jsonpath.JSONPathError as error:
        raise CommandError(f"error parsing jsonpath {expression}, {error}") from error
    return test


def _split(text: str) -> tuple[str, str | None]:
    """``{PATH}=VALUE``: the first equals sign behind the expression's braces parts them."""
    if text.startswith("{"):
        end = text.rfind("}=") if "}=" in text else -1
        if end >= 0:
            return text[: end + 1], _unquoted(text[end + 2 :])
        return text, None
    path, equals, value = text.partition("=")
    return path, _unquoted(value) if equals else None


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
