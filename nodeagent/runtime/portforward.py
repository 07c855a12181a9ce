"""Connections to a pod's localhost, from the agent: a socket belongs to the network namespace that it was made in.

So only the making of the socket happens inside, in a thread of its own; all else is ordinary asyncio.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from navarch.linux import syscalls
from nodeagent.runtime.runtime import RuntimeError_
from nodeagent.runtime.sandboxes import in_new_thread

BUFFER = 256 * 1024
TIMEOUT = 30.0
_HOSTS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def make_sockets(namespace: Path | None) -> list[socket.socket]:
    """One socket a family that the kernel has, of that network namespace (None: our own)."""

    def make() -> list[socket.socket]:
        if namespace is not None:
            fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                syscalls.setns(fd, syscalls.CLONE_NEWNET)
            finally:
                os.close(fd)
        sockets = []
        for family, _ in _HOSTS:
            try:
                sockets.append(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC))
            except OSError:
                continue  # no IPv6 here
        return sockets

    return in_new_thread(make) if namespace is not None else make()


async def connect(
    call: Callable[..., Coroutine[Any, Any, list[socket.socket]]], namespace: Path | None, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects to localhost:PORT in the namespace, by IPv4 or else IPv6. ``call`` runs blocking work in a thread.

    Raises RuntimeError_ (PortForwardError).
    """
    try:
        sockets = await call(make_sockets, namespace)
    except OSError as error:
        raise RuntimeError_("PortForwardError", f"failed to enter the pod's network: {error}") from error
    loop = asyncio.get_running_loop()
    failures: list[str] = []
    try:
        for one in list(sockets):
            kind, host = ("tcp4", "127.0.0.1") if one.family == socket.AF_INET else ("tcp6", "[::1]")
            try:
                async with asyncio.timeout(TIMEOUT):
                    await loop.sock_connect(one, (host.strip("[]"), port))
            except OSError as error:  # TimeoutError is one
                reason = os.strerror(error.errno).lower() if error.errno else "i/o timeout"
                failures.append(f"dial {kind} {host}:{port}: connect: {reason}")
                continue
            sockets.remove(one)
            return await asyncio.open_connection(sock=one, limit=BUFFER)
    finally:
        for one in sockets:
            one.close()
    raise RuntimeError_("PortForwardError", f"failed to connect to localhost:{port} inside the pod: {'; '.join(failures)}")
