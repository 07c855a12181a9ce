"""A throwaway node for tests: namespaces and a cgroup of its own, and functions that run inside.

The test's body runs in a forked child that has entered the namespaces; its failure comes back as text. Afterwards the
node's first process is killed, everything in the namespaces dies with it, and the cgroups are removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from navarch.linux import syscalls
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.hostnamespace import hide_hybrid_mount

_NAMESPACES = (
    syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC
)


class Node:
    """``init`` is the pid of the first process, as seen from here."""

    def __init__(self, name: str, unified: bool = False) -> None:
        self.name, self.unified = name, unified
        self.cgroups = Cgroups(f"/{name}")
        self.cgroups.prepare(join=False)
        read, write = os.pipe()
        middle = os.fork()
        if middle == 0:
            try:
                self.cgroups.add_process(os.getpid(), f"/{name}/sys")
                syscalls.unshare(_NAMESPACES)
                first = os.fork()
                if first == 0:
                    self._become_init(write)
                os.write(write, f"{first}\n".encode())
                os._exit(0)
            finally:
                os._exit(1)
        os.close(write)
        with os.fdopen(read) as file:
            lines = file.read().split()  # ends when the init has let go of the pipe by exec
        os.waitpid(middle, 0)
        assert "ready" in lines, f"the node did not start: {lines}"
        self.init = int(next(line for line in lines if line != "ready"))
        self._pidfd = os.pidfd_open(self.init)

    def _become_init(self, write: int) -> None:
        try:
            os.setsid()
            syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
            if self.unified:  # as on a host that has only cgroup2
                syscalls.mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
            hide_hybrid_mount()
            syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
            syscalls.mount("run", "/run", "tmpfs", 0, "mode=755")
            syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SHARED)
            syscalls.sethostname(self.name)
            os.write(write, b"ready\n")
            os.execvp("catatonit", ["catatonit", "-P"])
        finally:
            os._exit(1)

    def run(self, function: Callable[[], None], timeout: float = 60.0) -> None:
        """Runs ``function`` inside. AssertionError with its traceback if it fails."""
        read, write = os.pipe()
        outer = os.fork()
        if outer == 0:
            status = 1
            try:
                os.close(read)
                self.cgroups.add_process(os.getpid(), f"/{self.name}/sys")
                syscalls.setns(self._pidfd, _NAMESPACES)
                inner = os.fork()
                if inner == 0:
                    try:
                        function()
                        status = 0
                    except BaseException:
                        os.write(write, traceback.format_exc().encode())
                    os._exit(status)
                _, result = os.waitpid(inner, 0)
                if os.WIFSIGNALED(result):
                    os.write(write, f"killed by signal {os.WTERMSIG(result)}".encode())
                status = 0 if result == 0 else 1
            finally:
                os._exit(status)
        os.close(write)
        os.set_blocking(read, False)
        text = b""
        end = time.monotonic() + timeout
        with os.fdopen(read, "rb") as file:
            while True:
                done, result = os.waitpid(outer, os.WNOHANG)
                text += file.read() or b""
                if done:
                    break
                if time.monotonic() > end:
                    os.kill(outer, signal.SIGKILL)
                    os.waitpid(outer, 0)
                    raise AssertionError(f"not done after {timeout} s: {text.decode()}")
                time.sleep(0.01)
            text += file.read() or b""
        if result != 0:
            raise AssertionError("inside the node:\n" + text.decode(errors="replace"))

    def power_off(self) -> None:
        """Kills everything and removes the cgroups; fails if something is left."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        os.close(self._pidfd)
        end = time.monotonic() + 10
        while not self.cgroups.remove_path(self.cgroups.root):
            self.cgroups.kill(self.cgroups.root)
            assert time.monotonic() < end, f"left in the node: {self.cgroups.processes(self.cgroups.root)}"
            time.sleep(0.005)


@contextlib.contextmanager
def throwaway_node(unified: bool = False) -> Iterator[Node]:
    node = Node(f"navarch-test-{os.getpid()}-{time.monotonic_ns()}", unified)
    try:
        yield node
    finally:
        node.power_off()


def left_overs() -> list[str]:
    """What tests must not leave on the machine: cgroups, veths and mounts of ours."""
    found = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/navarch-test-{os.getpid()}-*")]
    found += [name for name in os.listdir("/sys/class/net") if re.fullmatch("nv[0-9a-f]{12}", name)]
    with open("/proc/self/mounts") as file:
        found += [line.split()[1] for line in file if "/sandboxes/" in line or "/rootfs " in line]
    return found
