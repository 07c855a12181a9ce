"""One pod on a simulated node: asks the real agent's state machine what to do, and does it by setting timers.

It is the counterpart of nodeagent.pods.worker without tasks: every step runs to its end at once, and what takes time calls
back. As there, only one thing is being made at a time, so containers start in the spec's order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from navarch.api import qos, quantity
from navarch.api.pods import TERMINAL_PHASES
from navarch.api.types import core_v1
from navarch.world import World, chance
from nodeagent.hollow.adoption import adopt
from nodeagent.hollow.probing import Probing
from nodeagent.hollow.timers import Timers
from nodeagent.pods import podstatus
from nodeagent.pods.grants import CONDITIONS, Grants
from nodeagent.pods.machine import (
    Action,
    CreateSandbox,
    PodMachine,
    RemoveContainer,
    RemoveSandbox,
    StartContainer,
    StopContainer,
    StopSandbox,
    container_hash,
)
from nodeagent.pods.observed import CONTAINER_HASH, IMAGE_NAME, Observed, ProbeView, Role, roles
from nodeagent.runtime.hollow import HollowNode
from nodeagent.runtime.runtime import EXITED, RUNNING, Container, ContainerConfig, RuntimeError_, SandboxConfig
from nodeagent.runtime.stages import NORMAL, Drawn, Stages, stages

PULL_BACKOFF = 10.0


@dataclass(frozen=True)
class Machine:
    """The parts of its node that a simulated pod needs."""

    world: World
    timers: Timers
    node: HollowNode
    address: str  # the node's
    report: Callable[[HollowPod, bool], None]  # (pod, important): its status has changed
    seed: str = ""  # of what pods draw
    behaviour: Callable[[core_v1.Pod, str], Stages] | None = None
    allocatable: Mapping[str, quantity.Quantity] = field(default_factory=dict)
    active: Callable[[], list[core_v1.Pod]] = list  # the node's pods that take room, as granted


class HollowPod:
    """``status`` is the newest status, ``sent`` what the API server has; whoever writes it sets ``sent``."""

    def __init__(self, machine: Machine, pod: core_v1.Pod) -> None:
        self.m = machine
        self.pod = pod
        self.uid = pod.metadata.uid or ""
        self.sent = pod.status
        self.status = pod.status
        self.is_gone = False
        self.over = False  # nothing of it is left here; its object may be deleted
        self.machine = PodMachine(qos=pod.status.qos_class or qos.qos_class(pod))
        self.grants = Grants(pod, was_running=False)
        self._own = False  # status is ours, not the API server's
        self._busy = False
        self._stepping = False
        self._stops: dict[str, float] = {}  # container id -> deadline
        self._probing: dict[str, Probing] = {}  # by container id
        self._wake: float | None = None
        self._dead = False

    # What happens to it

    def adopt(self) -> None:
        """Adopts what runs here by the API server's knowledge: the node is the same, only its simulation is new."""
        self.grants = Grants(self.pod, was_running=True)
        for container in adopt(self.m.node, self.pod, self._drawn):
            role = self._role(container.name)
            if role is not None:
                statuses = [*(self.pod.status.container_statuses or ()), *(self.pod.status.init_container_statuses or ())]
                before = next((s for s in statuses if s.name == container.name), None)
                was = (before.started is not False, bool(before.ready)) if before else None
                chance = self._chance(container.name, container.attempt)
                declared = self._drawn(container.name, container.attempt)
                self._probing[container.id] = Probing(
                    role.container, declared, container.started, chance, was, self.m.world.now()
                )

    def update(self, pod: core_v1.Pod) -> None:
        """The API server has a newer pod of this uid."""
        old, self.pod = self.pod, pod
        if pod.metadata.generation != old.metadata.generation:
            self.machine.retry_now()
        elif (
            pod.metadata.deletion_timestamp == old.metadata.deletion_timestamp
            and pod.metadata.deletion_grace_period_seconds == old.metadata.deletion_grace_period_seconds
            and (pod.status.phase == old.status.phase or pod.status.phase not in TERMINAL_PHASES)
            and not pod.spec.readiness_gates
        ):
            return  # a status, most likely our own
        self.step()

    def mark_gone(self) -> None:
        """The API server has no such pod any more."""
        self.is_gone = True
        self.step()

    @property
    def counts(self) -> bool:
        """Whether the pod takes room on the node."""
        return not self.over and self.status.phase not in TERMINAL_PHASES

    def room_changed(self) -> None:
        """Another pod of the node went."""
        if self.grants.deferred:
            self.step()

    def forget(self) -> None:
        """The node lost power: no timer of this pod may do anything any more."""
        self._dead = True

    # Deciding and doing

    def step(self) -> None:
        """Decides and does until nothing more can be done at once."""
        if self._stepping or self._dead:
            return
        self._stepping = True
        try:
            while self._once():
                pass
        finally:
            self._stepping = False

    def _once(self) -> bool:
        now = self.m.world.now()
        sandboxes, containers = self.m.node.of_pod(self.uid)
        observation = Observed(
            sandboxes=sandboxes,
            containers=containers,
            probes={c.id: self._probes(c.id, now) for c in containers if c.state == RUNNING},
            host_ip=self.m.address,
            is_gone=self.is_gone,
        )
        decision = self.machine.decide(self._current(), observation, now)
        acted = self._resize(containers, now)
        for action in decision.actions:
            acted = self._do(action, now) or acted
        if acted:
            return True
        if decision.ended and not self._busy:
            self.over = True
        decision.status = self.grants.shown(decision.status, self.pod.metadata.generation, now)
        if not self.is_gone and decision.status != self.status and (self.over or not decision.ended):
            important = _facts(decision.status) != _facts(self.status)
            self.status, self._own = decision.status, True
            self.m.report(self, important or self.over)
        elif self.over:
            self.m.report(self, True)
        probe_wakes = [p.wake for p in self._probing.values()]
        wakes = [t for t in (decision.wake, *probe_wakes) if t is not None and t > now]
        if wakes:
            self._wake_at(min(wakes), now)
        return False

    def _current(self) -> core_v1.Pod:
        """The pod with our newest status and with what others wrote into its conditions."""
        if not self._own or self.pod.status.phase in TERMINAL_PHASES:
            return self.pod
        owned = (*podstatus.OWNED, *CONDITIONS)
        own = [c for c in self.status.conditions or () if c.type in owned]
        foreign = [c for c in self.pod.status.conditions or () if c.type not in owned]
        return msgspec.structs.replace(self.pod, status=msgspec.structs.replace(self.status, conditions=own + foreign))

    def _resize(self, containers: list[Container], now: float) -> bool:
        """Grants what the pod asks for, and has its containers run with it. True if one must be ended for that."""
        if self.machine.terminating:
            return False
        grants, stopped = self.grants, False
        grants.late(containers)  # what runs already has what was granted so far
        grants.grant(self.pod, self.m.allocatable, self.m.active)
        for container in grants.late(containers):
            role = self._role(container.name)
            if role is None or not isinstance(role.container, core_v1.Container):
                continue
            if not grants.change(container, role.container):
                grace = float(self.pod.spec.termination_grace_period_seconds or 30)
                why = f"Container {container.name} resize requires restart"
                self._stop(StopContainer(container.id, container.name, now + grace, why), now)
                stopped = True
        return stopped

    def _probes(self, container_id: str, now: float) -> ProbeView:
        probing = self._probing.get(container_id)
        return probing.view(now) if probing else ProbeView()

    def _do(self, action: Action, now: float) -> bool:
        """Does or begins an action. True if something has changed already."""
        node = self.m.node
        if isinstance(action, CreateSandbox):
            self._make(self._drawn("", action.attempt).sandbox, lambda: self._sandbox(action.attempt))
        elif isinstance(action, StartContainer):
            self._start(action, now)
        elif isinstance(action, StopContainer):
            self._stop(action, now)
        elif isinstance(action, RemoveContainer):
            self._probing.pop(action.id, None)
            self._stops.pop(action.id, None)
            node.remove_container(action.id)
            return True
        elif isinstance(action, StopSandbox | RemoveSandbox) and not self._busy:
            if isinstance(action, StopSandbox):
                node.stop_sandbox(action.id)
            else:
                node.remove_sandbox(action.id)
            return True
        return False

    def _make(self, seconds: float, finish: Callable[[], None]) -> None:
        """One thing that takes time; what else is to be made waits for it."""
        if self._busy or self.machine.terminating:
            return
        self._busy = True

        def finished() -> None:
            self._busy = False
            if not self._dead:
                if not self.machine.terminating:
                    finish()
                self.step()

        self.m.timers.after(seconds, finished)

    def _sandbox(self, attempt: int) -> None:
        meta = self.pod.metadata
        config = SandboxConfig(
            self.uid, meta.namespace or "", meta.name or "", attempt, host_network=bool(self.pod.spec.host_network)
        )
        try:
            self.m.node.add_sandbox(config)
        except RuntimeError_ as error:
            self.machine.sandbox_failed(error.message, self.m.world.now())

    def _start(self, action: StartContainer, now: float) -> None:
        role = self._role(action.name)
        if role is None or self._busy:
            return
        container = role.container
        image = container.image or ""
        declared = self._drawn(action.name, action.attempt)
        delay = declared.start
        if declared.fail == "pull":
            message = f'Back-off pulling image "{image}"'
            self.machine.failed(action.name, "ImagePullBackOff", message, now, PULL_BACKOFF)
            self._wake_at(now, now)  # decide once more, now that it is known
            return
        if self.m.node.image(image) is None:
            delay += declared.pull
        if declared.fail == "create":
            message = "the pod declares that this container cannot be made"
            self.machine.failed(action.name, "CreateContainerError", message, now)
            self._wake_at(now, now)
            return
        self._make(delay, lambda: self._started(action, role, declared))

    def _started(self, action: StartContainer, role: Role, declared: Drawn) -> None:
        node, now = self.m.node, self.m.world.now()
        container = role.container
        sandboxes, containers = node.of_pod(self.uid)
        if not any(s.id == action.sandbox_id and s.ready for s in sandboxes):
            return
        image = node.add_image(container.image or "")
        ended = Observed(containers=containers).of(action.name)
        self.machine.restarted(container, next((c for c in ended if c.state == EXITED), None), now)
        config = ContainerConfig(
            action.name,
            action.attempt,
            image.id,
            labels={CONTAINER_HASH: container_hash(container)},
            annotations={IMAGE_NAME: container.image or ""},
        )
        running = node.add_container(action.sandbox_id, config, declared)
        try:
            node.start_container(running.id)
        except RuntimeError_ as error:
            self.machine.failed(action.name, error.reason, error.message, now)
            return
        self.grants.note_container(running.id, action.name)
        self.machine.started(action.name)
        chance = self._chance(action.name, action.attempt)
        self._probing[running.id] = Probing(container, declared, now, chance)

    def _stop(self, action: StopContainer, now: float) -> None:
        deadline = self._stops.get(action.id)
        if deadline is not None and deadline <= action.deadline + 0.5:
            return
        self._stops[action.id] = action.deadline
        role = self._role(action.name)
        hook = role.container.lifecycle.pre_stop if role and role.container.lifecycle else None
        sleeps = float(hook.sleep.seconds) if hook and hook.sleep and deadline is None else 0.0
        remaining = max(0.0, action.deadline - now)
        if not sleeps:
            self.m.node.stop_container(action.id, remaining)
            return
        sleeps = min(sleeps, remaining)

        def stops() -> None:
            if not self._dead:
                self.m.node.stop_container(action.id, max(2.0, remaining - sleeps))

        self.m.timers.after(sleeps, stops)

    def _wake_at(self, when: float, now: float) -> None:
        if self._wake is not None and self._wake <= when:
            return
        self._wake = when

        def wake() -> None:
            if self._wake == when:
                self._wake = None
            self.step()

        self.m.timers.after(when - now, wake)

    def _role(self, name: str) -> Role | None:
        return next((r for r in roles(self.pod.spec) if r.container.name == name), None)

    def _stages(self, container: str) -> Stages:
        try:
            default = self.m.behaviour(self.pod, container) if self.m.behaviour else self.m.node.default
            return stages(self.pod.metadata.annotations, container, default)
        except ValueError:
            return NORMAL

    def _chance(self, container: str, attempt: int, what: str = "probes") -> random.Random:
        """Its own for each run of each container: what happens elsewhere does not change what is drawn here."""
        meta = self.pod.metadata
        return chance(f"{self.m.seed} {meta.namespace}/{meta.name} {container} {attempt} {what}")

    def _drawn(self, container: str, attempt: int) -> Drawn:
        return self._stages(container).drawn(self._chance(container, attempt, "stages"))


def _facts(status: core_v1.PodStatus) -> Any:
    """The facts that others wait for: a change of them is written at once, the rest may wait for company."""
    ready = any(c.type == "Ready" and c.status == "True" for c in status.conditions or ())
    containers = [(s.name, s.ready, s.restart_count) for s in status.container_statuses or ()]
    return status.phase or "Pending", ready, [c for c in containers if c[1] or c[2]]
