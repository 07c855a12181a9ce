"""Control groups, version 1 (also in "hybrid" hosts) and version 2, behind one small class.

The lab keeps its processes in them, the node agent its pods (nodeagent/linux/cgroups.py). Paths are absolute cgroup paths
such as ``/navarch/lab/node-1``; each stands in every hierarchy that is mounted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from navarch.linux import syscalls

MIN_SHARES = 2
UNLIMITED = 1 << 62  # what version 1 shows where there is no limit is above this


@dataclass(frozen=True)
class Limits:
    """Limits of one cgroup; 0 means none."""

    cpu_shares: int = 0
    cpu_quota: int = 0  # microseconds a period
    cpu_period: int = 100_000
    memory_limit: int = 0  # bytes
    pids_limit: int = 0


def mounts() -> tuple[dict[str, Path], Path | None]:
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


def hybrid_mount() -> Path | None:
    """Where cgroup2 is mounted beside version 1 controllers: crun refuses to work while it sees that."""
    place = Path("/sys/fs/cgroup/unified")
    return place if syscalls.filesystem_type(place) == syscalls.CGROUP2_MAGIC else None


class Hierarchies:
    """The hierarchies that are mounted, as this process sees them. ``v1``: mount points by controller."""

    def __init__(self) -> None:
        self.v1, v2 = mounts()
        self.unified = not self.v1
        if self.unified and v2 is None:
            raise RuntimeError("no cgroup hierarchy is mounted")
        self.v2 = v2 or Path("/sys/fs/cgroup")

    def hierarchies(self) -> Iterator[Path]:
        """Mount points, each once (several controllers may share one)."""
        if self.unified:
            yield self.v2
        else:
            yield from dict.fromkeys(self.v1.values())

    def directory(self, controller: str, cgroup: str) -> Path | None:
        mount = self.v2 if self.unified else self.v1.get(controller)
        return None if mount is None else mount / cgroup.lstrip("/")

    def add_process(self, pid: int, cgroup: str) -> None:
        """Moves a process (all its threads) into an absolute cgroup path in every hierarchy."""
        for mount in self.hierarchies():
            (mount / cgroup.lstrip("/") / "cgroup.procs").write_text(str(pid))

    def make(self, cgroup: str) -> None:
        """Makes a cgroup, if it is not there, with its parents, so that processes can be in it and limits hold below it."""
        parts = cgroup.strip("/").split("/")
        for mount in self.hierarchies():
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
                inherits = directory / "memory.use_hierarchy"  # version 1 before Linux 5.11: else a limit ends here
                if inherits.exists() and inherits.read_text().strip() == "0":
                    inherits.write_text("1")

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
            place = self.directory(controller, cgroup)
            if value and place is not None:
                _write(place / name, value)

    def change_limits(self, cgroup: str, limits: Limits) -> None:
        """As :meth:`set_limits`, for a cgroup in use: memory with swap may never be less than memory."""
        place = self.directory("memory", cgroup)
        both = place / "memory.memsw.limit_in_bytes" if place and not self.unified else None
        if place and both and limits.memory_limit and both.exists() and int(both.read_text()) < UNLIMITED:
            names = [both, place / "memory.limit_in_bytes"]
            if limits.memory_limit < int(names[1].read_text()):
                names.reverse()
            for name in names:
                _write(name, limits.memory_limit)
        self.set_limits(cgroup, limits)

    def processes(self, cgroup: str) -> list[int]:
        """Pids in an absolute cgroup path and everything below it."""
        pids: dict[int, None] = {}
        for mount in self.hierarchies():
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
            kill_and_wait(self.processes(cgroup), 0.01)
        return False

    def remove_path(self, cgroup: str) -> bool:
        """Removes a cgroup with everything below it. False while a process is still in it."""
        is_gone = True
        mounts = list(self.hierarchies())
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


def kill_and_wait(pids: Iterable[int], timeout: float) -> None:
    """Kills processes and waits until the first is gone (version 1 does not tell when all are), at most ``timeout`` seconds."""
    fds = []
    for pid in pids:
        with contextlib.suppress(OSError):
            fds.append(os.pidfd_open(pid))
            signal.pidfd_send_signal(fds[-1], signal.SIGKILL)
    syscalls.wait_any(fds, timeout)
    for fd in fds:
        os.close(fd)


def _write(path: Path, value: int | str) -> None:
    path.write_text(str(value))
