"""``navarch delete``: asks the server to delete objects, then waits until they are gone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from cli import manifests
from cli.errors import CommandError, Failures, warn, with_source
from cli.objectchanges import DRY_RUN, check_dry_run
from cli.objectwait import FOREVER, parse_duration, wait_for_deletion
from cli.options import App, Option
from cli.session import Resource, Session
from cli.targets import FILES_AND_NAMES, Query, items, namespace_of, resource_of, targets
from cli.verb import AllNamespaces, DryRun, FieldSelector, Filenames, Recursive, Resources, Selector, Where, verb
from navarch.api.errors import NotFound, StatusError

app = App()


@dataclass
class Options:
    grace: int | None = None
    force: bool = False
    policy: str = "Background"
    dry_run: str = ""
    wait: bool = True
    timeout: float = FOREVER
    name_only: bool = False

    def outcome(self) -> str:
        return ("force deleted" if self.force else "deleted") + DRY_RUN[self.dry_run]


@dataclass
class Doomed:
    """One object to delete."""

    resource: Resource
    name: str
    namespace: str | None
    source: str = ""
    uid: str = ""


@verb(app)
def delete(
    where: Where,
    resources: Resources = None,
    filename: Filenames = None,
    recursive: Recursive = False,
    selector: Selector = "",
    field_selector: FieldSelector = "",
    all_: Annotated[bool, Option("--all", help="All objects of the given types.")] = False,
    all_namespaces: AllNamespaces = False,
    grace_period: Annotated[
        int, Option("--grace-period", metavar="SECONDS", help="Time to end in; below 0: the object's own.")
    ] = -1,
    now: Annotated[bool, Option("--now", help="Grace period of 1 second.")] = False,
    force: Annotated[bool, Option("--force", help="With no grace: do not wait for the node's word.")] = False,
    wait: Annotated[bool, Option("--wait/--no-wait", help="Wait until the objects are gone.")] = True,
    timeout: Annotated[str, Option("--timeout", metavar="TIME", help="How long to wait; 0s: for ever.")] = "0s",
    cascade: Annotated[
        str, Option("--cascade", metavar="background|orphan|foreground", help="What happens to what they own.")
    ] = "background",
    ignore_not_found: Annotated[bool, Option("--ignore-not-found", help="Missing objects are no error.")] = False,
    dry_run: DryRun = "",
    output: Annotated[str, Option("-o", "--output", metavar="name", help="name: only TYPE/NAME.")] = "",
) -> None:
    """Delete objects: navarch delete pod web; delete deploy,svc -l app=web; delete -f FILE."""
    query = Query(
        resources or (), filename or (), recursive, selector, field_selector, all_namespaces, all_, ignore_not_found
    )

    async def main(session: Session) -> None:
        policies = {"background": "Background", "true": "Background", "orphan": "Orphan", "false": "Orphan"}
        policy = (policies | {"foreground": "Foreground"}).get(cascade)
        if policy is None:
            raise CommandError(f'invalid cascade value ({cascade}). Must be "background", "foreground", or "orphan"')
        if output not in ("", "name"):
            raise CommandError(f"unexpected -o output mode: {output}. We only support '-o name'")
        limit = parse_duration(timeout) or FOREVER
        options = Options(None, force, policy, check_dry_run(dry_run), wait, limit, output == "name")
        options.grace = _grace(grace_period, now, options)
        await _delete(session, query, options)

    where.run(main)


def _grace(seconds: int, now: bool, options: Options) -> int | None:
    if now:
        if seconds != -1:
            raise CommandError("--now and --grace-period cannot be specified together")
        seconds = 1
    if options.force:
        warn(
            "Immediate deletion does not wait for confirmation that the running resource has been terminated. "
            "The resource may continue to run on the cluster indefinitely."
        )
        if seconds > 0:
            raise CommandError("--force and --grace-period greater than 0 cannot be specified together")
        return 0
    if seconds == 0:
        seconds = 1  # no time at all is for --force alone
    return seconds if seconds >= 0 else None


async def _delete(session: Session, query: Query, options: Options) -> None:
    doomed = await _choose(session, query)
    if not doomed and not query.failures.errors and not query.filenames:
        print("No resources found")
    if session.where.namespace and any(not each.resource.kind.namespaced for each in doomed):
        warn("deleting cluster-scoped resources, not scoped to the provided namespace")
    waiting: list[Doomed] = []
    for each in doomed:
        with query.failures.collect():
            if await _delete_one(session, each, query, options):
                waiting.append(each)
    if options.wait and not options.dry_run:
        await _wait(session, waiting, options, query.failures)
    query.failures.raise_any()


async def _delete_one(session: Session, each: Doomed, query: Query, options: Options) -> bool:
    """Whether the object still exists, terminating."""
    shown = f"{each.resource.typed}/{each.name}" if options.name_only else f'{each.resource.typed} "{each.name}" '
    outcome = "" if options.name_only else options.outcome()
    if options.dry_run == "client":
        print(f"{shown}{outcome}")
        return False
    try:
        remainder = await session.of(each.resource).delete(
            each.name,
            each.namespace,
            grace_period_seconds=options.grace,
            propagation_policy=options.policy,
            dry_run=options.dry_run == "server",
        )
    except NotFound as error:
        if query.ignore_not_found or query.every or query.selector:
            return False  # somebody else was quicker
        raise (with_source(error, "deleting", each.source) if each.source else error) from None
    except StatusError as error:
        raise (with_source(error, "deleting", each.source) if each.source else error) from None
    print(f"{shown}{outcome}", flush=True)
    if remainder is not None:
        each.uid = remainder["metadata"].get("uid", "")
    return remainder is not None


async def _choose(session: Session, query: Query) -> list[Doomed]:
    selecting = bool(query.selector or query.field_selector or query.every)
    if query.filenames:
        if query.arguments:
            raise CommandError(FILES_AND_NAMES)
        out = []
        for manifest in manifests.read(query.filenames, query.recursive):
            with query.failures.collect():
                resource = await resource_of(session, manifest)
                namespace = namespace_of(session, resource, manifest)
                out.append(Doomed(resource, manifest.name, namespace, manifest.source))
        return out
    if not query.arguments:
        raise CommandError("You must provide one or more resources by argument or filename.")
    out = []
    for target in await targets(session, query.arguments):
        if target.name is not None:
            if selecting:
                raise CommandError("name cannot be provided when a selector is specified")
            out.append(Doomed(target.resource, target.name, session.scope(target.resource)))
            continue
        if not selecting:
            raise CommandError("resource(s) were provided, but no name was specified")
        with query.failures.collect():
            async for tree in items(session, target.resource, query):
                meta = tree["metadata"]
                out.append(Doomed(target.resource, meta["name"], meta.get("namespace"), uid=meta.get("uid", "")))
    return out


async def _wait(session: Session, waiting: list[Doomed], options: Options, failures: Failures) -> None:
    limit = asyncio.Semaphore(20)

    async def one(each: Doomed) -> None:
        async with limit:
            with failures.collect():
                await wait_for_deletion(session, each.resource, each.name, each.namespace, each.uid, options.timeout)

    async with session.world.task_group() as group:
        for each in waiting:
            group.start(one(each))
