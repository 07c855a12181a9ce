"""``navarch get``: tables as the server makes them, or whole objects; once or as they change."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import Annotated, Any

from cli.errors import CommandError, Failures
from cli.options import App, Option
from cli.output import jsonpath, printing
from cli.output.tables import TablePrinter
from cli.session import Resource, Session, Tree
from cli.targets import PAGE, Query, Target, find, targets
from cli.verb import AllNamespaces, FieldSelector, Filenames, Output, Recursive, Resources, Selector, Where, verb
from navarch.api.errors import StatusError, from_status
from navarch.client.transport import JSON, error_of

app = App()

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io," + JSON


@dataclass
class Options:
    output: str = ""
    watch: bool = False
    watch_only: bool = False
    output_events: bool = False
    show_labels: bool = False
    labels: list[str] = field(default_factory=list)
    headers: bool = True
    show_kind: bool = False
    ignore_not_found: bool = False
    sort_by: str = ""
    managed_fields: bool = False


@verb(app)
def get(
    where: Where,
    resources: Resources = None,
    output: Output = "",
    watch: Annotated[bool, Option("-w", "--watch", help="Go on and show what changes.")] = False,
    watch_only: Annotated[bool, Option("--watch-only", help="Show only what changes.")] = False,
    output_watch_events: Annotated[bool, Option("--output-watch-events", help="Show kinds of events.")] = False,
    selector: Selector = "",
    field_selector: FieldSelector = "",
    all_namespaces: AllNamespaces = False,
    show_labels: Annotated[bool, Option("--show-labels", help="A column with all labels.")] = False,
    label_columns: Annotated[
        list[str] | None, Option("-L", "--label-columns", metavar="LABEL", help="A column for a label.")
    ] = None,
    no_headers: Annotated[bool, Option("--no-headers", help="Without the line of column names.")] = False,
    show_kind: Annotated[bool, Option("--show-kind", help="Names with their types.")] = False,
    ignore_not_found: Annotated[bool, Option("--ignore-not-found", help="Missing objects are no error.")] = False,
    sort_by: Annotated[str, Option("--sort-by", metavar="JSONPATH", help="Sort by this field.")] = "",
    show_managed_fields: Annotated[bool, Option("--show-managed-fields", help="Keep managedFields.")] = False,
    filename: Filenames = None,
    recursive: Recursive = False,
    raw: Annotated[str, Option("--raw", metavar="PATH", help="What the server says at this path.")] = "",
) -> None:
    """Show objects: navarch get pods; get deploy/web -o yaml; get pods,svc -A; get nodes -w."""
    query = Query(
        resources or (),
        filename or (),
        recursive,
        selector,
        field_selector,
        all_namespaces,
        ignore_not_found=ignore_not_found,
    )
    labels = [label for each in label_columns or () for label in each.split(",")]
    options = Options(
        output,
        watch or watch_only,
        watch_only,
        output_watch_events,
        show_labels,
        labels,
        not no_headers,
        show_kind,
        ignore_not_found,
        sort_by,
        show_managed_fields,
    )
    where.run(lambda session: _raw(session, raw) if raw else _get(session, query, options))


async def _raw(session: Session, path: str) -> None:
    from urllib.parse import parse_qsl, unquote, urlsplit

    parts = urlsplit(path)
    answer = await session.client.request("GET", unquote(parts.path), query=parse_qsl(parts.query, True), accept="*/*")
    sys.stdout.flush()
    sys.stdout.buffer.write(answer.body)
    sys.stdout.buffer.flush()


async def _get(session: Session, query: Query, options: Options) -> None:
    printing.check_format(options.output)
    if not query.arguments and not query.filenames:
        raise CommandError(
            "Required resource not specified.\n"
            'Use "navarch get pods" or any other type; "navarch api-resources" lists all of them.'
        )
    if query.filenames:
        objects = await find(session, query)
        chosen = [Target(f.resource, f.name) for f in objects]
    else:
        chosen = await targets(session, query.arguments)
    named = any(target.name for target in chosen)
    if named and query.all_namespaces:
        raise CommandError("a resource cannot be retrieved by name across all namespaces")
    if named and (query.selector or query.field_selector):
        raise CommandError("name cannot be provided when a selector is specified")
    groups: dict[str, tuple[Resource, list[str]]] = {}
    for target in chosen:
        names = groups.setdefault(target.resource.full, (target.resource, []))[1]
        if target.name:
            names.append(target.name)
    if options.watch:
        if len(groups) != 1:
            raise CommandError("you may only specify a single resource type")
        ((resource, names),) = groups.values()
        await _watch(session, query, options, resource, names)
    elif printing.is_table(options.output):
        await _tables(session, query, options, list(groups.values()), named)
    else:
        await _objects(session, query, options, chosen, named)
    query.failures.raise_any()


# --- tables -----------------------------------------------------------------------------------------------------------


async def _table(session: Session, resource: Resource, query: Query, name: str | None, whole: bool = False) -> Tree:
    """The server's Table of a resource, all pages of it. A server without Tables gets one with a name column."""
    client, pairs = session.client, [("limit", str(PAGE))] if name is None else []
    if name is None and query.selector:
        pairs.append(("labelSelector", query.selector))
    if name is None and query.field_selector:
        pairs.append(("fieldSelector", query.field_selector))
    if whole:
        pairs.append(("includeObject", "Object"))
    path = resource.kind.path(session.scope(resource, query.all_namespaces), name)
    table: Tree = as_table(await client.get_json(path, pairs, TABLE))
    token = (table.get("metadata") or {}).get("continue")
    while token:
        page = as_table(await client.get_json(path, [*pairs, ("continue", token)], TABLE))
        table["rows"] += page.get("rows") or []
        token = (page.get("metadata") or {}).get("continue")
    return table


def as_table(tree: Tree) -> Tree:
    """A Table as it is; any object or list as a table of names."""
    if tree.get("kind") == "Table":
        tree["rows"] = tree.get("rows") or []
        return tree
    items = tree.get("items") if "items" in tree else [tree]
    rows = [{"cells": [i["metadata"].get("name", "")], "object": {"metadata": i["metadata"]}} for i in items or ()]
    return {
        "kind": "Table",
        "metadata": tree.get("metadata") or {},
        "columnDefinitions": [{"name": "Name", "type": "string", "format": "name"}],
        "rows": rows,
    }


def _printer(query: Query, options: Options, resource: Resource, prefix: bool) -> TablePrinter:
    return TablePrinter(
        wide=options.output == "wide",
        with_namespace=query.all_namespaces and resource.kind.namespaced,
        prefix=resource.typed if prefix else "",
        labels=options.labels,
        show_labels=options.show_labels,
        headers=options.headers,
    )


async def _tables(
    session: Session, query: Query, options: Options, groups: list[tuple[Resource, list[str]]], named: bool
) -> None:
    tables: list[tuple[Resource, Tree]] = []
    for resource, names in groups:
        rows: list[Tree] = []
        table: Tree | None = None
        for name in names if named else [None]:
            try:
                table = await _table(session, resource, query, name, bool(options.sort_by))
                rows += table["rows"]
            except StatusError as error:
                if error.http_code != 404 or not options.ignore_not_found:
                    query.failures.errors.append(error)
        if table is not None and rows:
            if options.sort_by:
                rows.sort(key=lambda row: sort_key(row.get("object") or {}, options.sort_by))
            tables.append((resource, table | {"rows": rows}))
    several = len(query.arguments) == 1 and ("," in query.arguments[0] or query.arguments[0] == "all")
    prefix = options.show_kind or several or len(tables) > 1
    for number, (resource, table) in enumerate(tables):
        if number:
            print()
        print("\n".join(_printer(query, options, resource, prefix).lines(table)))
    if not tables and not query.failures.errors and not options.ignore_not_found:
        _nothing(session, query, [resource for resource, _ in groups])


def _nothing(session: Session, query: Query, resources: list[Resource]) -> None:
    namespaced = any(r.kind.namespaced for r in resources) and not query.all_namespaces
    place = f" in {session.namespace} namespace." if namespaced else ""
    print(f"No resources found{place}", file=sys.stderr)


def sort_key(tree: Tree, path: str) -> tuple[int, Any]:
    """Orders objects by a field: quantities and numbers by size, the rest as text; objects without it come first."""
    values = jsonpath.select(path, tree)
    if not values or values[0] is None:
        return (0, "")
    value = values[0]
    if isinstance(value, int | float):
        return (1, float(value))
    if isinstance(value, str) and value[:1].isdigit() and "-" not in value:
        from navarch.api import quantity

        try:
            return (1, float(quantity.parse(value)))
        except quantity.QuantityError:
            pass
    return (2, value if isinstance(value, str) else json.dumps(value, sort_keys=True))


# --- whole objects ----------------------------------------------------------------------------------------------------


async def _objects(session: Session, query: Query, options: Options, chosen: list[Target], named: bool) -> None:
    failures, query.failures = query.failures, Failures()
    inner = Query(query.arguments, query.filenames, query.recursive, query.selector, query.field_selector)
    inner.all_namespaces, inner.ignore_not_found, inner.failures = (
        query.all_namespaces,
        options.ignore_not_found,
        failures,
    )
    objects = await find(session, inner)
    query.failures = failures
    if options.sort_by:
        objects.sort(key=lambda each: sort_key(each.tree, options.sort_by))
    trees = [each.tree if options.managed_fields else printing.bare(each.tree) for each in objects]
    names = [each.typed_name for each in objects]
    single = named and len(chosen) == 1
    if options.output == "name":
        if names:
            print("\n".join(names))
    elif not single and not (named and not objects):
        printing.emit(printing.rendered(printing.as_list(trees), options.output), options.output)
    elif trees:
        printing.emit(printing.rendered(trees[0], options.output), options.output)


# --- watching ---------------------------------------------------------------------------------------------------------


async def _watch(session: Session, query: Query, options: Options, resource: Resource, names: list[str]) -> None:
    if len(names) > 1:
        raise CommandError("watch is only supported on individual resources and resource collections")
    name = names[0] if names else None
    as_rows = printing.is_table(options.output)
    printer = _printer(query, options, resource, options.show_kind)
    fields = ",".join(filter(None, (query.field_selector, f"metadata.name={name}" if name else "")))
    path = resource.kind.path(session.scope(resource, query.all_namespaces))
    pairs = [("watch", "true")]
    pairs += [("labelSelector", query.selector)] if query.selector else []
    pairs += [("fieldSelector", fields)] if fields else []
    if as_rows:
        table = await _table(session, resource, query, name)
        version = (table.get("metadata") or {}).get("resourceVersion", "")
        if not options.watch_only:
            _print(printer, table, ["ADDED"] * len(table["rows"]) if options.output_events else [])
    else:
        page = await session.client.get_json(resource.kind.path(session.scope(resource, query.all_namespaces), name))
        version = page["metadata"].get("resourceVersion", "")
        for item in [] if options.watch_only else page["items"] if name is None else [page]:
            _emit_event(resource, "ADDED", item, options)
    accept = TABLE if as_rows else JSON
    while True:
        # The server ends a watch after some minutes: go on where it stopped.
        async with session.client.stream(
            "GET", path, query=[*pairs, ("resourceVersion", version)], accept=accept
        ) as stream:
            if stream.status >= 400:
                raise error_of(stream.status, await stream.read())
            rest = b""
            async for chunk in stream.chunks():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        version = _event(json.loads(line), printer, resource, options, as_rows) or version


def _event(event: Tree, printer: TablePrinter, resource: Resource, options: Options, as_rows: bool) -> str:
    """Prints one event; gives the resource version that it brings."""
    kind, body = event["type"], event["object"]
    if kind == "ERROR":
        raise from_status(body)
    version = str((body.get("metadata") or {}).get("resourceVersion") or "")
    if kind == "BOOKMARK":
        return version
    if not as_rows:
        _emit_event(resource, kind, body, options)
        return version
    table = as_table(body)
    _print(printer, table, [kind] * len(table["rows"]) if options.output_events else [])
    for row in table["rows"]:
        version = ((row.get("object") or {}).get("metadata") or {}).get("resourceVersion") or version
    return version


def _print(printer: TablePrinter, table: Tree, events: list[str]) -> None:
    if table["rows"]:
        print("\n".join(printer.lines(table, events)), flush=True)


def _emit_event(resource: Resource, kind: str, tree: Tree, options: Options) -> None:
    typed = {"apiVersion": resource.kind.api_version, "kind": resource.kind.kind} | tree
    shown: Tree = typed if options.managed_fields else printing.bare(typed)
    name = f"{resource.typed}/{shown['metadata'].get('name', '')}"
    if options.output_events:
        shown = {"object": shown, "type": kind}
    if options.output == "yaml":
        print("---")
    printing.emit(printing.rendered(shown, options.output, [name]), options.output)
