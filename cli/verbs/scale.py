"""``navarch scale``: how many pods a deployment, replica set or other scalable object shall have."""

from __future__ import annotations

from typing import Annotated, Any

from cli.errors import CommandError, hint
from cli.objectchanges import DRY_RUN, check_dry_run
from cli.objectwait import parse_duration, until
from cli.options import App, Option
from cli.session import Session, Tree
from cli.targets import LiveObject, Query, find
from cli.verb import DryRun, Filenames, Recursive, Resources, Selector, Where, verb
from navarch.api.errors import NotFound

app = App()


@verb(app)
def scale(
    where: Where,
    resources: Resources = None,
    replicas: Annotated[int, Option("--replicas", help="How many pods it shall have.")] = -1,
    current_replicas: Annotated[int, Option("--current-replicas", help="Only if it has as many now.")] = -1,
    resource_version: Annotated[str, Option("--resource-version", help="Only if it is at this version.")] = "",
    filename: Filenames = None,
    recursive: Recursive = False,
    selector: Selector = "",
    all_: Annotated[bool, Option("--all", help="All objects of the given types.")] = False,
    timeout: Annotated[
        str, Option("--timeout", metavar="TIME", help="Wait so long for the pods; 0s: do not.")
    ] = "0s",
    dry_run: DryRun = "",
) -> None:
    """Set the number of pods: navarch scale deploy/web --replicas=5."""
    query = Query(resources or (), filename or (), recursive, selector, every=all_)

    async def main(session: Session) -> None:
        if replicas < 0:
            raise CommandError("The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0")
        mode = check_dry_run(dry_run)
        seconds = parse_duration(timeout)
        objects = await find(session, query)
        if not objects and not query.failures.errors:
            raise CommandError("no objects passed to scale")
        for each in objects:
            with query.failures.collect():
                await _scale(session, each, replicas, current_replicas, resource_version, mode)
                print(f"{each.typed_name} scaled{DRY_RUN[mode]}")
        if seconds and not mode:
            for each in objects:
                with query.failures.collect():
                    await until(session, each.resource, each.name, each.namespace, _reached(replicas), seconds)
        elif objects and not query.failures.errors and not mode:
            hint(f"navarch rollout status {objects[0].typed_name.replace('.apps', '')}{session.where.flags()}")
        query.failures.raise_any()

    where.run(main)


async def _scale(session: Session, live: LiveObject, replicas: int, expected: int, version: str, dry_run: str) -> None:
    if "scale" not in live.resource.subresources:
        raise NotFound("the server could not find the requested resource")
    client = session.of(live.resource)
    body: Tree = {"spec": {"replicas": replicas}}
    if expected >= 0 or version:
        # What was seen is what the change is bound to: anybody's change in between is a conflict.
        current = await client.get_sub(live.name, live.namespace, "scale")
        has = (current.get("spec") or {}).get("replicas", 0)
        if expected >= 0 and has != expected:
            raise CommandError(f"Expected replicas to be {expected}, was {has}")
        if version and current["metadata"].get("resourceVersion") != version:
            raise CommandError(
                f"Expected resource version to be {version}, was {current['metadata'].get('resourceVersion')}"
            )
        body["metadata"] = {"resourceVersion": current["metadata"].get("resourceVersion")}
    if dry_run != "client":
        await client.patch(live.name, live.namespace, body, "merge", subresource="scale", dry_run=dry_run == "server")


def _reached(replicas: int) -> Any:
    def test(tree: Tree | None) -> bool:
        if tree is None:
            return True
        status = tree.get("status") or {}
        is_observed = status.get("observedGeneration", 0) >= tree["metadata"].get("generation", 0)
        return bool(is_observed and status.get("replicas", 0) == replicas)

    return test
