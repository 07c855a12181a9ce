"""Ends what a killed agent was in the middle of: commands of the OCI runtime, and conmons of containers that it had not
yet noted as running. They would go on, and finish what the next agent believes never happened; so they are ended first.

The same holds for one container whose conmon died while it was made: its runtime goes on, without anybody who waits for it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from navarch.linux import syscalls

PATIENCE = 5.0  # seconds
SETTLE = 0.02  # seconds, many times what a fork needs to become its program


def end(root: Path, program: str, keep: frozenset[str]) -> None:
    """Kills processes of the OCI runtime ``program`` with this state directory, and conmons but for those of containers
    in ``keep``. Returns when they are gone.

    A conmon may start a command while we look at the list of processes, and a process that the killed agent had forked
    may only now become a conmon. So it is looked again until two looks in a row find nothing.
    """

    def ends(arguments: list[bytes]) -> bool:
        kind = os.path.basename(arguments[0]).decode()
        if kind == "conmon":
            return arguments[arguments.index(b"--cid") + 1].decode() not in keep
        return kind == os.path.basename(program)

    _end(root, ends)


def end_one(root: Path, container_id: str) -> None:
    """Kills whatever is about to make a container, its conmon too. Returns when they are gone."""
    _end(root, lambda arguments: container_id.encode() in arguments)


def _end(root: Path, ends: Callable[[list[bytes]], bool]) -> None:
    quiet = 0
    while quiet < 2:
        quiet = 0 if _look(f"--root={root}".encode(), ends) else quiet + 1
        if quiet == 1:
            time.sleep(SETTLE)


def _look(ours: bytes, ends: Callable[[list[bytes]], bool]) -> bool:
    """One look; whether there was anything to end."""
    waiting: list[int] = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
            if ours not in arguments or not ends(arguments):
                continue
            fd = os.pidfd_open(int(name))
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        except (OSError, ValueError):
            continue
        waiting.append(fd)
    for fd in waiting:
        syscalls.wait_any([fd], PATIENCE)
        os.close(fd)
    return bool(waiting)
