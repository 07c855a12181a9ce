"""A mount namespace for an agent that runs directly on a host.

crun refuses hosts with cgroup version 1 and 2 side by side as long as it can see the latter. There the agent, and
everything it starts, lives in a mount namespace of its own where an empty tmpfs hides that mount (hiding beats
unmounting: crun makes folders at that place). The namespace is pinned to a file, so that the next agent finds the
mounts that this one made for containers that still run. On other hosts, and inside a lab's node (whose namespaces
are made that way already), nothing happens.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from navarch.linux import cgroups, syscalls


def hide_hybrid_mount() -> None:
    """Covers cgroup2 in the current mount namespace, which must be private."""
    place = cgroups.hybrid_mount()
    if place is not None:
        syscalls.mount("tmpfs", place, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC, "size=1m,mode=755")


def enter(pin: Path) -> bool:
    """Joins the pinned namespace, or makes and pins it, if this host needs one. True when it did.

    Call it once, early: only a process without threads can change its mount namespace.
    """
    if cgroups.hybrid_mount() is None:
        return False
    if syscalls.filesystem_type(pin) != syscalls.NSFS_MAGIC:
        _make(pin)
    fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, syscalls.CLONE_NEWNS)
    finally:
        os.close(fd)
    return True


def leave_nothing(pin: Path) -> None:
    """Unpins the namespace (when the node leaves its cluster)."""
    if syscalls.umount(pin):
        pin.unlink()


def _make(pin: Path) -> None:
    """A child makes the namespace; we, still outside, bind it to the file. A pin cannot lie inside what it pins."""
    pin.parent.mkdir(parents=True, exist_ok=True)
    # A mount namespace can only be bound below a mount that does not propagate into it.
    if not os.path.ismount(pin.parent):
        syscalls.mount(pin.parent, pin.parent, None, syscalls.MS_BIND)
    syscalls.mount("none", pin.parent, None, syscalls.MS_PRIVATE)
    pin.touch()
    # The kernel binds only namespaces that are newer than ours, and (6.18) tells that by numbers which each CPU takes
    # from a batch of its own: one made on the CPU that made ours is surely newer.
    cpus = sorted(os.sched_getaffinity(0))
    for cpu in cpus:
        try:
            _make_on(cpu, pin)
            return
        except OSError as error:
            if error.errno != errno.EINVAL or cpu == cpus[-1]:
                raise


def _make_on(cpu: int, pin: Path) -> None:
    ready_read, ready_write = os.pipe()
    done_read, done_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(ready_read)
            os.close(done_write)
            os.sched_setaffinity(0, {cpu})
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
            hide_hybrid_mount()
            os.write(ready_write, b"1")
            os.read(done_read, 1)
            status = 0
        finally:
            os._exit(status)
    os.close(ready_write)
    os.close(done_read)
    try:
        if os.read(ready_read, 1) != b"1":
            raise RuntimeError("cannot make the agent's mount namespace")
        syscalls.mount(f"/proc/{pid}/ns/mnt", pin, None, syscalls.MS_BIND)
    finally:
        os.close(ready_read)
        os.close(done_write)
        os.waitpid(pid, 0)
