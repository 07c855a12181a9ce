"""``navarch cp``: files to and from containers, by ``tar`` on both sides, as kubectl does it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import posixpath
import sys
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from cli.errors import CommandError
from cli.options import App, Argument, Option
from cli.podselection import choose_container, pods_client
from cli.session import Session
from cli.streams import CLOSE, ERROR, PROTOCOLS, STDERR, STDIN, STDOUT, exit_code
from cli.verb import Where, verb
from navarch.client.transport import WebSocket

app = App()

CHUNK = 64 * 1024
MAX_BYTES = 1 << 30  # bytes of one copy that are held in memory


class Place(NamedTuple):
    """``[[namespace/]pod:]path``; without a pod it is on this machine."""

    pod: str
    namespace: str
    path: str


@verb(app)
def cp(
    where: Where,
    source: Annotated[str, Argument("[NAMESPACE/]POD:PATH | PATH")],
    destination: Annotated[str, Argument("PATH | [NAMESPACE/]POD:PATH")],
    container: Annotated[str, Option("-c", "--container", metavar="NAME", help="Which container.")] = "",
    no_preserve: Annotated[bool, Option("--no-preserve", help="Do not keep owners and modes.")] = False,
) -> None:
    """Copy files: navarch cp notes.txt web:/tmp/; navarch cp web:/var/log ./log. The container needs tar."""

    async def main(session: Session) -> None:
        there, here = _place(source, session.namespace), _place(destination, session.namespace)
        if there.pod and here.pod:
            raise CommandError("one of src or dest must be a local file specification")
        if not there.path or not here.path:
            raise CommandError("filepath can not be empty")
        if here.pod:
            await _to(session, there.path, here, container, no_preserve)
        elif there.pod:
            await _from(session, there, here.path, container)
        else:
            raise CommandError("one of src or dest must be a remote file specification")

    where.run(main)


def _place(text: str, namespace: str) -> Place:
    """Raises CommandError."""
    head, colon, path = text.partition(":")
    if not colon or ("/" in head and head.startswith((".", "/"))):
        return Place("", "", text)
    parts = head.split("/")
    if len(parts) > 2 or not parts[-1]:
        raise CommandError("filespec must match the canonical format: [[namespace/]pod:]file/path")
    return Place(parts[-1], parts[0] if len(parts) == 2 else namespace, path)


async def _to(session: Session, local: str, place: Place, container: str, no_preserve: bool) -> None:
    if not Path(local).exists():
        raise CommandError(f"{local} doesn't exist in local filesystem")
    target = place.path
    # A destination that is a folder gets the file inside, as cp does.
    if await _run(session, place, container, ["test", "-d", target], None, quiet=True) == 0:
        target = posixpath.join(target, Path(local).resolve().name)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(local, arcname=posixpath.basename(target))
    command = ["tar", *(["--no-same-permissions", "--no-same-owner"] if no_preserve else []), "-xmf", "-"]
    folder = posixpath.dirname(target)
    code = await _run(session, place, container, [*command, *(["-C", folder] if folder else [])], buffer.getvalue())
    if code:
        raise CommandError("", code=1, plain=True)


async def _from(session: Session, place: Place, local: str, container: str) -> None:
    data = bytearray()

    async def keep(chunk: bytes) -> None:
        data.extend(chunk)
        if len(data) > MAX_BYTES:
            raise CommandError(f"more than {MAX_BYTES >> 20} MiB: copy it in parts")

    code = await _run(session, place, container, ["tar", "cf", "-", place.path], None, keep)
    if code:
        raise CommandError("", code=1, plain=True)
    _unpack(bytes(data), place.path, Path(local))


def _unpack(data: bytes, source: str, local: Path) -> None:
    """Writes an archive's files to ``local``; nothing lands outside of it, whatever the archive says."""
    prefix = source.strip("/").removeprefix("./")
    inside = local / posixpath.basename(prefix) if local.is_dir() else local
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            name = member.name.strip("/")
            rest = name.removeprefix(prefix).strip("/") if name.startswith(prefix) else posixpath.basename(name)
            target = Path(os.path.normpath(inside / rest)) if rest else inside
            if target != inside and inside not in target.parents:
                print(f"warning: file {member.name!r} is outside target destination, skipping")
                continue
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif member.isfile():
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                target.write_bytes(content.read())
                target.chmod(member.mode & 0o777)
            else:
                print(f"warning: skipping symlink: {member.name!r} -> {member.linkname!r}")


async def _run(
    session: Session,
    place: Place,
    container: str,
    command: list[str],
    data: bytes | None,
    output: Callable[[bytes], Awaitable[None]] | None = None,
    quiet: bool = False,
) -> int:
    """Runs a command in the container with ``data`` as its input; its exit code."""
    pod = await pods_client(session).get(place.pod, place.namespace)
    path = pods_client(session).kind.path(place.namespace, place.pod, "exec")
    query = [("command", word) for word in command]
    query += [("container", choose_container(pod, container, quiet=True))]
    query += [("stdin", str(data is not None).lower()), ("stdout", "true"), ("stderr", "true")]
    async with (
        session.client.websocket(path, query=query, protocols=PROTOCOLS) as socket,
        session.world.task_group() as group,
    ):
        sender = group.start(_send(socket, data)) if data is not None else None
        status = await _receive(socket, output, quiet)
        if sender:
            sender.cancel()
    if quiet and status and status.get("status") != "Success":
        return 1
    return exit_code(status)


async def _send(socket: WebSocket, data: bytes) -> None:
    for start in range(0, len(data), CHUNK):
        await socket.send(bytes([STDIN]) + data[start : start + CHUNK])
        await asyncio.sleep(0)
    if socket.protocol == PROTOCOLS[0]:
        await socket.send(bytes([CLOSE, STDIN]))


async def _receive(
    socket: WebSocket, output: Callable[[bytes], Awaitable[None]] | None, quiet: bool
) -> dict[str, Any] | None:
    status: dict[str, Any] | None = None
    while (message := await socket.receive()) is not None:
        channel, content = message[0], message[1:]
        if channel == STDOUT and content and output:
            await output(content)
        elif channel == STDERR and content and not quiet:
            text = content.decode(errors="replace")
            if not text.startswith("tar: removing leading '/'") and not text.startswith("tar: Removing leading `/'"):
                sys.stderr.write(text)
        elif channel == ERROR and content:
            status = json.loads(content)
    return status
