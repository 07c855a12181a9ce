"""The input of the pod's state machine: pure data about one pod on this node.

Everything here is found out by the worker (from the runtime, the probers, its own failed attempts) and handed to
:mod:`nodeagent.pods.machine` and :mod:`nodeagent.pods.podstatus`, which do no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from navarch.api.pods import is_sidecar
from navarch.api.types import core_v1
from nodeagent.runtime.runtime import CREATED, EXITED, Container, Sandbox

AnyContainer = core_v1.Container | core_v1.EphemeralContainer

# Labels that the agent puts on sandboxes and containers; after a restart it finds its pods again by them.
POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
CONTAINER_HASH = "io.kubernetes.container.hash"
IMAGE_NAME = "io.kubernetes.container.image"  # annotation: the image as the pod asked for it


@dataclass(frozen=True)
class ProbeView:
    """Results of the probes of one running container; None where no such probe is defined or none has answered yet."""

    started: bool | None = None
    ready: bool | None = None
    failed: str = ""  # "Liveness" or "Startup" once that probe has failed for good


@dataclass(frozen=True)
class Waiting:
    """Why a container is not running although it should be, and when (Unix seconds) to try again."""

    reason: str
    message: str
    retry_at: float = 0.0


@dataclass(frozen=True)
class Observed:
    """One pod as the node sees it. ``starting`` names containers whose start is under way."""

    sandboxes: Sequence[Sandbox] = ()
    containers: Sequence[Container] = ()
    probes: Mapping[str, ProbeView] = field(default_factory=dict)  # by container id
    hooked: frozenset[str] = frozenset()  # ids of containers whose postStart is still running
    messages: Mapping[str, str] = field(default_factory=dict)  # container id -> termination message
    host_ip: str = ""
    is_gone: bool = False  # the API server has no such pod any more

    @property
    def sandbox(self) -> Sandbox | None:
        """The newest sandbox, ready or not."""
        return max(self.sandboxes, key=lambda s: (s.config.attempt, s.created), default=None)

    def of(self, name: str) -> list[Container]:
        """The containers of one name, newest first."""
        return sorted((c for c in self.containers if c.name == name), key=lambda c: (-c.attempt, -c.created))

    def latest(self, name: str) -> Container | None:
        return next(iter(self.of(name)), None)

    @property
    def alive(self) -> list[Container]:
        return [c for c in self.containers if c.state not in (EXITED, CREATED)]


class Role(NamedTuple):
    """A container of the spec and its part in the pod."""

    container: AnyContainer
    kind: str  # "init", "sidecar" (restartable init), "main", "ephemeral"


def roles(spec: core_v1.PodSpec) -> Iterator[Role]:
    """Every container in the order of starting."""
    for container in spec.init_containers or ():
        yield Role(container, "sidecar" if is_sidecar(container) else "init")
    for container in spec.containers:
        yield Role(container, "main")
    for ephemeral in spec.ephemeral_containers or ():
        yield Role(ephemeral, "ephemeral")


def pod_key(pod: core_v1.Pod) -> str:
    """How kubelet's messages name a pod: ``name_namespace(uid)``."""
    return f"{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})"


def duration(seconds: float) -> str:
    """A duration as Go prints it: ``10s``, ``1m20s``, ``5m0s``, ``1.5s``, ``12ms``."""
    if seconds == 0:
        return "0s"
    if abs(seconds) < 1:
        return f"{seconds * 1000:.3f}".rstrip("0").rstrip(".") + "ms"
    minutes, rest = divmod(seconds, 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    if not minutes:
        return text
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + f"{minutes}m" + text
