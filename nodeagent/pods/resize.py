"""Resizing a pod in place: in which steps limits of what runs change. (What is granted: grants.py.)"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from navarch.api.types import core_v1
from nodeagent.pods import containerspec
from nodeagent.pods.context import Services
from nodeagent.pods.grants import Grants, resizable, restarts, with_resources
from nodeagent.runtime.runtime import Container, Resources, RuntimeError_, Sandbox

RETRY = 5.0  # seconds after a failure


def raised(old: Resources, new: Resources) -> Resources:
    """The pod's limits while its containers change: the higher of both, and none where there was none."""

    def higher(a: int, b: int) -> int:
        return max(a, b) if a and b else 0

    return Resources(
        cpu_shares=max(old.cpu_shares, new.cpu_shares), cpu_quota=higher(old.cpu_quota, new.cpu_quota),
        cpu_period=new.cpu_period, memory_limit=higher(old.memory_limit, new.memory_limit),
    )  # fmt: skip


@dataclass(frozen=True)
class Host:
    """The parts of its worker that a resizer needs."""

    services: Services
    qos: str
    stop: Callable[[Container], None]  # ends a container so that it starts again
    tell: Callable[[str, str, str], None]  # type, reason, message of an event
    wake_in: Callable[[float], None]  # has :meth:`Resizer.step` called again after some seconds


class Resizer(Grants):
    """Resizes what runs of one pod: :meth:`step` brings its containers to what is granted."""

    def __init__(self, host: Host, pod: core_v1.Pod, was_running: bool) -> None:
        super().__init__(pod, was_running)
        self._host = host

    async def step(self, pod: core_v1.Pod, containers: Iterable[Container], sandbox: Sandbox | None) -> None:
        """Grants what the spec asks for, if there is room, and changes what runs."""
        containers = list(containers)
        self.late(containers)  # what runs already has what was granted so far
        services, before = self._host.services, self._pending
        if self.grant(pod, services.allocatable, services.active):
            services.room_changed()
        elif self._pending is not None and self._pending != before:
            reason, why = self._pending
            self._host.tell("Warning", f"Resize{reason}", f"Pod resize {reason}: {why}")
        late = self.late(containers)
        if late and sandbox is not None:
            await self._change(self.pod(pod), late, sandbox)
        elif not late:
            self._failed = ""

    async def _change(self, pod: core_v1.Pod, late: list[Container], sandbox: Sandbox) -> None:
        services = self._host.services
        runtime, node_cpu = services.runtime, services.cpu_capacity
        specs = {c.name: c for c in resizable(pod.spec)}
        before = with_resources(pod, self.granted | {c.name: self._has[c.id] for c in late})
        old, new = containerspec.pod_resources(before, node_cpu), containerspec.pod_resources(pod, node_cpu)
        try:
            await runtime.resize_sandbox(sandbox.id, raised(old, new))
            for container in late:
                own = specs[container.name]
                if restarts(own, self._has[container.id]):
                    self.change(container, own)
                    self._host.stop(container)
                    continue
                limits = containerspec.container_resources(pod, own, services.memory_capacity, self._host.qos, node_cpu)
                await runtime.resize_container(container.id, limits)
                self.change(container, own)
            await runtime.resize_sandbox(sandbox.id, new)
        except RuntimeError_ as error:
            if error.message != self._failed:
                self._host.tell("Warning", "ResizeError", f"Pod resize error: {error.message}")
            self._failed = error.message
            self._host.wake_in(RETRY)
            return
        self._failed = ""
        if not self._stopping:
            self._host.tell("Normal", "ResizeCompleted", "Pod resize completed")
