"""A sandbox's namespaces without a process: a thread leaves ours for new ones and pins them to files.

Network, IPC and UTS namespaces live as long as a file is bound to them. (The process tree of a pod that shares it
needs a process, since a PID namespace dies with its first one: that is the pause container, see oci.py.)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from navarch.linux import syscalls
from nodeagent.network.network import PodNetwork, configure_inside
from nodeagent.node import sysctls
from nodeagent.runtime.runtime import SandboxConfig

T = TypeVar("T")

NETWORK, IPC, UTS = "network", "ipc", "uts"
_FLAGS = {NETWORK: syscalls.CLONE_NEWNET, IPC: syscalls.CLONE_NEWIPC, UTS: syscalls.CLONE_NEWUTS}
_FILES = {NETWORK: "net", IPC: "ipc", UTS: "uts"}
SHM_SIZE = 64 << 20
# Sysctls of the IPC namespace; those of the network namespace all begin with net.


def own_namespaces(config: SandboxConfig) -> list[str]:
    """Which namespaces the sandbox has for itself."""
    kinds = [] if config.host_network else [NETWORK, UTS]
    return kinds if config.host_ipc else [*kinds, IPC]


def in_new_thread(function: Callable[[], T]) -> T:
    """Runs ``function`` in a thread of its own, whose namespaces nobody else inherits, and waits for it."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body, name="sandbox")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def create(directory: Path, sandbox_id: str, config: SandboxConfig, network: PodNetwork | None, address: str) -> None:
    """Makes the namespaces, the network and /dev/shm of a sandbox. Anything left after a failure ``destroy`` takes."""
    kinds = own_namespaces(config)

    def make() -> None:
        flags = 0
        for kind in kinds:
            flags |= _FLAGS[kind]
        syscalls.unshare(flags)
        for kind in kinds:
            pin = directory / kind
            pin.touch()
            syscalls.mount(f"/proc/thread-self/ns/{_FILES[kind]}", pin, None, syscalls.MS_BIND)
        if UTS in kinds and config.hostname:
            syscalls.sethostname(config.hostname)
        if network is not None:
            # The peer is born inside, from outside; what it needs there is set from here.
            attach(network)
            configure_inside(sandbox_id, address)
        for name, value in sorted(config.sysctls.items()):
            _sysctl(name, value, kinds)

    def attach(network: PodNetwork) -> None:
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            network.attach(sandbox_id, fd, address)
        finally:
            os.close(fd)

    if kinds:
        in_new_thread(make)
    if IPC in kinds:
        shm = directory / "shm"
        shm.mkdir(exist_ok=True)
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("shm", shm, "tmpfs", flags, f"mode=1777,size={SHM_SIZE}")


def _sysctl(name: str, value: str, kinds: list[str]) -> None:
    where = sysctls.namespace_of(sysctls.normalized(name))
    allowed = (where == "net" and NETWORK in kinds) or (where == "ipc" and IPC in kinds)
    path = sysctls.file_of(name)
    if not allowed or ".." in path.split("/"):
        raise ValueError(f'sysctl "{name}" is not allowed: it is not of a namespace of the pod')
    with open(f"/proc/sys/{path}", "w") as file:
        file.write(value)


def destroy(directory: Path) -> None:
    """Lets go of the namespaces and the shared memory. Not an error if they are gone."""
    for name in (*_FLAGS, "shm"):
        syscalls.umount(directory / name)


def alive(directory: Path, config: SandboxConfig) -> bool:
    """Whether all the sandbox's namespaces are still pinned."""
    return all(syscalls.filesystem_type(directory / kind) == syscalls.NSFS_MAGIC for kind in own_namespaces(config))
