"""``navarch events``: what happened, oldest first; everywhere, or to one object."""

from __future__ import annotations

import sys
from typing import Annotated

from cli.describing.events import EVENT, age_of, when
from cli.errors import CommandError
from cli.options import App, Option
from cli.output import printing
from cli.output.tables import Columns
from cli.session import Session, Tree
from cli.verb import AllNamespaces, Output, Where, verb

app = App()


@verb(app)
def events(
    where: Where,
    for_: Annotated[str, Option("--for", metavar="TYPE/NAME", help="Only what happened to this object.")] = "",
    types: Annotated[str, Option("--types", metavar="Normal,Warning", help="Only these types.")] = "",
    watch: Annotated[bool, Option("-w", "--watch", help="Go on and show what happens.")] = False,
    all_namespaces: AllNamespaces = False,
    no_headers: Annotated[bool, Option("--no-headers", help="Without the line of column names.")] = False,
    output: Output = "",
) -> None:
    """Show events: navarch events -A; events --for deploy/web; events --types=Warning -w."""

    async def main(session: Session) -> None:
        printing.check_format(output)
        event_types = {t.lower() for t in types.split(",") if t}
        if event_types - {"normal", "warning"}:
            raise CommandError("valid --types are Normal or Warning")
        fields = await _about(session, for_) if for_ else None
        client = session.client.tree(EVENT)
        namespace = None if all_namespaces else session.namespace
        page = await client.list(namespace, field_selector=fields)
        matching = sorted((e for e in page.items if not event_types or e.get("type", "").lower() in event_types), key=when)
        if output:
            names = [f"event/{e['metadata']['name']}" for e in matching]
            printing.emit(printing.rendered(printing.as_list(matching), output, names), output)
            return
        if not matching and not watch:
            place = "." if all_namespaces else f" in {session.namespace} namespace."
            print(f"No events found{place}", file=sys.stderr)
            return
        columns = Columns()
        head = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
        rows = [] if no_headers else [["NAMESPACE", *head] if all_namespaces else head]
        rows += [_row(e, all_namespaces, session.world.now()) for e in matching]
        if rows:
            print("\n".join(columns.lines(rows)), flush=True)
        if watch:
            async with client.watch(
                namespace, field_selector=fields, resource_version=page.resource_version
            ) as changes:
                async for change in changes:
                    event = change.object
                    is_meant = not event_types or event.get("type", "").lower() in event_types
                    if is_meant and change.type in ("ADDED", "MODIFIED"):
                        print(columns.lines([_row(event, all_namespaces, session.world.now())])[0], flush=True)

    where.run(main)


async def _about(session: Session, what: str) -> str:
    word, slash, name = what.partition("/")
    if not slash or not name:
        raise CommandError("--for must be in resource/name form")
    kind = (await session.resource(word)).kind
    return f"involvedObject.kind={kind.kind},involvedObject.apiVersion={kind.api_version},involvedObject.name={name}"


def _row(event: Tree, with_namespace: bool, now: float) -> list[str]:
    about = event.get("involvedObject") or {}
    row = [age_of(event, now), event.get("type") or "", event.get("reason") or ""]
    row += [f"{about.get('kind', '')}/{about.get('name', '')}", str(event.get("message") or "").strip()]
    return [event["metadata"].get("namespace") or "", *row] if with_namespace else row
