"""The cgroups of labs: every process of a lab is in one, so that nothing can be left behind.

    navarch/LAB/control          API server, scheduler, controllers, etcd, supervisor
    navarch/LAB/NODE/sys         a node's init, agent, proxy, conmon
    navarch/LAB/NODE/pods        its pods; the limits that its advertised capacity promises are set here

On a cgroup1 or hybrid host this tree stands in every controller's hierarchy, on a cgroup2 host in the one.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from lab.namespaces import ProcessId

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")
UNIFIED_CONTROLLERS = "+cpu +cpuset +memory +pids +io"


def is_unified() -> bool:
    return (ROOT / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """The mount points that hold our tree."""
    if is_unified():
        return [ROOT]
    mounts: dict[Path, None] = {}
    for controller in CONTROLLERS:
        if (ROOT / controller / "cgroup.procs").exists():
            mounts[(ROOT / controller).resolve()] = None
    return list(mounts)


def make(group: str) -> None:
    """Makes the cgroup and its parents in every hierarchy."""
    for root in hierarchies():
        path = root
        for part in group.split("/"):
            parent, path = path, path / part
            path.mkdir(exist_ok=True)
            if is_unified():
                with contextlib.suppress(OSError):  # a controller that the host does not delegate
                    (parent / "cgroup.subtree_control").write_text(UNIFIED_CONTROLLERS)
            elif (path / "cpuset.cpus").exists():
                for file in ("cpuset.cpus", "cpuset.mems"):
                    if not (path / file).read_text().strip():
                        (path / file).write_text((parent / file).read_text())


def join(group: str) -> None:
    """Moves the calling process into the cgroup."""
    for root in hierarchies():
        (root / group / "cgroup.procs").write_text(str(os.getpid()))


def limit(group: str, cpus: float, memory: int) -> None:
    """Binds all processes below: ``cpus`` in cores, ``memory`` in bytes."""
    quota = int(cpus * 100_000)
    for root in hierarchies():
        path = root / group
        if is_unified():
            (path / "cpu.max").write_text(f"{quota} 100000")
            (path / "memory.max").write_text(str(memory))
            continue
        if (path / "memory.use_hierarchy").exists() and (path / "memory.use_hierarchy").read_text().strip() == "0":
            (path / "memory.use_hierarchy").write_text("1")
        if (path / "cpu.cfs_quota_us").exists():
            (path / "cpu.cfs_quota_us").write_text(str(quota))
        if (path / "memory.limit_in_bytes").exists():
            (path / "memory.limit_in_bytes").write_text(str(memory))


def processes(group: str) -> list[int]:
    """Pids in the cgroup and below it, in all hierarchies."""
    pids: dict[int, None] = {}
    for root in hierarchies():
        top = root / group
        for file in [top / "cgroup.procs", *top.rglob("cgroup.procs")]:
            with contextlib.suppress(OSError):
                pids |= dict.fromkeys(int(line) for line in file.read_text().split())
    return list(pids)


def destroy(group: str) -> list[int]:
    """Kills what is in the cgroup and removes it; returns the pids killed."""
    killed: dict[int, None] = {}
    for _ in range(200):
        pids = [p for p in processes(group) if p and p != os.getpid()]
        if not pids:
            break
        for pid in pids:
            killed[pid] = None
            process = ProcessId.of(pid)
            process.kill(signal.SIGKILL)
            process.wait_gone(0.05)
    for root in hierarchies():
        for path, _, _ in os.walk(root / group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)
    return list(killed)


def remove_if_empty(group: str) -> None:
    for root in hierarchies():
        with contextlib.suppress(OSError):
            (root / group).rmdir()
