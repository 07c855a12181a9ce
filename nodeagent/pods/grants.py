"""Grants of resources to a pod: what it asks for, what it has been granted, what its containers run with. Pure.

A pod's wish is in its spec; what the node has granted may be older. Until a resize is granted the condition
PodResizePending tells why not: Infeasible (never on this node) or Deferred (not at present). Real and simulated nodes
share this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from navarch.api import quantity, resources
from navarch.api.pods import is_sidecar
from navarch.api.times import format_time
from navarch.api.types import core_v1
from nodeagent.runtime.runtime import RUNNING, Container

PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
CONDITIONS = (PENDING, IN_PROGRESS)
RESIZABLE = ("cpu", "memory")
Granted = dict[str, core_v1.ResourceRequirements]
NOTHING = core_v1.ResourceRequirements()


def resizable(spec: core_v1.PodSpec) -> Iterator[core_v1.Container]:
    yield from spec.containers
    yield from (c for c in spec.init_containers or () if is_sidecar(c))


def desired_resources(pod: core_v1.Pod) -> Granted:
    """The resources that the spec asks for, by container."""
    return {c.name: c.resources or NOTHING for c in resizable(pod.spec)}


def reported(pod: core_v1.Pod) -> Granted:
    """The resources that an earlier agent has granted, as far as the status says; the spec's for the rest."""
    out = desired_resources(pod)
    for status in (*(pod.status.container_statuses or ()), *(pod.status.init_container_statuses or ())):
        if status.resources is not None and status.name in out:
            requests = status.allocated_resources or status.resources.requests
            out[status.name] = core_v1.ResourceRequirements(requests=requests, limits=status.resources.limits)
    return out


def with_resources(pod: core_v1.Pod, granted: Granted) -> core_v1.Pod:
    """The pod as the node has granted it."""
    if granted == desired_resources(pod):
        return pod

    def changed(containers: Sequence[core_v1.Container] | None) -> list[core_v1.Container] | None:
        if containers is None:
            return None
        return [msgspec.structs.replace(c, resources=granted.get(c.name, c.resources)) for c in containers]

    mains, inits = changed(pod.spec.containers), changed(pod.spec.init_containers)
    spec = msgspec.structs.replace(pod.spec, containers=mains, init_containers=inits)
    return msgspec.structs.replace(pod, spec=spec)


def refused(
    pod: core_v1.Pod, allocatable: Mapping[str, quantity.Quantity], others: Iterable[core_v1.Pod]
) -> tuple[str, str] | None:
    """Why the node cannot grant what the pod asks for now: (reason, message)."""
    room, asks = resources.amounts(allocatable), resources.pod_requests(pod)
    for name in RESIZABLE:
        if name in room and asks.get(name, 0) > room[name]:
            text = f"{name}, requested: {asks[name]}, capacity: {room[name]}"
            return "Infeasible", f"Node didn't have enough capacity: {text}"
    used: resources.Amounts = {}
    for other in others:
        resources.add(used, resources.pod_requests(other))
    for name in RESIZABLE:
        if name in room and used.get(name, 0) + asks.get(name, 0) > room[name]:
            text = f"{name}, requested: {asks.get(name, 0)}, used: {used.get(name, 0)}, capacity: {room[name]}"
            return "Deferred", f"Node didn't have enough resource: {text}"
    return None


def restarts(container: core_v1.Container, old: core_v1.ResourceRequirements) -> bool:
    """Whether the change of resources restarts the container, by its resizePolicy."""
    new = container.resources or NOTHING
    policies = {p.resource_name: p.restart_policy for p in container.resize_policy or ()}

    def differs(name: str) -> bool:
        before = (old.requests or {}).get(name), (old.limits or {}).get(name)
        return before != ((new.requests or {}).get(name), (new.limits or {}).get(name))

    return any(policies.get(name) == "RestartContainer" and differs(name) for name in RESIZABLE)


class Grants:
    """The resources of one pod: ``granted`` is what the node has agreed to. No I/O."""

    def __init__(self, pod: core_v1.Pod, was_running: bool) -> None:
        self.granted = reported(pod) if was_running else desired_resources(pod)
        self._has: dict[str, core_v1.ResourceRequirements] = {}  # container id -> what it runs with
        self._stopping: dict[str, None] = {}
        self._pending: tuple[str, str] | None = None
        self._failed = ""

    @property
    def deferred(self) -> bool:
        """Whether it waits for room."""
        return self._pending is not None and self._pending[0] == "Deferred"

    def pod(self, pod: core_v1.Pod) -> core_v1.Pod:
        """The pod with what is granted: so it counts on the node, and so its containers are made."""
        return with_resources(pod, self.granted)

    def note_container(self, container_id: str, name: str) -> None:
        """A container was made with what is granted at present. An init container that ends is never resized."""
        if name in self.granted:
            self._has[container_id] = self.granted[name]

    def late(self, containers: Iterable[Container]) -> list[Container]:
        """The running containers that do not have what is granted, nor are being ended for it."""
        running = [c for c in containers if c.state == RUNNING and c.name in self.granted]
        for container in running:
            self._has.setdefault(container.id, self.granted[container.name])
        alive = {c.id for c in running}
        self._stopping = {i: None for i in self._stopping if i in alive}
        self._has = {i: r for i, r in self._has.items() if i in alive}
        return [c for c in running if self._has[c.id] != self.granted[c.name] and c.id not in self._stopping]

    def change(self, container: Container, spec: core_v1.Container) -> bool:
        """A container has what is granted from now on; False if it has to start again for that."""
        if restarts(spec, self._has[container.id]):
            self._stopping[container.id] = None
            return False
        self._has[container.id] = self.granted[container.name]
        return True

    def grant(
        self, pod: core_v1.Pod, allocatable: Mapping[str, quantity.Quantity], active: Callable[[], Iterable[core_v1.Pod]]
    ) -> bool:
        """Takes what the spec asks for as granted, if there is room beside the ``active`` pods. True if that changed."""
        desired = desired_resources(pod)
        if desired == self.granted:
            self._pending = None
            return False
        self._pending = refused(pod, allocatable, [p for p in active() if p.metadata.uid != pod.metadata.uid])
        if self._pending is None:
            self.granted, self._failed = desired, ""
        return self._pending is None

    # What the status says

    def shown(self, status: core_v1.PodStatus, generation: int | None, now: float) -> core_v1.PodStatus:
        """The status with the resources of running containers and the conditions of a resize."""
        old = {c.type: c for c in status.conditions or ()}
        conditions = [c for c in status.conditions or () if c.type not in CONDITIONS]
        if self._pending is not None:
            conditions.append(_condition(old.get(PENDING), PENDING, *self._pending, generation, now))
        elif self._stopping or self._failed:
            reason = "Error" if self._failed else ""
            conditions.append(_condition(old.get(IN_PROGRESS), IN_PROGRESS, reason, self._failed, generation, now))
        return msgspec.structs.replace(
            status, conditions=conditions, container_statuses=self._with_resources(status.container_statuses),
            init_container_statuses=self._with_resources(status.init_container_statuses),
        )  # fmt: skip

    def _with_resources(self, statuses: list[core_v1.ContainerStatus] | None) -> list[core_v1.ContainerStatus] | None:
        if statuses is None:
            return None
        out = []
        for status in statuses:
            has = self._has.get((status.container_id or "").rpartition("/")[2])
            if has is not None and status.state is not None and status.state.running is not None:
                shown = core_v1.ResourceRequirements(requests=has.requests, limits=has.limits)
                granted = self.granted[status.name].requests
                status = msgspec.structs.replace(status, resources=shown, allocated_resources=granted)
            out.append(status)
        return out


def _condition(
    old: core_v1.PodCondition | None, type_: str, reason: str, message: str, generation: int | None, now: float
) -> core_v1.PodCondition:
    since = old.last_transition_time if old is not None and old.status == "True" else None
    return core_v1.PodCondition(
        type=type_, status="True", reason=reason or None, message=message or None, observed_generation=generation,
        last_transition_time=since or format_time(now),
    )  # fmt: skip
