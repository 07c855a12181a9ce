"""The cgroups of one node: where its pods are, their requests and limits, and their usage.

A node owns one cgroup, the *root*, in every hierarchy. Below it are ``sys`` (agent, proxy, supervisors) and ``pods``;
limits on the root or on ``pods`` therefore bind all pods of the node. The OCI runtime makes the containers' own
leaves and sets their limits; it does not set those of the cgroups above, and it does not copy cpuset on version 1:
both are done here. Paths given to methods are relative to ``pods``, such as ``burstable/pod<uid>``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import NamedTuple

from navarch.linux.cgroups import MIN_SHARES, Hierarchies, Limits

MIN_PIDS = 1024  # of a node's pods


@dataclass(frozen=True)
class Usage:
    """Resource usage of a cgroup: CPU seconds since it exists, memory in bytes, processes, page faults since it exists.

    The working set is what is used but for file pages that nobody has touched for a while, as kubelet counts it.
    """

    cpu: float = 0.0
    working_set: int = 0
    memory: int = 0
    pids: int = 0
    rss: int = 0
    faults: int = 0
    major_faults: int = 0

    @staticmethod
    def total(parts: Iterable[Usage]) -> Usage:
        """All of them together."""
        listed = [astuple(part) for part in parts]
        return Usage(*(sum(column) for column in zip(*listed, strict=True))) if listed else Usage()


class NodeUsage(NamedTuple):
    """A reading of all counters of a node: as a whole, by pod uid, by container id. What is not counted is absent."""

    node: Usage | None
    pods: Mapping[str, Usage]
    containers: Mapping[str, Usage]


def machine_pids() -> int:
    """How many processes and threads the machine can have."""
    return min(int(Path(f"/proc/sys/kernel/{name}").read_text()) for name in ("pid_max", "threads-max"))


def max_pids(setting: int) -> int:
    """How many processes and threads all pods of a node may have; ``setting`` 0: half of what the machine can have."""
    return setting or max(MIN_PIDS, machine_pids() // 2)


def own_cgroup() -> str:
    """The cgroup this process is in (of the memory controller, or the only one)."""
    paths: dict[str, str] = {}
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            for controller in controllers.split(","):
                paths[controller] = path
    return paths.get("memory", paths.get("", "/"))


class Cgroups(Hierarchies):
    """The cgroups of one node. ``root`` is an absolute cgroup path such as ``/navarch/lab/node-1``."""

    def __init__(self, root: str) -> None:
        self.root = "/" + root.strip("/")
        super().__init__()

    # -- paths

    def path(self, relative: str) -> str:
        """The cgroup path, as the OCI runtime wants it, of a path below ``pods``."""
        return f"{self.root}/pods/{relative.strip('/')}".rstrip("/")

    # -- making and removing

    def prepare(self, join: bool = True, setting: int = 0) -> None:
        """Makes the root with ``sys`` and ``pods``; with ``join`` moves this process into ``sys``.

        Pods that asked for nothing share the least weight, however many they are. ``setting`` bounds the processes of all
        pods together (see :func:`max_pids`), so that they never leave the machine without.
        """
        self.make(f"{self.root}/sys")
        if join:
            self.add_process(os.getpid(), f"{self.root}/sys")
        self.make(f"{self.root}/pods")
        with contextlib.suppress(OSError):  # no pids controller
            self.set_limits(f"{self.root}/pods", Limits(pids_limit=max_pids(setting)))
        with contextlib.suppress(OSError):  # no cpu controller
            self.ensure("besteffort", Limits(cpu_shares=MIN_SHARES))

    def ensure(self, relative: str, limits: Limits | None = None) -> str:
        """Makes a cgroup below ``pods`` (or finds it), sets its limits, and returns its absolute cgroup path."""
        cgroup = self.path(relative)
        self.make(cgroup)
        self.set_limits(cgroup, limits or Limits())
        return cgroup

    def limits_swap(self) -> bool:
        """Whether the kernel can limit swap per cgroup."""
        if self.unified:
            return (self.v2 / self.root.lstrip("/") / "memory.swap.max").exists()
        place = self.directory("memory", self.root)
        return place is not None and (place / "memory.memsw.limit_in_bytes").exists()

    def remove(self, relative: str) -> bool:
        """Removes a cgroup below ``pods`` with everything below it. False while a process is still in it."""
        return self.remove_path(self.path(relative))

    # -- reading

    def usage(self, cgroup: str) -> Usage | None:
        """Usage of an absolute cgroup path, None when it is gone."""
        try:
            if self.unified:
                directory = self.v2 / cgroup.lstrip("/")
                cpu = _keyed(directory / "cpu.stat").get("usage_usec", 0) / 1e6
                memory = int((directory / "memory.current").read_text())
                stat, prefix, anonymous = _keyed(directory / "memory.stat"), "", "anon"
            else:
                accounting = self.directory("cpuacct", cgroup)
                directory_ = self.directory("memory", cgroup)
                cpu = int((accounting / "cpuacct.usage").read_text()) / 1e9 if accounting else 0.0
                memory, stat, prefix, anonymous = 0, {}, "total_", "rss"
                if directory_:
                    memory = int((directory_ / "memory.usage_in_bytes").read_text())
                    stat = _keyed(directory_ / "memory.stat")
            place = self.directory("pids", cgroup)
            pids = int((place / "pids.current").read_text()) if place else 0
        except OSError:
            return None

        def counted(name: str) -> int:
            return stat.get(prefix + name, 0)

        working_set = max(0, memory - counted("inactive_file"))
        return Usage(cpu, working_set, memory, pids, counted(anonymous), counted("pgfault"), counted("pgmajfault"))

    def oom_kills(self, cgroup: str) -> int:
        """How many processes the kernel killed in this cgroup for lack of memory (read it before removing it)."""
        try:
            if self.unified:
                return _keyed(self.v2 / cgroup.lstrip("/") / "memory.events").get("oom_kill", 0)
            place = self.directory("memory", cgroup)
            return _keyed(place / "memory.oom_control").get("oom_kill", 0) if place else 0
        except OSError:
            return 0


def _keyed(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
