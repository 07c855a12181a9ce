"""``navarch rollout``: follow, inspect, undo, restart, pause and resume what a deployment rolls out."""

from __future__ import annotations

from typing import Annotated

from cli import revisions
from cli.errors import CommandError, hint
from cli.objectwait import FOREVER, parse_duration, until
from cli.options import App, Option
from cli.session import Session, Tree
from cli.targets import LiveObject, Query, find
from cli.verb import DryRun, Filenames, Recursive, Resources, Selector, Where, verb
from navarch.api.times import format_time
from navarch.api.wellknown import RESTARTED_AT

app = App()
rollout = App(
    help="Follow, inspect, undo, restart, pause and resume a rollout.",
)
app.add_group(rollout, "rollout")

ROLLED = ("deployments.apps", "daemonsets.apps", "statefulsets.apps")

Revision = Annotated[int, Option("--revision", help="Only this revision; 0: the latest.")]


async def _find_all(session: Session, query: Query) -> list[LiveObject]:
    objects = await find(session, query)
    if not objects and not query.failures.errors:
        raise CommandError("required resource not specified" if not query.arguments else "no resources found")
    return objects


def _only_deployments(live: LiveObject, message: str) -> None:
    """Raises CommandError for kinds that have no revisions; ``message`` may use {kind} and {group}."""
    if live.resource.full != "deployments.apps":
        kind = live.resource.kind
        raise CommandError(message.format(kind=kind.kind, group=kind.group))


@verb(rollout)
def status(
    where: Where,
    resources: Resources = None,
    filename: Filenames = None,
    recursive: Recursive = False,
    selector: Selector = "",
    watch: Annotated[bool, Option("-w", "--watch/--no-watch", help="Wait until the rollout is done.")] = True,
    timeout: Annotated[str, Option("--timeout", metavar="TIME", help="How long to wait; 0s: for ever.")] = "0s",
    revision: Revision = 0,
) -> None:
    """Show how far a rollout is, and wait until it is done."""
    query = Query(resources or (), filename or (), recursive, selector)

    async def main(session: Session) -> None:
        limit = parse_duration(timeout) or FOREVER
        for each in await _find_all(session, query):
            _only_deployments(each, "no status viewer has been implemented for {kind}")
            with query.failures.collect():
                await _status(session, each, revision, watch, limit)
        query.failures.raise_any()

    where.run(main)


async def _status(session: Session, live: LiveObject, revision: int, watch: bool, limit: float) -> None:
    failed: list[str] = []

    def test(tree: Tree | None) -> bool:
        if tree is None:
            failed.append("object has been deleted")
            return True
        try:
            text, done = progress(tree, revision)
        except CommandError as error:
            failed.append(str(error))
            return True
        print(text, flush=True)
        return done or not watch

    try:
        await until(session, live.resource, live.name, live.namespace, test, limit)
    except CommandError:
        raise CommandError(
            "timed out waiting for the condition",
            hint=f"navarch describe {live.typed_name.replace('.apps', '')}{session.where.flags()}",
        ) from None
    if failed:
        name = live.typed_name.replace(".apps", "")
        raise CommandError(failed[0], hint=f"navarch describe {name}{session.where.flags()}")


def progress(deployment: Tree, revision: int = 0) -> tuple[str, bool]:
    """How far a deployment is, in words, and whether it is done. Raises CommandError if it never will be."""
    meta, spec, state = deployment["metadata"], deployment["spec"], deployment.get("status") or {}
    name = meta["name"]
    if revision and revision != revisions.revision_of(deployment):
        raise CommandError(
            f"desired revision ({revision}) is different from the running revision ({revisions.revision_of(deployment)})"
        )
    if meta.get("generation", 0) > state.get("observedGeneration", 0):
        return "Waiting for deployment spec update to be observed...", False
    for condition in state.get("conditions") or ():
        if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            raise CommandError(f'deployment "{name}" exceeded its progress deadline')
    desired, total = spec.get("replicas", 1), state.get("replicas", 0)
    updated, available = state.get("updatedReplicas", 0), state.get("availableReplicas", 0)
    start = f'Waiting for deployment "{name}" rollout to finish: '
    if updated < desired:
        return f"{start}{updated} out of {desired} new replicas have been updated...", False
    if total > updated:
        return f"{start}{total - updated} old replicas are pending termination...", False
    if available < updated:
        return f"{start}{available} of {updated} updated replicas are available...", False
    return f'deployment "{name}" successfully rolled out', True


@verb(rollout)
def history(
    where: Where,
    resources: Resources = None,
    filename: Filenames = None,
    recursive: Recursive = False,
    selector: Selector = "",
    revision: Revision = 0,
) -> None:
    """Show the revisions of a rollout, or one of them with its pod template."""
    query = Query(resources or (), filename or (), recursive, selector)

    async def main(session: Session) -> None:
        for each in await _find_all(session, query):
            _only_deployments(
                each, 'error retrieving history for "{kind}", no visitor method exists for {{{group} {kind}}}'
            )
            with query.failures.collect():
                owned = await revisions.replica_sets(session, each.tree)
                if revision:
                    if revision not in owned:
                        raise CommandError("unable to find the specified revision")
                    print(f"{each.typed_name} with revision #{revision}")
                    print("\n".join(revisions.template_lines(owned[revision])) + "\n")
                else:
                    print(f"{each.typed_name} ")
                    print("\n".join(revisions.history_lines(owned)) + "\n")
        query.failures.raise_any()

    where.run(main)


@verb(rollout)
def undo(
    where: Where,
    resources: Resources = None,
    filename: Filenames = None,
    recursive: Recursive = False,
    selector: Selector = "",
    to_revision: Annotated[int, Option("--to-revision", help="Which revision; 0: the one before.")] = 0,
    dry_run: DryRun = "",
) -> None:
    """Go back to an earlier revision."""
    query = Query(resources or (), filename or (), recursive, selector)

    async def main(session: Session) -> None:
        for each in await _find_all(session, query):
            _only_deployments(each, "no rollbacker has been implemented for {kind}")
            with query.failures.collect():
                outcome = await revisions.undo(session, each, to_revision, dry_run)
                print(f"{each.typed_name} {outcome}")
                _follow(session, each)
        query.failures.raise_any()

    where.run(main)


def _follow(session: Session, live: LiveObject) -> None:
    hint(f"navarch rollout status {live.typed_name.replace('.apps', '')}{session.where.flags()}")


def _patching(name: str, help_: str) -> None:
    """restart, pause and resume differ only in the patch that they send."""

    def command(
        where: Where,
        resources: Resources = None,
        filename: Filenames = None,
        recursive: Recursive = False,
        selector: Selector = "",
    ) -> None:
        query = Query(resources or (), filename or (), recursive, selector)

        async def main(session: Session) -> None:
            for each in await _find_all(session, query):
                with query.failures.collect():
                    patch = _patch(session, each, name)
                    client = session.of(each.resource)
                    await client.patch(each.name, each.namespace, patch, "strategic", field_manager="kubectl-rollout")
                    print(f"{each.typed_name} {name}{'d' if name.endswith('e') else 'ed'}")
                    if name != "pause":
                        _follow(session, each)
            query.failures.raise_any()

        where.run(main)

    command.__doc__ = help_
    verb(rollout, name)(command)


def _patch(session: Session, live: LiveObject, name: str) -> Tree:
    paused = bool(live.tree["spec"].get("paused"))
    shown = f'{live.resource.full} "{live.name}"'
    if name == "restart":
        if live.resource.full not in ROLLED:
            raise CommandError(f"{shown} restarting is not supported")
        if paused:
            raise CommandError(f"{shown} can't restart paused deployment (run rollout resume first)")
        stamp = format_time(session.world.now())
        return {"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: stamp}}}}}
    if live.resource.full != "deployments.apps":
        raise CommandError(f"{shown} {'pausing' if name == 'pause' else 'resuming'} is not supported")
    if paused == (name == "pause"):
        raise CommandError(f"{shown} is {'already' if paused else 'not'} paused")
    return {"spec": {"paused": True if name == "pause" else None}}


_patching("restart", "Replace all pods by new ones of the same template.")
_patching("pause", "Stop reacting to changes of the template until resume.")
_patching("resume", "Go on with a paused rollout.")
