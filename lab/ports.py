"""The API server's port: taken by listening on it, and kept while the server is started again.

Who listens owns a port of this machine, whichever user, home or namespace of files it belongs to. So `up` takes the port by
listening, leaves the socket to the supervisor, and the supervisor to each API server that it starts. In between nobody else can
get it: a client of this lab never meets another lab's server. Clients that connect meanwhile wait in the socket's queue; if the
server fails to start again and again they are sent away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable

from lab.paths import LabError

BACKLOG = 1024
RANGE = 10  # ports of a lab
FIRST_REGISTRY_PORT = 5000  # the lab's number is added
FIRST_ADAPTER_PORT, FIRST_VPA_PORT = 5400, 5600  # the same
FIRST_PORT, LAST_PORT = 6443, 9999  # below what the kernel gives to clients


def listen(address: str) -> socket.socket:
    """A socket that listens on HOST:PORT. Raises OSError that says on what."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    out = socket.socket(family, socket.SOCK_STREAM)
    try:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "[::]")  # that one is all of IPv4, too
        out.bind((host.strip("[]"), int(port)))
        out.listen(BACKLOG)
        out.setblocking(False)
    except OSError as error:
        out.close()
        raise OSError(error.errno, f"cannot listen on {address}: {os.strerror(error.errno or 0)}") from None
    return out


def place(host: str, port: int) -> str:
    """HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def take_port(hosts: list[str], preferred: int) -> tuple[int, list[socket.socket]]:
    """A port that is free on all addresses, the preferred one if it can be, with sockets that listen there.

    Raises LabError if an address is not this machine's or all ports are taken.
    """
    for port in [*range(preferred, LAST_PORT + 1), *range(FIRST_PORT, preferred)]:
        sockets: list[socket.socket] = []
        try:
            for host in hosts:
                sockets.append(listen(place(host, port)))
        except OSError as error:
            for each in sockets:
                each.close()
            if error.errno == errno.EADDRINUSE:
                continue
            raise LabError(str(error.strerror)) from error
        return port, sockets
    raise LabError("no free TCP port for the API server")


def free_port(host: str, preferred: int, last: int) -> int:
    """The first port from the preferred one on where nobody listens. Raises LabError."""
    for port in range(preferred, last + 1):
        with contextlib.suppress(OSError):
            listen(place(host, port)).close()
            return port
    raise LabError(f"no free TCP port from {preferred} to {last}")


class OpenSockets:
    """The sockets that the supervisor holds for its components, by component and address."""

    def __init__(self, handed_over: Iterable[socket.socket] = ()) -> None:
        self._spare = {_address(s): s for s in handed_over}
        self._open: dict[str, dict[str, socket.socket]] = {}

    def of(self, component: str, addresses: list[str]) -> list[socket.socket]:
        """The component's sockets, opened if they are not yet; those that it does not want any more are closed.
        Raises OSError."""
        mine = self._open.setdefault(component, {})
        for unused in [a for a in mine if a not in addresses]:
            mine.pop(unused).close()
        for address in addresses:
            if address not in mine:
                spare = self._spare.pop(address) if address in self._spare else None
                mine[address] = spare or listen(address)
        return [mine[a] for a in addresses]

    def of_component(self, component: str) -> list[socket.socket]:
        return list(self._open.get(component, {}).values())

    def close(self, component: str) -> None:
        for each in self._open.pop(component, {}).values():
            each.close()


def _address(listener: socket.socket) -> str:
    return place(*listener.getsockname()[:2])


def turn_away(listener: socket.socket) -> None:
    """Ends the connections that wait: at once and without data, so that the client sees that nobody is there."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
