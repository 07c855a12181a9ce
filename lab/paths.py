"""Where a lab keeps its things, and the small file that remembers what the lab is.

Everything of a lab is under ``$NAVARCH_HOME/labs/NAME`` (0700; ~/.navarch if the variable is not set); images are
shared by all labs of one home. What does not outlive a reboot is told apart by the boot id.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LAB_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?")


class LabError(Exception):
    """Something that a person can understand and mend went wrong; the text says what to do."""


MIN_ROOM = 32 << 20  # bytes on the home's disk without which nothing is started
DEFAULT_HOME = Path.home() / ".navarch"


def home() -> Path:
    return Path(os.environ.get("NAVARCH_HOME") or DEFAULT_HOME).absolute()


def private_directory(path: Path) -> Path:
    """Makes the directory, and those above it that are missing, readable for their owner only."""
    if not path.is_dir():
        private_directory(path.parent)
        path.mkdir(exist_ok=True, mode=0o700)
    return path


def write_private(path: Path, data: bytes | str) -> None:
    """Writes a file of mode 0600 in one step: readers see the old text or the new."""
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
    except OSError as error:
        temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from None
    temporary.rename(path)


def free_bytes(path: Path) -> int:
    """Room on the path's disk for us."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


class LabPaths:
    """The files of one lab."""

    def __init__(self, name: str) -> None:
        if not LAB_NAME.fullmatch(name):
            raise LabError(
                f'"{name}" is no lab name: use up to 22 of a-z, 0-9 and "-", starting and ending with a letter or digit'
            )
        self.name = name
        self.root = home() / "labs" / name
        # What the machine knows the lab by (cgroups, network namespace): labs of several homes may have one name.
        other = "" if home() == DEFAULT_HOME else "-" + hashlib.sha256(str(home()).encode()).hexdigest()[:6]
        self.id = name + other
        self.pki = self.root / "pki"
        self.logs = self.root / "logs"
        self.run = self.root / "run"
        self.etcd = self.root / "etcd"
        self.nodes = self.root / "nodes"
        self.images = home() / "images"
        self.volumes = self.root / "volumes"
        self.config = self.root / "lab.json"
        self.kubeconfig = self.root / "kubeconfig"
        self.database = self.root / "navarch.db"
        self.hollow = self.root / "hollow.json"
        self.hollow_socket = self.run / "hollow.sock"
        self.socket = self.run / "supervisor.sock"
        self.gateway_socket = self.run / "gateway.sock"
        self.registry = self.root / "registry"
        self.registries = self.root / "registries.conf"  # the lab's own; the home's counts before it
        self.resolv_conf = self.root / "resolv.conf"  # of nodes that have a way out
        self.processes = self.run / "processes.json"
        self.lock = self.root / "lock"

    def make(self) -> None:
        """Makes the lab's folders. Raises LabError if there is no room for a lab."""
        private_directory(self.root)
        for shared in (self.root.parent, private_directory(self.images)):
            shared.chmod(0o700)  # the home itself may be a folder that others use, too
        room = free_bytes(self.root)
        if room < MIN_ROOM:
            need = f"{room >> 20} MiB free; a lab needs {MIN_ROOM >> 20}"
            raise LabError(f"{home()} is on a disk that is full ({need}): make room")
        for path in (self.root, self.pki, self.logs, self.run, self.nodes, self.images):
            private_directory(path)

    def component_kubeconfig(self, component: str) -> Path:
        return self.pki / f"{component}.kubeconfig"


def list_labs() -> list[str]:
    """Names of the labs of this home that have a configuration."""
    root = home() / "labs"
    return sorted(p.parent.name for p in root.glob("*/lab.json")) if root.exists() else []


@dataclass
class NodeRecord:
    """A node that the lab has: ``number`` fixes its address and pod range; ``init`` identifies its running PID 1."""

    name: str
    number: int
    cpu: str = ""
    memory: str = ""
    init: dict[str, Any] | None = None
    partitioned: bool = False
    stopped: bool = False  # by `node stop`: `up` leaves it off
    booted: float = 0.0  # when it was last switched on, Unix seconds
    pods: int = 0  # how many it takes; 0: as usual
    storage: str = ""  # its ephemeral storage; "": the disk's
    labels: dict[str, str] = field(default_factory=dict)  # that it registers with
    taints: list[str] = field(default_factory=list)  # the same: KEY=VALUE:EFFECT


@dataclass
class LabRecord:
    """The content of lab.json."""

    name: str
    index: int  # the second byte of the lab's addresses
    port: int  # of the API server
    store: str
    settings: dict[str, str] = field(default_factory=dict)  # component.flag -> value
    failover: str = ""
    listen: list[str] = field(default_factory=list)  # where the API server listens beside the lab's own addresses
    names: list[str] = field(default_factory=list)  # further names in its certificate
    nodes: list[NodeRecord] = field(default_factory=list)
    next_number: int = 1
    egress: bool = True  # whether nodes and pods may reach what the machine reaches, as `up --egress` says
    way_out: bool = False  # whether they do since the last `up`: the machine may forbid it
    registry: int = 0  # the port of the lab's image registry on loopback and on the lab's network; 0: it has none
    ingress: bool = False  # whether nodes have an ingress controller
    custom_metrics: int = 0  # the loopback port of the adapter for custom and external metrics; 0: there is none
    vpa: int = 0  # the loopback port of the VerticalPodAutoscaler's webhook; 0: there is none
    gateway: bool = False  # whether nodes have a controller of the Gateway API
    runtime: str = "oci"  # what runs containers on real nodes; see lab/containerd.py

    @classmethod
    def load(cls, path: Path) -> LabRecord | None:
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        data["nodes"] = [NodeRecord(**n) for n in data["nodes"]]
        return cls(**data)

    def save(self, path: Path) -> None:
        write_private(path, json.dumps(asdict(self), indent=1))

    def node(self, name: str) -> NodeRecord:
        for node in self.nodes:
            if node.name == name:
                return node
        names = ", ".join(n.name for n in self.nodes) or "none"
        raise LabError(f'lab "{self.name}" has no node "{name}" (nodes: {names})')
