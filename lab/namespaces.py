"""Linux namespaces: making, entering, and telling processes apart for sure. Real world only.

The lab's own network namespace is made and deleted in networknamespace.py, those of a node in nodenamespaces.py.

``setns`` into a mount namespace wants a process with one thread, so everything here happens in a fresh fork.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lab.paths import LabError
from navarch.linux.syscalls import CLONE_NEWNS, setns, signal_process, start_time


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class ProcessId:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    start: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        return cls(pid, start_time(pid), boot_id())

    @classmethod
    def load(cls, data: dict[str, Any] | None) -> ProcessId | None:
        return cls(data["pid"], data["start"], data["boot"]) if data else None

    def dump(self) -> dict[str, Any]:
        return {"pid": self.pid, "start": self.start, "boot": self.boot}

    def open(self) -> int | None:
        """A pidfd, or None if the process is gone (a zombie counts as gone)."""
        if self.boot != boot_id():
            return None
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if start_time(self.pid) != self.start or select.select([fd], [], [], 0)[0]:
            os.close(fd)
            return None
        return fd

    def booted_here(self) -> bool:
        """Whether it was started since the machine was."""
        return self.boot == boot_id()

    def alive(self) -> bool:
        fd = self.open()
        if fd is None:
            return False
        os.close(fd)
        return True

    def enterable(self) -> bool:
        """Alive and not about to end. The init of a PID namespace outlasts its namespaces until all in it have ended."""
        try:
            os.readlink(f"/proc/{self.pid}/root")
        except OSError:
            return False
        return self.alive()

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Sends a signal; False if the process is gone."""
        return self.boot == boot_id() and signal_process(self.pid, self.start, number)

    def wait_gone(self, timeout: float) -> bool:
        """Waits until the process has ended, at most ``timeout`` seconds."""
        fd = self.open()
        if fd is None:
            return True
        try:
            return bool(select.select([fd], [], [], timeout)[0])
        finally:
            os.close(fd)

    def enter(self, flags: int) -> None:
        """Moves the calling (single-threaded) process into the namespaces of this one. PID applies to children."""
        fd = self.open()
        if fd is None:
            raise LabError("the node is not running")
        root = os.open(f"/proc/{self.pid}/root", os.O_PATH) if flags & CLONE_NEWNS else -1
        try:
            setns(fd, flags)
            if root >= 0:
                # A mount namespace has its own idea of "/": where we run in a chroot, the process's root is not that.
                os.fchdir(root)
                os.chroot(".")
        finally:
            os.close(fd)
            if root >= 0:
                os.close(root)


def in_child(function: Callable[[], Any]) -> Any:
    """Calls the function in a forked child and returns its JSON-able result; its error becomes a LabError here."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _answer(function, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    _, status = os.waitpid(pid, 0)
    if not data:
        raise LabError(f"a helper process died ({os.waitstatus_to_exitcode(status)})")
    answer = json.loads(data)
    if "error" in answer:
        raise LabError(answer["error"])
    return answer["result"]


def _answer(function: Callable[[], Any], writer: int) -> NoReturn:
    try:
        answer = {"result": function()}
    except BaseException as error:
        if not isinstance(error, LabError):
            traceback.print_exc(file=sys.stderr)
        answer = {"error": str(error) or type(error).__name__}
    with os.fdopen(writer, "wb") as file:
        file.write(json.dumps(answer).encode())
    os._exit(0)
