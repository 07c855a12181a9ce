"""The agent's side of our CNI plugin: it gives sandboxes that a CRI runtime makes the same network as our own.

The runtime runs the plugin (plugin.py) for each sandbox that comes and goes; the plugin passes on what it was told, one
JSON line over a unix socket, and gets one back. So addresses are given out in one place, the agent, as with the oci runtime,
and a call costs no more than the start of a small program.

A record a sandbox says what it has. It is written before the network is made and removed after it was taken down, so what a
crash leaves is found by comparing the records with the runtime's sandboxes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import msgspec

from navarch.linux import syscalls
from nodeagent.network.hostports import HostPortError, HostPorts
from nodeagent.network.network import NoAddress, PodNetwork, configure_inside
from nodeagent.runtime.runtime import PortMapping
from nodeagent.runtime.sandboxes import in_new_thread

log = logging.getLogger(__name__)


class Attachment(msgspec.Struct, frozen=True):
    """The network of one sandbox."""

    address: str
    ports: tuple[PortMapping, ...] = ()


class Request(msgspec.Struct, frozen=True):
    """A call of the plugin: CNI's command, container id, path of the network namespace, and host ports."""

    command: str
    container: str
    namespace: str = ""
    ports: tuple[PortMapping, ...] = ()


class NetworkError(Exception):
    """The network cannot be made; the text says why."""


class SandboxNetworks:
    """Networks of sandboxes by id. All methods but ``serve`` block; never two at a time for one sandbox."""

    def __init__(self, folder: Path, network: PodNetwork) -> None:
        self._folder, self._network, self._ports = folder, network, HostPorts()
        self._records: dict[str, Attachment] = {}
        self._decode = msgspec.json.Decoder(Attachment).decode

    def load(self, alive: Iterable[str]) -> None:
        """After a restart: takes the addresses of sandboxes that are there, and takes down what others left."""
        self._folder.mkdir(parents=True, exist_ok=True)
        there = frozenset(alive)
        for path in sorted(self._folder.glob("*.json")):
            record = self._records[path.stem] = self._decode(path.read_bytes())
            self._network.pool.reserve([record.address])
            if path.stem not in there:
                self.detach(path.stem)

    def answer(self, request: Request) -> dict[str, Any]:
        """Does what a call of the plugin asks for. Raises NetworkError."""
        if request.command == "ADD":
            return {"address": self.attach(request)}
        if request.command == "DEL":
            self.detach(request.container)
            return {}
        if request.command == "CHECK":
            record = self._records.get(request.container)
            if record is None:
                raise NetworkError(f"sandbox {request.container} has no network")
            return {"address": record.address}
        raise NetworkError(f"CNI command {request.command} is not known")

    def attach(self, request: Request) -> str:
        """Gives a network namespace its network; the address. Raises NetworkError."""
        if not request.container.isalnum():
            raise NetworkError(f"{request.container!r} is no sandbox id")
        self.detach(request.container)  # the rest of a call that was cut short
        try:
            address = self._network.take_address()
        except NoAddress as error:
            raise NetworkError(str(error)) from error
        record = self._records[request.container] = Attachment(address, request.ports)
        syscalls.write_atomic(self._path(request.container), msgspec.json.encode(record))
        try:
            self._make(request, record)
        except (OSError, HostPortError, RuntimeError) as error:
            self.detach(request.container)
            raise NetworkError(str(error)) from error
        return address

    def _make(self, request: Request, record: Attachment) -> None:
        fd = os.open(request.namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._network.attach(request.container, fd, record.address)

            def inside() -> None:
                syscalls.setns(fd, syscalls.CLONE_NEWNET)
                configure_inside(request.container, record.address)

            in_new_thread(inside)
        finally:
            os.close(fd)
        self._ports.add(record.address, record.ports)

    def detach(self, sandbox_id: str) -> None:
        """Takes a sandbox's network down. Not an error if it has none."""
        record = self._records.get(sandbox_id)
        if record is None:
            return
        self._ports.remove(record.address, record.ports)
        self._network.detach(sandbox_id, record.address)
        self._path(sandbox_id).unlink(missing_ok=True)
        del self._records[sandbox_id]

    def _path(self, sandbox_id: str) -> Path:
        return self._folder / f"{sandbox_id}.json"


async def serve(
    socket: Path, networks: SandboxNetworks, call: Callable[..., Coroutine[Any, Any, Any]]
) -> asyncio.AbstractServer:
    """Answers plugins at the socket; ``call`` runs blocking work in a thread."""
    decode = msgspec.json.Decoder(Request).decode

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = decode(await reader.readline())
            try:
                answer = await call(networks.answer, request)
            except (NetworkError, OSError) as error:
                answer = {"error": str(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("CNI plugin: %s", error)
        finally:
            writer.close()

    with contextlib.suppress(FileNotFoundError):
        socket.unlink()
    server = await asyncio.start_unix_server(one, str(socket))
    socket.chmod(0o600)
    return server
