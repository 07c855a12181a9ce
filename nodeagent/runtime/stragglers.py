"""Ends what a killed agent was in the middle of: commands of the OCI runtime, and conmons of containers that it had not
yet noted as running. They would go on, and finish what the next agent believes never happened; so they are ended first.
"""

from __future__ import annotations

import os
import signal
import time
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
    quiet = 0
    while quiet < 2:
        quiet = 0 if _look(root, program, keep) else quiet + 1
        if quiet == 1:
            time.sleep(SETTLE)


def _look(root: Path, program: str, keep: frozenset[str]) -> bool:
    """One look; whether there was anything to end."""
    ours = f"--root={root}".encode()
    waiting: list[int] = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
            if ours not in arguments:
                continue
            kind = os.path.basename(arguments[0]).decode()
            if kind == "conmon":
                if arguments[arguments.index(b"--cid") + 1].decode() in keep:
                    continue
            elif kind != os.path.basename(program):
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
