"""Control groups, version 1 (also in "hybrid" hosts) and version 2, behind one small class.

A node owns one cgroup, the *root*, in every hierarchy. Below it are ``sys`` (agent, proxy, supervisors) and ``pods``;
limits on the root or on ``pods`` therefore bind all pods of the node. The OCI runtime makes the containers' own
leaves and sets their limits; it does not set those of the cgroups above, and it does not copy cpuset on version 1:
both are done here. Paths given to methods are relative to ``pods``, such as ``burstable/pod<uid>``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import NamedTuple

from navarch.linux import syscalls

MIN_SHARES = 2
MIN_PIDS = 1024  # of a node's pods
UNLIMITED = 1 << 62  # what version 1 shows where there is no limit is above this


@dataclass(frozen=True)
class Limits:
    """Limits of one cgroup; 0 means none."""

    cpu_shares: int = 0
    cpu_quota: int = 0  # microseconds a period
    cpu_period: int = 100_000
    memory_limit: int = 0  # bytes
    pids_limit: int = 0


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


def _mounts() -> tuple[dict[str, Path], Path | None]:
    """Version 1 controllers -> mount point, and the mount point of version 2. The last mount of a place counts."""
    places: dict[str, tuple[str, list[str]]] = {}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            kind, _, rest = right.partition(" ")
            place = left.split()[4]
            if kind in ("cgroup", "cgroup2"):
                places[place] = (kind, rest.split()[-1].split(","))
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for place, (kind, options) in places.items():
        if syscalls.filesystem_type(place) != (syscalls.CGROUP2_MAGIC if kind == "cgroup2" else syscalls.CGROUP_MAGIC):
            continue  # something is mounted over it
        if kind == "cgroup2":
            v2 = v2 or Path(place)
            continue
        for option in options:
            if option == "name=systemd" or option in (
                "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls",
                "net_prio", "perf_event", "rdma", "misc",
            ):  # fmt: skip
                v1.setdefault(option, Path(place))
    return v1, v2


def machine_pids() -> int:
    """How many processes and threads the machine can have."""
    return min(int(Path(f"/proc/sys/kernel/{name}").read_text()) for name in ("pid_max", "threads-max"))


def hybrid_mount() -> Path | None:
    """Where cgroup2 is mounted beside version 1 controllers: crun refuses to work while it sees that."""
    place = Path("/sys/fs/cgroup/unified")
    return place if syscalls.filesystem_type(place) == syscalls.CGROUP2_MAGIC else None


def own_cgroup() -> str:
    """The cgroup this process is in (of the memory controller, or the only one)."""
    paths: dict[str, str] = {}
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            for controller in controllers.split(","):
                paths[controller] = path
    return paths.get("memory", paths.get("", "/"))


class Cgroups:
    """The cgroups of one node. ``root`` is an absolute cgroup path such as ``/navarch/lab/node-1``."""

    def __init__(self, root: str) -> None:
        self.root = "/" + root.strip("/")
        self.v1, v2 = _mounts()
        self.unified = not self.v1
        if self.unified and v2 is None:
            raise RuntimeError("no cgroup hierarchy is mounted")
        self.v2 = v2 or Path("/sys/fs/cgroup")

    # -- paths

    def path(self, relative: str) -> str:
        """The cgroup path, as the OCI runtime wants it, of a path below ``pods``."""
        return f"{self.root}/pods/{relative.strip('/')}".rstrip("/")

    def _hierarchies(self) -> Iterator[Path]:
        """Mount points, each once (several controllers may share one)."""
        if self.unified:
            yield self.v2
        else:
            yield from dict.fromkeys(self.v1.values())

    def _directory(self, controller: str, cgroup: str) -> Path | None:
        mount = self.v2 if self.unified else self.v1.get(controller)
        return None if mount is None else mount / cgroup.lstrip("/")

    # -- making and removing

    def prepare(self, join: bool = True, max_pids: int = 0) -> None:
        """Makes the root with ``sys`` and ``pods``; with ``join`` moves this process into ``sys``.

        Pods that asked for nothing share the least weight, however many they are. All pods together may have ``max_pids``
        processes and threads (0: half of what the machine can have), so that they never leave the machine without.
        """
        self._make(f"{self.root}/sys")
        if join:
            self.add_process(os.getpid(), f"{self.root}/sys")
        self._make(f"{self.root}/pods")
        with contextlib.suppress(OSError):  # no pids controller
            self.set_limits(f"{self.root}/pods", Limits(pids_limit=max_pids or max(MIN_PIDS, machine_pids() // 2)))
        with contextlib.suppress(OSError):  # no cpu controller
            self.ensure("besteffort", Limits(cpu_shares=MIN_SHARES))

    def add_process(self, pid: int, cgroup: str) -> None:
        """Moves a process (all its threads) into an absolute cgroup path in every hierarchy."""
        for mount in self._hierarchies():
            (mount / cgroup.lstrip("/") / "cgroup.procs").write_text(str(pid))

    def ensure(self, relative: str, limits: Limits = Limits()) -> str:
        """Makes a cgroup below ``pods`` (or finds it), sets its limits, and returns its absolute cgroup path."""
        cgroup = self.path(relative)
        self._make(cgroup)
        self.set_limits(cgroup, limits)
        return cgroup

    def _make(self, cgroup: str) -> None:
        parts = cgroup.strip("/").split("/")
        for mount in self._hierarchies():
            directory = mount
            cpuset = self.v1.get("cpuset") == mount
            for part in parts:
                if self.unified:
                    self._delegate(directory)
                parent, directory = directory, directory / part
                try:
                    directory.mkdir()
                except FileExistsError:
                    continue
                if cpuset:  # an empty cpuset takes no processes
                    for name in ("cpuset.cpus", "cpuset.mems"):
                        if not (directory / name).read_text().strip():
                            (directory / name).write_text((parent / name).read_text())

    @staticmethod
    def _delegate(directory: Path) -> None:
        """Hands every controller down, so that children can have limits (version 2 only)."""
        offered = set((directory / "cgroup.controllers").read_text().split())
        control = directory / "cgroup.subtree_control"
        for controller in sorted(offered - set(control.read_text().split())):
            with contextlib.suppress(OSError):  # EBUSY: the directory has processes of its own, as the host's root may
                control.write_text(f"+{controller}")

    def set_limits(self, cgroup: str, limits: Limits) -> None:
        """Sets the limits that are not 0 on an absolute cgroup path."""
        if self.unified:
            directory = self.v2 / cgroup.lstrip("/")
            if limits.cpu_shares:
                shares = max(MIN_SHARES, min(limits.cpu_shares, 262144))
                _write(directory / "cpu.weight", 1 + (shares - 2) * 9999 // 262142)
            if limits.cpu_quota:
                _write(directory / "cpu.max", f"{limits.cpu_quota} {limits.cpu_period}")
            if limits.memory_limit:
                _write(directory / "memory.max", limits.memory_limit)
            if limits.pids_limit and (directory / "pids.max").exists():  # not every host hands this controller down
                _write(directory / "pids.max", limits.pids_limit)
            return
        for controller, name, value in (
            ("cpu", "cpu.shares", limits.cpu_shares and max(MIN_SHARES, limits.cpu_shares)),
            ("cpu", "cpu.cfs_period_us", limits.cpu_quota and limits.cpu_period),
            ("cpu", "cpu.cfs_quota_us", limits.cpu_quota),
            ("memory", "memory.limit_in_bytes", limits.memory_limit),
            ("pids", "pids.max", limits.pids_limit),
        ):
            place = self._directory(controller, cgroup)
            if value and place is not None:
                _write(place / name, value)

    def change_limits(self, cgroup: str, limits: Limits) -> None:
        """As :meth:`set_limits`, for a cgroup in use: memory with swap may never be less than memory."""
        place = self._directory("memory", cgroup)
        both = place / "memory.memsw.limit_in_bytes" if place and not self.unified else None
        if place and both and limits.memory_limit and both.exists() and int(both.read_text()) < UNLIMITED:
            names = [both, place / "memory.limit_in_bytes"]
            if limits.memory_limit < int(names[1].read_text()):
                names.reverse()
            for name in names:
                _write(name, limits.memory_limit)
        self.set_limits(cgroup, limits)

    def limits_swap(self) -> bool:
        """Whether the kernel can limit swap per cgroup."""
        if self.unified:
            return (self.v2 / self.root.lstrip("/") / "memory.swap.max").exists()
        place = self._directory("memory", self.root)
        return place is not None and (place / "memory.memsw.limit_in_bytes").exists()

    def processes(self, cgroup: str) -> list[int]:
        """Pids in an absolute cgroup path and everything below it."""
        pids: dict[int, None] = {}
        for mount in self._hierarchies():
            for directory, _, _ in os.walk(mount / cgroup.lstrip("/")):
                with contextlib.suppress(OSError), open(f"{directory}/cgroup.procs") as file:
                    for line in file:
                        pids[int(line)] = None
        pids.pop(0, None)  # processes of a pid namespace above ours
        return list(pids)

    def kill(self, cgroup: str, number: int = signal.SIGKILL) -> bool:
        """Signals every process in and below a cgroup path. False when there was none."""
        killer = self.v2 / cgroup.lstrip("/") / "cgroup.kill"
        if self.unified and number == signal.SIGKILL and killer.exists():
            pids = self.processes(cgroup)
            _write(killer, 1)
            return bool(pids)
        pids = self.processes(cgroup)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(pids)

    def end(self, cgroup: str, timeout: float = 5.0) -> bool:
        """Kills all processes in and below an absolute cgroup path and removes it. False if that did not succeed."""
        for _ in range(int(timeout / 0.01)):
            if self.remove_path(cgroup):
                return True
            fds = []
            for pid in self.processes(cgroup):
                with contextlib.suppress(OSError):
                    fds.append(os.pidfd_open(pid))
                    signal.pidfd_send_signal(fds[-1], signal.SIGKILL)
            syscalls.wait_any(fds, 0.01)  # until one is gone; version 1 does not tell when all are
            for fd in fds:
                os.close(fd)
        return False

    def remove(self, relative: str) -> bool:
        """Removes a cgroup below ``pods`` with everything below it. False while a process is still in it."""
        return self.remove_path(self.path(relative))

    def remove_path(self, cgroup: str) -> bool:
        """The same for an absolute cgroup path."""
        is_gone = True
        mounts = list(self._hierarchies())
        if not self.unified:
            # crun makes folders in the place where a hybrid host mounts cgroup2, although that is hidden from it.
            mounts.append(Path("/sys/fs/cgroup/unified"))
        for mount in mounts:
            top = mount / cgroup.lstrip("/")
            plain = mount.name == "unified" and syscalls.filesystem_type(mount) != syscalls.CGROUP2_MAGIC
            for directory, _, files in os.walk(top, topdown=False):
                try:
                    if plain:
                        for name in files:
                            os.unlink(f"{directory}/{name}")
                    os.rmdir(directory)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                        raise
                    is_gone = False
        return is_gone

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
                accounting = self._directory("cpuacct", cgroup)
                directory_ = self._directory("memory", cgroup)
                cpu = int((accounting / "cpuacct.usage").read_text()) / 1e9 if accounting else 0.0
                memory, stat, prefix, anonymous = 0, {}, "total_", "rss"
                if directory_:
                    memory = int((directory_ / "memory.usage_in_bytes").read_text())
                    stat = _keyed(directory_ / "memory.stat")
            place = self._directory("pids", cgroup)
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
            place = self._directory("memory", cgroup)
            return _keyed(place / "memory.oom_control").get("oom_kill", 0) if place else 0
        except OSError:
            return 0


def _write(path: Path, value: int | str) -> None:
    path.write_text(str(value))


def _keyed(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
