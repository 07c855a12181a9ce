"""``navarch exec``: a command in a running container, with this terminal as its terminal."""

from __future__ import annotations

from typing import Annotated

from cli.errors import CommandError
from cli.options import App, Argument, Option
from cli.podselection import choose_container, container_names, liveliest, one_pod, pods_client
from cli.session import Session
from cli.targets import Query, find
from cli.verb import Filenames, Where, verb
from navarch.api.pods import TERMINAL_PHASES

app = App()


@verb(app, "exec")
def exec_(
    where: Where,
    arguments: Annotated[list[str] | None, Argument("(POD | TYPE/NAME) -- COMMAND [ARG...]")] = None,
    container: Annotated[str, Option("-c", "--container", metavar="NAME", help="Which container.")] = "",
    stdin: Annotated[bool, Option("-i", "--stdin", help="Pass standard input to the command.")] = False,
    tty: Annotated[bool, Option("-t", "--tty", help="The command runs on a terminal.")] = False,
    quiet: Annotated[bool, Option("-q", "--quiet", help="Only what the command prints.")] = False,
    filename: Filenames = None,
) -> None:
    """Run a command in a container: navarch exec -it deploy/web -- sh."""

    async def main(session: Session) -> int:
        words = list(arguments or ())
        if not words and not filename:
            raise CommandError("pod, type/name or --filename must be specified")
        target, command = ([], words) if filename else (words[:1], words[1:])
        if not command:
            raise CommandError("you must specify at least one command for the container")
        query = Query(target, filename or (), default_type="" if filename else "pods")
        objects = await find(session, query)
        query.failures.raise_any()
        pod = await one_pod(session, objects[0], liveliest)
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        phase = (pod.get("status") or {}).get("phase")
        if phase in TERMINAL_PHASES:
            raise CommandError(f"cannot exec into a container in a completed pod; current phase is {phase}")
        if container and container not in container_names(pod):
            raise CommandError(f"container not found ({container})", plain=False)
        chosen = choose_container(pod, container, quiet)
        from cli.streams import run

        path = pods_client(session).kind.path(namespace, name, "exec")
        pairs = [("command", word) for word in command]
        pairs += [("container", chosen), ("stdin", str(stdin).lower()), ("stdout", "true")]
        pairs += [("stderr", str(not tty).lower()), ("tty", str(tty).lower())]
        return await run(session, path, pairs, stdin=stdin, tty=tty)

    where.run(main)
