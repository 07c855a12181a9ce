"""``navarch port-forward``: local ports that lead into a pod, through the API server, over one SPDY connection."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cli.errors import CommandError
from cli.options import App, Argument, Option
from cli.podselection import liveliest, one_pod, pods_client
from cli.session import Session, Tree
from cli.targets import Query, find
from cli.verb import Where, verb

if TYPE_CHECKING:
    from navarch.client.spdy.connection import Connection, Stream

app = App()
CHUNK = 32 * 1024


class Forward(NamedTuple):
    """``local`` 0 takes a free port."""

    local: int
    remote: int


@verb(app, "port-forward")
def port_forward(
    where: Where,
    target: Annotated[str, Argument("POD | TYPE/NAME")],
    ports: Annotated[list[str], Argument("[LOCAL:]REMOTE...")],
    address: Annotated[
        str, Option("--address", help="Where to listen: addresses, comma-separated.")
    ] = "localhost",
) -> None:
    """Forward local ports to a pod: navarch port-forward svc/web 8080:80."""

    async def main(session: Session) -> None:
        query = Query([target], default_type="pods")
        objects = await find(session, query)
        query.failures.raise_any()
        pod = await one_pod(session, objects[0], liveliest)
        phase = (pod.get("status") or {}).get("phase")
        if phase != "Running":
            raise CommandError(f"unable to forward port because pod is not running. Current status={phase}")
        service = objects[0].tree if objects[0].resource.full == "services" else None
        forwards = [parse(text, pod, service) for text in ports]
        await _serve(session, pod, forwards, _addresses(address))

    where.run(main)


def parse(text: str, pod: Tree, service: Tree | None) -> Forward:
    """``80``, ``8080:80``, ``:80``, ``:http``; a service's ports are turned into its pod's. Raises CommandError."""
    local, colon, remote = text.rpartition(":")
    number = _remote(remote, pod, service)
    if not colon:
        local = remote if remote.isdigit() else str(number)
    if local and not (local.isdigit() and int(local) < 65536):
        raise CommandError(f"error parsing local port '{local}'")
    return Forward(int(local or 0), number)


def _remote(word: str, pod: Tree, service: Tree | None) -> int:
    if service is not None:
        for port in service["spec"].get("ports") or ():
            if word in (str(port["port"]), port.get("name")):
                word = str(port.get("targetPort") or port["port"])
                break
        else:
            name = service["metadata"]["name"]
            raise CommandError(f"Service {name} does not have a service port {word}")
    if word.isdigit() and 0 < int(word) < 65536:
        return int(word)
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if port.get("name") == word:
                return int(port["containerPort"])
    raise CommandError(f"Pod '{pod['metadata']['name']}' does not have a named port '{word}'")


def _addresses(text: str) -> list[str]:
    out: list[str] = []
    for word in text.split(","):
        out += ["127.0.0.1", "::1"] if word == "localhost" else [word]
    return out


async def _serve(session: Session, pod: Tree, forwards: list[Forward], addresses: list[str]) -> None:
    """Listens until the connection to the pod is lost. Raises CommandError."""
    from navarch.client.https import HTTPSTransport
    from navarch.client.spdy.connection import Connection

    transport = session.client.transport
    assert isinstance(transport, HTTPSTransport)
    path = pods_client(session).kind.path(pod["metadata"]["namespace"], pod["metadata"]["name"], "portforward")
    version = {"X-Stream-Protocol-Version": "portforward.k8s.io"}
    servers: list[asyncio.Server] = []
    async with transport.upgrade("POST", path, protocol="SPDY/3.1", headers=version) as upgraded:
        connection = Connection(upgraded.reader, upgraded.writer, client=True)
        numbers = itertools.count()
        try:
            async with session.world.task_group() as group:
                group.start(connection.run()).add_done_callback(lambda _: group.cancel())
                for forward in forwards:
                    servers += await _listen(session, connection, forward, addresses, numbers)
        finally:
            for server in servers:
                server.close()
    raise CommandError("lost connection to pod")


async def _listen(
    session: Session, connection: Connection, forward: Forward, addresses: list[str], numbers: Any
) -> list[asyncio.Server]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        print(f"Handling connection for {local}", flush=True)
        try:
            await _forward(session, connection, forward.remote, str(next(numbers)), reader, writer)
        finally:
            writer.close()

    servers: list[asyncio.Server] = []
    local, failed = forward.local, ""
    for address in addresses:
        try:
            server = await asyncio.start_server(handle, address, local)
        except OSError as error:
            failed = f"unable to listen on any of the requested ports: {forward.local}: {error.strerror or error}"
            continue
        local = local or server.sockets[0].getsockname()[1]
        servers.append(server)
        shown = f"[{address}]" if ":" in address else address
        print(f"Forwarding from {shown}:{local} -> {forward.remote}", flush=True)
    if not servers:
        raise CommandError(failed)
    return servers


async def _forward(
    session: Session,
    connection: Connection,
    port: int,
    number: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """One connection: a stream for its data, and one for what goes wrong."""
    about = {"port": str(port), "requestID": number}
    with contextlib.suppress(ConnectionError):
        error = await connection.open({"streamType": "error", **about})
        await error.end()
        data = await connection.open({"streamType": "data", **about})
        try:
            async with session.world.task_group() as group:
                group.start(_up(reader, data))
                group.start(_down(data, writer)).add_done_callback(lambda _: group.cancel())
        finally:
            await data.reset()
        if wrong := await error.read():
            print(f"error: an error occurred forwarding {port}: {wrong.decode(errors='replace')}", file=sys.stderr)


async def _up(reader: asyncio.StreamReader, data: Stream) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(CHUNK):
            await data.write(piece)
        await data.end()


async def _down(data: Stream, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await data.read():
            writer.write(piece)
            await writer.drain()
