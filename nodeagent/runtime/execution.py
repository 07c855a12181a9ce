"""Starts ``crun exec`` and ends what it started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

from nodeagent.runtime.conmon import Crun, read_pid
from nodeagent.runtime.process import ExecProcess, receive_terminal

# What a shell says of a command that it finds but cannot run: the OCI runtime's own 255 could be the command's.
CANNOT_RUN = 126


def kill_tree(pid: int) -> None:
    """Kills a process and its descendants, youngest last found first."""
    if pid <= 0:
        return
    pids = [pid]
    for parent in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as file:
                    pids.extend(int(child) for child in file.read().split())
    for process in reversed(pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def start_exec(crun: Crun, container_id: str, prefix: Path, stdin: bool, tty: bool, merge: bool = False) -> ExecProcess:
    """Runs the process that ``prefix``.json describes in a container. Files beside it belong to this exec alone.

    With ``merge`` both output streams come as stdout, in the order they were written.
    """
    pid_file = prefix.with_suffix(".pid")
    line = crun.arguments("exec", "--process", str(prefix.with_suffix(".json")), "--pid-file", str(pid_file))

    def remove_files() -> None:
        for suffix in (".json", ".pid", ".tty"):
            prefix.with_suffix(suffix).unlink(missing_ok=True)

    def kill() -> None:
        kill_tree(read_pid(pid_file))

    def exit_code(code: int) -> int:
        started = pid_file.exists()
        remove_files()
        return code if started or code != 255 else CANNOT_RUN

    listener: socket.socket | None = None
    child: subprocess.Popen[bytes] | None = None
    try:
        if tty:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            listener.bind(str(prefix.with_suffix(".tty")))
            listener.listen(1)
            line += ["--tty", "--console-socket", str(prefix.with_suffix(".tty"))]
        null = subprocess.DEVNULL
        child = subprocess.Popen(
            [*line, container_id],
            stdin=subprocess.PIPE if stdin and not tty else null,
            stdout=null if tty else subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.PIPE,
            bufsize=0,
        )
        master = None
        if listener is not None:
            master = receive_terminal(listener, child)
        return ExecProcess(child, master, kill, exit_code)
    except BaseException:
        if child is not None:
            kill()
            child.kill()
            child.wait()
        remove_files()
        raise
    finally:
        if listener is not None:
            listener.close()
