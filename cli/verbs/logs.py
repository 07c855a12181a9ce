"""``navarch logs``: what containers wrote, of one pod or of many at once."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

from cli.errors import CommandError, Failures
from cli.objectwait import parse_duration
from cli.options import App, Argument, Option
from cli.podselection import all_pods, choose_container, container_names, liveliest, one_pod, pods_client
from cli.session import Session, Tree
from cli.targets import LiveObject, Query, find
from cli.verb import Selector, Where, verb
from navarch.api.errors import BadRequest, NotFound

app = App()

USAGE = "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'."
SELECTOR_TAIL = 10  # lines of each container when a selector may match many


@dataclass
class Options:
    container: str = ""
    all_containers: bool = False
    all_pods: bool = False
    prefix: bool = False
    ignore_errors: bool = False
    most: int = 5


@verb(app)
def logs(
    where: Where,
    resource: Annotated[list[str] | None, Argument("POD | TYPE/NAME [CONTAINER]")] = None,
    container: Annotated[str, Option("-c", "--container", metavar="NAME", help="Which container.")] = "",
    follow: Annotated[bool, Option("-f", "--follow", help="Go on and show what comes.")] = False,
    tail: Annotated[int, Option("--tail", metavar="LINES", help="Only the last lines; -1: all.")] = -1,
    since: Annotated[str, Option("--since", metavar="TIME", help="Only newer than 5s, 2m, 3h.")] = "",
    since_time: Annotated[str, Option("--since-time", metavar="RFC3339", help="Only after this time.")] = "",
    previous: Annotated[
        bool, Option("-p", "--previous", help="Of the container before its last restart.")
    ] = False,
    timestamps: Annotated[bool, Option("--timestamps", help="With the time of each line.")] = False,
    limit_bytes: Annotated[int, Option("--limit-bytes", metavar="BYTES", help="At most this much; 0: all.")] = 0,
    all_containers: Annotated[bool, Option("--all-containers", help="All containers of the pod.")] = False,
    all_pods: Annotated[bool, Option("--all-pods", help="All pods of a deployment or other owner.")] = False,
    selector: Selector = "",
    prefix: Annotated[bool, Option("--prefix", help="Each line with its pod and container.")] = False,
    ignore_errors: Annotated[bool, Option("--ignore-errors", help="Go on if one log cannot be read.")] = False,
    max_log_requests: Annotated[int, Option("--max-log-requests", help="How many logs to follow at once.")] = 5,
) -> None:
    """Show a container's output: navarch logs web-1; logs -f deploy/web; logs -l app=web --prefix."""

    async def main(session: Session) -> None:
        arguments = list(resource or ())
        if len(arguments) > 2 or (len(arguments) == 2 and container):
            raise CommandError(f"{USAGE}\nSee --help for help and examples")
        if not arguments and not selector:
            raise CommandError(f"{USAGE}\nPOD or TYPE/NAME is a required argument for the logs command")
        if arguments and selector:
            raise CommandError("only a selector (-l) or a POD name is allowed")
        if since and since_time:
            raise CommandError("at most one of `sinceTime` or `sinceSeconds` may be specified")
        if all_containers and (container or len(arguments) == 2):
            raise CommandError("--all-containers=true should not be specified with container name")
        seconds = parse_duration(since, "since") if since else None
        lines = SELECTOR_TAIL if selector and tail < 0 else tail
        pairs: dict[str, Any] = {
            "follow": follow or None,
            "previous": previous or None,
            "timestamps": timestamps or None,
            "tailLines": lines if lines >= 0 else None,
            "sinceSeconds": max(1, round(seconds)) if seconds else None,
            "sinceTime": since_time or None,
            "limitBytes": limit_bytes or None,
        }
        options = Options(
            container or (arguments[1] if len(arguments) == 2 else ""),
            all_containers,
            all_pods,
            prefix or all_pods,
            ignore_errors,
            max_log_requests,
        )
        sources = await _choose(session, arguments[:1], selector, options)
        await _show(session, sources, pairs, options, follow)

    where.run(main)


async def _choose(session: Session, arguments: list[str], selector: str, options: Options) -> list[tuple[Tree, str]]:
    """Pods and containers whose logs are meant."""
    if selector:
        pods = (await pods_client(session).list(session.namespace, label_selector=selector)).items
        if not pods:
            print(f"No resources found in {session.namespace} namespace.", file=sys.stderr)
    else:
        query = Query(arguments, default_type="pods")
        try:
            objects = await find(session, query)
            query.failures.raise_any()
        except NotFound as error:
            place = f' in namespace "{session.namespace}"'
            raise CommandError(f"error from server (NotFound): {error.message}{place}") from None
        pods = await _pods(session, objects[0], options)
    out = []
    for pod in pods:
        if options.all_containers:
            out += [(pod, name) for name in container_names(pod)]
        else:
            out.append((pod, choose_container(pod, options.container)))
    return out


async def _pods(session: Session, live: LiveObject, options: Options) -> list[Tree]:
    if options.all_pods:
        return await all_pods(session, live)
    return [await one_pod(session, live, liveliest, tell=True)]


async def _show(
    session: Session, sources: list[tuple[Tree, str]], pairs: dict[str, Any], options: Options, follow: bool
) -> None:
    if follow and len(sources) > options.most:
        raise CommandError(
            f"you are attempting to follow {len(sources)} log streams, but maximum allowed concurrency is "
            f"{options.most}, use --max-log-requests to increase the limit"
        )
    failures = Failures()

    async def one(pod: Tree, container: str) -> None:
        meta = pod["metadata"]
        start = f"[pod/{meta['name']}/{container}] ".encode() if options.prefix else b""
        with failures.collect():
            try:
                await _copy(session, meta["name"], meta["namespace"], container, pairs, start)
            except BadRequest as error:
                if options.ignore_errors:
                    print(f"error: {error.message}", file=sys.stderr)
                    return
                raise

    if follow:
        async with session.world.task_group() as group:
            for pod, container in sources:
                group.start(one(pod, container))
    else:
        for pod, container in sources:
            await one(pod, container)
    failures.raise_any()


async def _copy(
    session: Session, name: str, namespace: str, container: str, pairs: dict[str, Any], start: bytes
) -> None:
    """One log to standard output; whole lines at a time if they get a prefix."""
    out = sys.stdout.buffer
    rest = b""
    async for chunk in pods_client(session).log(name, namespace, container=container, **pairs):
        if start:
            *lines, rest = (rest + chunk).split(b"\n")
            chunk = b"".join(start + line + b"\n" for line in lines)
        out.write(chunk)
        out.flush()
    if rest:
        out.write(start + rest + b"\n")
        out.flush()
