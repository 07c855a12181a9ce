"""The cgroups of labs: every process of a lab is in one, so that nothing can be left behind.

    navarch/LAB/control          API server, scheduler, controllers, etcd, supervisor
    navarch/LAB/NODE/sys         a node's init, agent, proxy, conmon
    navarch/LAB/NODE/pods        its pods; the limits that its advertised capacity promises are set here

On a cgroup1 or hybrid host this tree stands in every controller's hierarchy, on a cgroup2 host in the one.
"""

from __future__ import annotations

import contextlib
import os

from navarch.linux.cgroups import Hierarchies, Limits, kill_and_wait

CPU_PERIOD = 100_000  # microseconds


def make(group: str) -> None:
    """Makes the cgroup and its parents in every hierarchy."""
    Hierarchies().make(group)


def join(group: str) -> None:
    """Moves the calling process into the cgroup."""
    Hierarchies().add_process(os.getpid(), group)


def limit(group: str, cpus: float, memory: int) -> None:
    """Binds all processes below: ``cpus`` in cores, ``memory`` in bytes."""
    quota = int(cpus * CPU_PERIOD)
    Hierarchies().set_limits(group, Limits(cpu_quota=quota, cpu_period=CPU_PERIOD, memory_limit=memory))


def processes(group: str) -> list[int]:
    """Pids in the cgroup and below it, in all hierarchies."""
    return Hierarchies().processes(group)


def destroy(group: str) -> list[int]:
    """Kills what is in the cgroup and removes it; returns the pids killed."""
    killed: dict[int, None] = {}
    for _ in range(200):
        pids = [pid for pid in processes(group) if pid != os.getpid()]
        if not pids:
            break
        killed |= dict.fromkeys(pids)
        kill_and_wait(pids, 0.05)
    with contextlib.suppress(OSError):
        Hierarchies().remove_path(group)
    return list(killed)


def remove_if_empty(group: str) -> None:
    for root in Hierarchies().hierarchies():
        with contextlib.suppress(OSError):
            (root / group).rmdir()
