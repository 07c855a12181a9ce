"""The oci runtime's records of sandboxes and containers: one small file each, below the node's /run.

A record is written before what it describes is made, so after a crash at any point ``remove`` finds what to clean. A
file, once written, changes by rename only. Power loss takes /run, and with it all that the records describe.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from navarch.linux import syscalls
from nodeagent.runtime.runtime import Container, ContainerConfig, Resources, SandboxConfig

MOUNTS = ("rootfs", "network", "ipc", "uts", "shm")  # what may be mounted in a sandbox's or container's folder


class SandboxRecord(msgspec.Struct):
    """A sandbox. ``ip`` is taken as long as the record exists and ``stopped`` is false."""

    id: str
    config: SandboxConfig
    created: float
    ip: str = ""
    ready: bool = False  # everything was set up
    stopped: bool = False
    pause_pid: int = 0  # only with a shared pid namespace
    pause_start: int = 0


class ContainerRecord(msgspec.Struct):
    """A container. Pids are paired with start times, which makes them unambiguous."""

    id: str
    sandbox_id: str
    config: ContainerConfig
    image: str
    image_id: str
    created: float
    log_path: str
    cgroup: str
    stop_signal: int = 15
    own_pid_namespace: bool = True
    state: str = "created"
    started: float = 0
    finished: float = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    pid: int = 0
    pid_start: int = 0
    monitor: int = 0
    monitor_start: int = 0

    def public(self) -> Container:
        """The protocol's view of it."""
        return Container(
            id=self.id,
            sandbox_id=self.sandbox_id,
            name=self.config.name,
            attempt=self.config.attempt,
            image=self.image,
            image_id=self.image_id,
            state=self.state,
            created=self.created,
            started=self.started,
            finished=self.finished,
            exit_code=self.exit_code,
            reason=self.reason,
            message=self.message,
            log_path=self.log_path,
            pid=self.pid if self.state == "running" else 0,
            labels=self.config.labels,
            annotations=self.config.annotations,
        )


class Directories:
    """Where things are. ``state`` must lie on a file system that a power loss clears; ``data`` need not. Writable layers
    are below ``data``, or below ``state`` if ``diskless``."""

    def __init__(self, state: Path, data: Path, diskless: bool = False) -> None:
        self.state, self.data = state, data
        self.sandboxes = state / "sandboxes"
        self.containers = state / "containers"
        self.exits = state / "exits"
        self.persist = state / "conmon"
        self.crun = state / "crun"
        self.programs = state / "bin"
        self.uppers = (state / "writable" if diskless else data) / "containers"

    def make(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        for path in (self.sandboxes, self.containers, self.exits, self.persist, self.crun, self.uppers):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o700)  # environments have secrets, root file systems have set-user-id programs

    def bundle(self, container_id: str) -> Path:
        return self.containers / container_id

    def sandbox(self, sandbox_id: str) -> Path:
        return self.sandboxes / sandbox_id


_encoder = msgspec.json.Encoder()
_sandboxes = msgspec.json.Decoder(SandboxRecord)
_containers = msgspec.json.Decoder(ContainerRecord)


def save_sandbox(directories: Directories, record: SandboxRecord) -> None:
    syscalls.write_atomic(directories.sandbox(record.id) / "record.json", _encoder.encode(record))


def save_container(directories: Directories, record: ContainerRecord) -> None:
    syscalls.write_atomic(directories.bundle(record.id) / "record.json", _encoder.encode(record))


def load_sandboxes(directories: Directories) -> list[SandboxRecord]:
    return [_sandboxes.decode(raw) for raw in _read_all(directories.sandboxes)]


def load_containers(directories: Directories) -> list[ContainerRecord]:
    return [_containers.decode(raw) for raw in _read_all(directories.containers)]


def _read_all(directory: Path) -> list[bytes]:
    """Records below a directory. A folder without one is the rest of a removal cut short: it goes away."""
    records = []
    for path in sorted(directory.iterdir()):
        try:
            records.append((path / "record.json").read_bytes())
        except FileNotFoundError:
            for name in MOUNTS:
                syscalls.umount(path / name)
            shutil.rmtree(path, ignore_errors=True)
    return records


__all__ = ["ContainerRecord", "Directories", "Resources", "SandboxRecord"]
