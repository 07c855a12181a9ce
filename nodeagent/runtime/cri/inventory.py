"""Sandboxes and containers as the cri runtime knows them. Pure."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import NamedTuple

from nodeagent.runtime.runtime import Container, Sandbox


class Streams(NamedTuple):
    """How a container's streams were made."""

    tty: bool = False
    once: bool = False  # the end of the first client's input is the end of the container's


def use_key(sandbox_id: str, name: str, attempt: int) -> str:
    """The name under which the image store notes that a container uses an image; known before the container has an id."""
    return f"{sandbox_id}-{name}-{attempt}"


@dataclass
class Inventory:
    """Sandboxes and containers by id. ``stopped``: sandboxes that have no network any more."""

    sandboxes: dict[str, Sandbox] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    streams: dict[str, Streams] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)  # of sandboxes' own processes
    stopped: set[str] = field(default_factory=set)

    def inside(self, sandbox_id: str) -> list[Container]:
        return [c for c in self.containers.values() if c.sandbox_id == sandbox_id]

    def others_in(self, cgroup: str, sandbox_id: str) -> bool:
        """Whether another sandbox of the same pod is there."""
        return any(s.config.cgroup == cgroup and s.id != sandbox_id for s in self.sandboxes.values())

    def differs_sandbox(self, sandbox_id: str, ready: bool) -> bool:
        sandbox = self.sandboxes.get(sandbox_id)
        return sandbox is None or sandbox.ready != ready

    def differs_container(self, container_id: str, state: str) -> bool:
        container = self.containers.get(container_id)
        return container is None or container.state != state

    def gone_sandboxes(self, there: Set[str]) -> list[str]:
        return [sandbox_id for sandbox_id in self.sandboxes if sandbox_id not in there]

    def gone_containers(self, there: Set[str]) -> list[str]:
        return [container_id for container_id in self.containers if container_id not in there]

    def forget_sandbox(self, sandbox_id: str) -> None:
        self.sandboxes.pop(sandbox_id, None)
        self.stopped.discard(sandbox_id)
        self.pids.pop(sandbox_id, None)

    def forget_container(self, container_id: str) -> None:
        self.containers.pop(container_id, None)
        self.streams.pop(container_id, None)
