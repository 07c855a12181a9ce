"""The runtime protocol: CRI's semantics, in Python.

A sandbox is a pod's network (and shared namespaces); containers live in it. Ids are chosen by the runtime and
outlive the agent: after a restart ``list_sandboxes`` and ``list_containers`` find everything again by labels.
Stop and remove are idempotent: what is gone already is no error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from navarch.api.types import core_v1
from nodeagent.images.credentials import Login
from nodeagent.linux.cgroups import NodeUsage
from nodeagent.linux.diskusage import DiskUse


@dataclass(frozen=True)
class PortMapping:
    container_port: int
    host_port: int
    protocol: str = "TCP"
    host_ip: str = ""


@dataclass(frozen=True)
class Resources:
    """Linux limits. 0 means none."""

    cpu_shares: int = 0
    cpu_quota: int = 0  # microseconds a period
    cpu_period: int = 100_000
    memory_limit: int = 0  # bytes
    pids_limit: int = 0
    oom_score_adj: int = 0


@dataclass(frozen=True)
class SandboxConfig:
    """``attempt`` tells sandboxes of one pod apart. ``hostname`` is what containers see.

    The runtime makes the pod's cgroup, sets ``resources`` on it, and removes it with the pod's last sandbox.
    """

    pod_uid: str
    namespace: str
    name: str
    attempt: int = 0
    hostname: str = ""
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_process_namespace: bool = False
    log_directory: str = ""
    cgroup: str = ""  # path of the pod's cgroup below the node's pod root, such as burstable/pod<uid>
    resources: Resources = Resources()  # limits of the pod as a whole
    port_mappings: tuple[PortMapping, ...] = ()
    sysctls: dict[str, str] = field(default_factory=dict)
    runtime_handler: str = ""  # one of the runtime's handlers
    privileged: bool = False  # whether a container of the pod is
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Mount:
    host_path: str
    container_path: str
    read_only: bool = False
    propagation: str = "None"  # None, HostToContainer, Bidirectional
    executable: bool = True


@dataclass(frozen=True)
class Device:
    """A device node of the host for a container. ``permissions``: letters of r, w and m (mknod)."""

    host_path: str
    container_path: str
    permissions: str = "rwm"


@dataclass(frozen=True)
class ContainerConfig:
    """``security`` and ``pod_security`` are taken as the pod spec has them."""

    name: str
    attempt: int
    image: str  # the image's id, as image() or pull() gave it
    image_name: str = ""  # as the pod asked for it
    command: Sequence[str] = ()  # empty: the image's entrypoint
    args: Sequence[str] = ()  # empty: the image's cmd
    working_dir: str = ""
    env: Sequence[tuple[str, str]] = ()
    mounts: Sequence[Mount] = ()
    devices: Sequence[Device] = ()
    cdi_devices: Sequence[str] = ()  # names such as vendor.com/class=name, resolved by the runtime (Container Device Interface)
    resources: Resources = Resources()
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    log_path: str = ""  # below the sandbox's log_directory
    target: str = ""  # id of a running container whose process namespace this one joins
    security: core_v1.SecurityContext | None = None
    pod_security: core_v1.PodSecurityContext | None = None
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sandbox:
    id: str
    config: SandboxConfig
    ready: bool
    created: float  # Unix seconds
    ip: str = ""  # empty with host_network
    pid_namespace: str = ""


CREATED, RUNNING, EXITED, UNKNOWN = "created", "running", "exited", "unknown"


@dataclass(frozen=True)
class Container:
    """State of a container. ``reason`` is "OOMKilled", "Completed", "Error" or "StartError" (it could not be started:
    exit code 128, and ``message`` says why)."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    image: str  # as the pod asked for it
    image_id: str
    state: str
    created: float
    started: float = 0
    finished: float = 0
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    log_path: str = ""  # absolute
    pid: int = 0
    runtime: str = "oci"  # whose id it is, before :// in statuses
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImagePolicy:
    """When unused images are removed: above ``high`` percent of the disk, down to ``low``; none that was used less than
    ``min_age`` seconds ago; each that was not used for ``max_age`` seconds (0: any time)."""

    high: int = 85
    low: int = 80
    min_age: float = 120.0
    max_age: float = 0.0


@dataclass(frozen=True)
class CollectedImages:
    """Bytes that were to be freed (``target``) and that were; ids of the images that were removed."""

    target: int = 0
    freed: int = 0
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    id: str  # sha256:...
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size: int = 0  # bytes
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    stop_signal: str = ""


@dataclass(frozen=True)
class Event:
    """Something happened to a container or sandbox; look at its state again."""

    kind: str  # "started", "exited", "removed", "sandbox"
    container_id: str
    pod_uid: str


class RuntimeError_(Exception):
    """A runtime operation failed. ``reason`` is a CamelCase word such as CreateContainerError or ErrImagePull."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Process(Protocol):
    """A process in a container with its streams (exec and attach)."""

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    def read(self) -> AsyncIterator[tuple[int, bytes]]:
        """(1, data) for stdout, (2, data) for stderr, until both end."""
        ...

    async def resize(self, width: int, height: int) -> None: ...

    async def wait(self) -> int:
        """The exit code."""
        ...

    async def close(self) -> None: ...


class Runtime(Protocol):
    name: str
    version: str
    handlers: tuple[str, ...]
    """Handlers that RuntimeClasses may name; "" is the handler of pods without a RuntimeClass."""

    async def start(self) -> None:
        """Prepares directories and finds what an earlier agent left running. Called once."""
        ...

    async def close(self) -> None:
        """Lets go; containers keep running."""
        ...

    async def configure(self, pod_cidr: str) -> None:
        """Tells the node's pod range. Before that only sandboxes with ``host_network`` can run (others: reason
        NetworkNotReady). Call it again after every start."""
        ...

    async def run_sandbox(self, config: SandboxConfig) -> str: ...

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kills its containers at once and takes its network down."""
        ...

    async def remove_sandbox(self, sandbox_id: str) -> None: ...

    async def list_sandboxes(self) -> list[Sandbox]: ...

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """Prepares a container. Raises RuntimeError_ with reason CreateContainerError or CreateContainerConfigError."""
        ...

    async def start_container(self, container_id: str) -> None:
        """Starts it once. When it cannot run (no such executable...), RuntimeError_ with reason RunContainerError is
        raised and the container is left exited with reason StartError."""
        ...

    async def stop_container(self, container_id: str, grace: float) -> None:
        """The image's stop signal (TERM), then KILL after ``grace`` seconds. Returns when it is dead."""
        ...

    async def remove_container(self, container_id: str) -> None: ...

    async def list_containers(self, sandbox_id: str | None = None) -> list[Container]: ...

    async def container(self, container_id: str) -> Container | None: ...

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> tuple[int, bytes]:
        """Exit code and output (both streams, at most 16 KiB). Raises TimeoutError after ``timeout`` seconds."""
        ...

    async def exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> Process: ...

    async def attach(self, container_id: str, *, stdin: bool) -> Process: ...

    async def port_forward(self, sandbox_id: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TCP connection to a port of the pod's own localhost. Raises RuntimeError_ (PortForwardError)."""
        ...

    async def reopen_log(self, container_id: str) -> None: ...

    def events(self) -> AsyncIterator[Event]: ...

    async def image(self, reference: str) -> Image | None:
        """The local image of a reference or id, None if it is not here. Raises RuntimeError_ (InvalidImageName)."""
        ...

    async def pull(self, reference: str, logins: Sequence[Login] = ()) -> Image:
        """Fetches an image, with a user name and password if given. Raises RuntimeError_ with reason ErrImagePull
        or InvalidImageName."""
        ...

    async def images(self) -> list[Image]: ...

    async def remove_image(self, image_id: str) -> None:
        """Raises RuntimeError_ with reason ImageInUse while a container stands on it."""
        ...

    async def image_volume(self, pod_uid: str, name: str, image_id: str) -> Path:
        """A folder with the files of an image, read-only, for a volume of a pod; it goes with the pod's last sandbox.
        Raises RuntimeError_."""
        ...

    async def collect_images(self, policy: ImagePolicy) -> CollectedImages:
        """Removes images that no container uses, as the policy says. Raises OSError, RuntimeError_."""
        ...

    async def resize_container(self, container_id: str, resources: Resources) -> None:
        """Changes the limits of a running container. Raises RuntimeError_, as if more memory is in use than allowed."""
        ...

    async def resize_sandbox(self, sandbox_id: str, resources: Resources) -> None:
        """Changes the limits of the pod as a whole. Raises RuntimeError_."""
        ...

    async def layers(self, container_ids: Sequence[str], max_age: float) -> Mapping[str, DiskUse]:
        """The disk usage of containers' writable layers, at most ``max_age`` seconds old where that can be had at a
        bearable cost. Those of which it is not known are absent."""
        ...

    async def usage(self) -> NodeUsage:
        """The resources that the node, its pods and its running containers have used."""
        ...
