"""A lab node's body: network, mount, PID, UTS and IPC namespaces around a tiny init, and cgroups that bound it.

Killing the init is the node's power loss: everything inside is dead and its mounts and network are gone. What the node
keeps on disk (under the lab's ``nodes/NAME``) stays, as a disk would; its /run is a tmpfs and does not.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import NoReturn

from lab import cgroups
from lab.namespaces import ProcessId, in_child
from lab.paths import LabError
from navarch.linux.syscalls import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MS_BIND,
    MS_MOVE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    mount,
    pivot_root,
    sethostname,
    umount,
    unshare,
)

ALL_NAMESPACES = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWIPC
NODE_RUN = "/run/navarch"  # inside the node


def group(lab: str, node: str) -> str:
    """The node's cgroup; components are in its ``sys``, pods in its ``pods``."""
    return f"navarch/{lab}/{node}"


def power_on(lab: str, name: str, cpus: float, memory: int) -> ProcessId:
    """Starts the node's init in new namespaces and returns it. ``memory`` in bytes."""
    init = shutil.which("catatonit")
    if init is None:
        raise LabError("catatonit is not installed; run deploy/setup")
    own = group(lab, name)
    cgroups.make(f"{own}/sys")
    cgroups.make(f"{own}/pods")
    cgroups.limit(f"{own}/pods", cpus, memory)
    return ProcessId.of(in_child(lambda: _start(own, name, init)))


def _start(own: str, name: str, init: str) -> int:
    cgroups.join(f"{own}/sys")
    unshare(ALL_NAMESPACES)
    reader, writer = os.pipe()
    pid = os.fork()  # the number is the outer one (our own PID namespace stays); our /proc will soon be the node's
    if pid == 0:
        _become_init(name, init, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        failure = file.read().decode()  # ends when exec closes the pipe
    if failure:
        raise LabError(f"node {name}: {failure}")
    return pid


def _become_init(name: str, init: str, writer: int) -> NoReturn:
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.set_inheritable(writer, False)
        os.closerange(3, writer)
        os.closerange(writer + 1, 4096)
        prepare_mounts()
        sethostname(name)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execv(init, [init, "-P"])
    except BaseException as error:
        os.write(writer, str(error).encode())
    os._exit(1)


def leave_chroot() -> None:
    """Where we run in a chroot, makes its directory the true root of this (private) mount namespace.

    Containers are made with pivot_root, which in a chroot would leave their namespace's root where it was: whoever
    enters a container later (exec) would stand in the machine's root instead of the container's.
    """
    own = os.open("/", os.O_PATH)
    # A process whose working directory is outside its root can climb to the top: stand here, root somewhere below.
    os.chroot("/proc")
    os.fchdir(own)
    while not os.path.samefile(".", ".."):
        os.chdir("..")
    os.chroot(".")
    path = os.readlink(f"/proc/self/fd/{own}")
    os.close(own)
    if path == "/":
        return
    mount(path, path, flags=MS_BIND | MS_REC)
    os.chdir(path)
    pivot_root(".", ".")
    umount(".")  # what is on top here is the old root
    os.chdir("/")


def prepare_mounts() -> None:
    """Makes the calling process's fresh mount namespace that of a node: own /proc, /sys and /run; nothing leaks in or out.

    Within the node mounts are shared, as on every machine with systemd: containers see or make them by their mountPropagation.
    """
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    leave_chroot()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target = line.split()[4].replace("\\040", " ")
        # Pinned network namespaces of other labs would outlive them if our copy of the mount stayed.
        if target.startswith("/run/netns/"):
            with contextlib.suppress(OSError):
                umount(target)
        # crun refuses to run beside a cgroup2 mount on a hybrid host. Hidden, not unmounted: crun makes folders there,
        # which would land in the host's own tmpfs below that mount.
        if target == "/sys/fs/cgroup/unified":
            mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=1m,mode=755")
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    keep = "/run/cgroup"
    os.mkdir(keep)
    mount("/sys/fs/cgroup", keep, flags=MS_BIND | MS_REC)
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)  # shows this network namespace's links
    mount(keep, "/sys/fs/cgroup", flags=MS_MOVE)
    os.rmdir(keep)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.makedirs(NODE_RUN, 0o700)
    mount("none", "/", flags=MS_REC | MS_SHARED)  # last: what is below a shared mount cannot be moved


def power_off(lab: str, name: str, init: ProcessId | None) -> None:
    """Power loss: kills everything on the node at once and removes its cgroups."""
    if init is not None:
        init.kill()
        init.wait_gone(5)
    cgroups.destroy(group(lab, name))
