"""One pod's worker: observes, lets the state machine decide, and does what it says.

A worker lives as long as anything of its pod uid is on the node. It does one thing at a time that makes something
(sandbox, container), so starts keep the spec's order; stops run beside it, each as a task, since each may take its
grace period. Whatever happens sets ``_dirty``, and the loop decides again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import msgspec

from navarch.api import qos
from navarch.api.pods import TERMINAL_PHASES
from navarch.api.types import core_v1
from navarch.world import Backoff, TaskGroup
from nodeagent.devices.ledger import DeviceError
from nodeagent.pods import environment, podfiles, podstatus, sources
from nodeagent.pods.containerstarter import Starter
from nodeagent.pods.containerstopper import Stopper
from nodeagent.pods.context import Services
from nodeagent.pods.environment import Reference
from nodeagent.pods.grants import CONDITIONS
from nodeagent.pods.journal import RecordedMachine
from nodeagent.pods.machine import (
    Action,
    CreateSandbox,
    Decision,
    RemoveContainer,
    RemoveSandbox,
    StartContainer,
    StopContainer,
    StopSandbox,
    Tell,
)
from nodeagent.pods.making import Making
from nodeagent.pods.mishaps import Mishaps
from nodeagent.pods.observed import AnyContainer, Observed, Role, roles
from nodeagent.pods.probes import Prober
from nodeagent.pods.resize import Host, Resizer
from nodeagent.runtime.runtime import CREATED, EXITED, RUNNING, Container, Event, RuntimeError_, Sandbox
from nodeagent.volumes import manager
from nodeagent.volumes.manager import PodVolumes
from nodeagent.volumes.refresher import Refresher
from nodeagent.volumes.tokens import Tokens

log = logging.getLogger(__name__)


class PodWorker:
    """``sandboxes`` and ``containers`` are what the runtime already has of this pod (after a restart of the agent)."""

    def __init__(
        self,
        services: Services,
        pod: core_v1.Pod,
        sandboxes: list[Sandbox] | None = None,
        containers: list[Container] | None = None,
        rejected: tuple[str, str] | None = None,
    ) -> None:
        self.s = services
        self.pod = pod
        self.uid = pod.metadata.uid or ""
        self.is_gone = False
        self.sandboxes = {x.id: x for x in sandboxes or ()}
        self.containers = {x.id: x for x in containers or ()}
        self.is_static = sources.is_static(pod)
        self.qos = qos.qos_class(pod)
        self.machine = RecordedMachine(qos=self.qos)
        if rejected:
            self.machine.reject(rejected[0], f"Pod was rejected: {rejected[1]}")
            self.tell("Warning", rejected[0], rejected[1])
        self.volumes = PodVolumes(
            services.config, services.world, services.client, services.objects,
            Tokens(services.client, services.world), self.uid, services.csi,
        )  # fmt: skip
        host = Host(services, self.qos, self._stop_for_resize, self.tell, self._wake_in)
        self.resizer = Resizer(host, pod, was_running=bool(sandboxes))
        self.starter = Starter(services, self.volumes, self.qos, self.tell)
        self._dirty = asyncio.Event()
        self.wake = self._dirty.set
        self._stale: dict[str, None] = {}  # container ids to look at again
        self._stale_sandboxes = False
        self._messages: dict[str, str] = {}
        self._event_keys: dict[str, None] = {}
        self._removal_backoff = Backoff(services.world, first=0.5, most=120.0)
        self.mishaps = Mishaps(services.world, services.counters)
        self._making = Making(self)
        self.group: TaskGroup
        self._prober: Prober
        self._stopper: Stopper
        self._refresher = Refresher(self.volumes, services.world, self._odd)
        self._old_status = pod.status
        self._status: core_v1.PodStatus | None = None
        self._torn_down = False

    # --- told from outside ---

    def update(self, pod: core_v1.Pod) -> None:
        """The API server has a newer pod of this uid."""
        if pod.spec != self.pod.spec:
            self.machine.retry_now()
        new, old = pod.metadata, self.pod.metadata
        if (new.labels, new.annotations) != (old.labels, old.annotations):
            self._refresher.want()  # downwardAPI volumes show them
        self.pod = pod
        self._dirty.set()

    def deleted(self, pod: core_v1.Pod) -> None:
        """The API server had this last version of the pod."""
        self.pod = pod
        self.mark_gone()

    def mark_gone(self) -> None:
        """The API server has no such pod any more."""
        self.is_gone = True
        self._dirty.set()

    def objects_changed(self) -> None:
        """A ConfigMap or Secret that the pod names has changed."""
        self.machine.retry_now()
        self._refresher.want()
        self._dirty.set()

    def runtime_event(self, event: Event) -> None:
        if event.kind == "sandbox" or not event.container_id:
            self._stale_sandboxes = True
        else:
            self._stale[event.container_id] = None
        self._dirty.set()

    # --- asked from outside ---

    @property
    def latest(self) -> core_v1.Pod:
        """The pod with the newest status that this node knows."""
        return self._current()

    @property
    def granted(self) -> core_v1.Pod:
        """The pod with the resources that the node has granted it."""
        return self.resizer.pod(self.pod)

    def room_changed(self) -> None:
        """Another pod went or became smaller."""
        if self.resizer.deferred:
            self._dirty.set()

    def end(self, reason: str, message: str, grace: float, disruption: str | None = None) -> None:
        """The node ends the pod within ``grace`` seconds, and it has failed. ``disruption``: see PodMachine.fail."""
        self.machine.fail(reason, message, grace, disruption)
        self._dirty.set()

    async def remove_dead(self) -> None:
        """Removes the containers of a pod that is over, and their logs, for want of disk. Raises RuntimeError_, OSError."""
        if not self._torn_down:
            return
        for container in [c for c in self.containers.values() if c.state == EXITED]:
            await self._remove(RemoveContainer(container.id))

    @property
    def ended(self) -> bool:
        """Whether nothing of the pod runs any more."""
        return self._torn_down

    @property
    def counts(self) -> bool:
        """Whether the pod takes room on the node."""
        return not self._torn_down and not self.machine.verdict and self.pod.status.phase not in TERMINAL_PHASES

    # --- the loop ---

    async def run(self) -> None:
        """Until nothing of the pod is left here. Cancelled: lets go, containers keep running."""
        async with self.s.world.task_group() as self.group:
            self._prober = Prober(self.s.runtime, self.s.world, self.group, self._dirty.set, self.tell, self._odd)
            self._stopper = Stopper(self.s.runtime, self.s.world, self.group, self._stopped, self.tell, self._odd)
            meta = self.pod.metadata
            references = list(manager.references(self.pod))
            for role in roles(self.pod.spec):
                references.extend(environment.references(role.container))
            references += [Reference("Secret", r.name or "") for r in self.pod.spec.image_pull_secrets or ()]
            self.s.objects.hold(self.uid, meta.namespace or "", references)
            self._adopt()
            await self._take_devices()
            while not await self._step():
                pass
            self.group.cancel()

    def _adopt(self) -> None:
        """Takes over what an earlier agent left: its containers' health goes on from the status it wrote."""
        self._stale.update(dict.fromkeys(self.containers))
        if self.sandboxes and self.pod.status.phase not in TERMINAL_PHASES:
            self._refresher.want()

    async def _take_devices(self) -> None:
        """Gets the devices that the pod asks for, or rejects it."""
        is_new = not self.sandboxes and not self.machine.verdict and self.pod.status.phase not in TERMINAL_PHASES
        if not is_new or self.is_gone or self.pod.metadata.deletion_timestamp:
            return
        try:
            await self.s.devices.admit(self.pod)
        except DeviceError as error:
            reason, message = "UnexpectedAdmissionError", f"Pod was rejected: {error}"
            self.machine.reject(reason, message)
            self.tell("Warning", reason, message)

    async def _step(self) -> bool:
        """Observes, decides, acts, waits. True when the pod has left this node for good."""
        self._dirty.clear()
        await self._look()
        if not self.machine.terminating and not self._making.busy:
            await self.resizer.step(self.pod, self.containers.values(), self.observed().sandbox)
        now = self.s.world.now()
        pod = self._current()
        decision = self.machine.decide(pod, self.observed(), now)
        self._track_probes()
        if self.machine.terminating:
            self._making.interrupt()
        acted = False
        for action in decision.actions:
            acted = await self._do(action, now) or acted
        over = decision.ended and not self._making.busy and not self._stopper.busy
        self._report(pod, decision, over)
        if over:
            if not self._torn_down and not await self._tear_down():
                decision.wake_at(now + self._removal_backoff.next())
            if self._torn_down:
                self.s.status.set(self.pod, decision.status, final=True)
                if self.is_gone and not self.containers and not self.sandboxes:
                    if await self._forget():
                        return True
                    decision.wake_at(now + self._removal_backoff.next())
        elif not self._making.busy and self.sandboxes:
            sandbox = self.observed().sandbox
            facts = self.s.facts(sandbox.ip if sandbox else "")
            self._refresher.begin_if_due(self.group, self.pod, facts, self._dirty.set)
        if not acted:
            await self._wait(decision.wake)
        return False

    def _current(self) -> core_v1.Pod:
        """The pod with the newest status that we know: ours, with what others may write into it."""
        if self._status is None or self.pod.status.phase in TERMINAL_PHASES:
            return self.pod
        owned = (*podstatus.OWNED, *CONDITIONS, *([podstatus.DISRUPTION] if self.machine.disruption is not None else ()))
        own = [c for c in self._status.conditions or () if c.type in owned]
        foreign = [c for c in self.pod.status.conditions or () if c.type not in owned]
        status = msgspec.structs.replace(self._status, conditions=own + foreign)
        return msgspec.structs.replace(self.pod, status=status)

    async def _wait(self, wake: float | None) -> None:
        # A refresh that cannot begin now is looked at again when what it waits for is done.
        due = self._refresher.due if not self._making.busy and self.sandboxes and not self._torn_down else None
        times = [t for t in (wake, due) if t is not None]
        if not times:
            await self._dirty.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.01, min(times) - self.s.world.now())):
                await self._dirty.wait()

    async def _look(self) -> None:
        """Looks again at what the runtime told us has changed."""
        if self._stale_sandboxes:
            self._stale_sandboxes = False
            await self.list_sandboxes()
        stale, self._stale = self._stale, {}
        for container_id in stale:
            container = await self.s.runtime.container(container_id)
            if container is None:
                self.containers.pop(container_id, None)
                self._prober.drop(container_id)
            elif container.state != CREATED or not self._making.busy:
                await self.know(container)

    async def know(self, container: Container) -> None:
        self.containers[container.id] = container
        if container.state != EXITED:
            return
        self._prober.drop(container.id)
        role = self.role_of(container.name)
        if role is not None and container.id not in self._messages:
            self._messages[container.id] = await self.starter.termination_message(
                self.pod, role.container, container.attempt, container.exit_code, container.log_path
            )

    async def list_sandboxes(self) -> None:
        sandboxes = await self.s.runtime.list_sandboxes()
        self.sandboxes = {x.id: x for x in sandboxes if x.config.pod_uid == self.uid}

    def observed(self) -> Observed:
        return Observed(
            sandboxes=list(self.sandboxes.values()),
            containers=list(self.containers.values()),
            probes={i: self._prober.view(i) for i, c in self.containers.items() if c.state == RUNNING},
            hooked=frozenset(self._making.hooked),
            messages=self._messages,
            host_ip=self.s.config.node_ip,
            is_gone=self.is_gone,
        )

    def _track_probes(self) -> None:
        if self.machine.terminating:
            self._prober.only_readiness()
            return
        for container in self.containers.values():
            role = self.role_of(container.name)
            if container.state == RUNNING and role is not None and role.kind in ("main", "sidecar"):
                before = self._before(container)
                self._prober.track(role.container, container, self.ip_of(container.sandbox_id), before)

    def _before(self, container: Container) -> tuple[bool, bool] | None:
        """(started, ready) that an earlier agent reported of this very container."""
        old = self._old_status
        for status in (*(old.container_statuses or ()), *(old.init_container_statuses or ())):
            if status.name == container.name and (status.container_id or "").endswith(container.id):
                return bool(status.started), status.ready
        return None

    def _report(self, pod: core_v1.Pod, decision: Decision, over: bool) -> None:
        if self.is_gone or (decision.ended and not over):
            return
        generation, now = self.pod.metadata.generation, self.s.world.now()
        self._status = self.resizer.shown(decision.status, generation, now)
        self.s.status.set(self.pod, self._status)

    # --- actions ---

    async def _do(self, action: Action, now: float) -> bool:
        """Begins or does an action. True if it is done already, so that the world has changed."""
        if isinstance(action, Tell):
            if action.once not in self._event_keys or not action.once:
                self._event_keys[action.once] = None
                self.tell(action.type, action.reason, action.message)
            return False
        if isinstance(action, StopContainer):
            self.stop(action)
            return False
        if isinstance(action, CreateSandbox | StartContainer):
            self._making.begin(action)
            return False
        if self._making.busy:
            return False  # what is being made must not be taken apart under it
        try:
            await self._remove(action)
        except (RuntimeError_, OSError) as error:
            log.warning("pod %s: %s", self.uid, error)
            self._wake_in(self.mishaps.delay("remove"))
            return False
        self.mishaps.over("remove")
        return True

    async def _remove(self, action: StopSandbox | RemoveSandbox | RemoveContainer) -> None:
        runtime = self.s.runtime
        if isinstance(action, RemoveContainer):
            await runtime.remove_container(action.id)
            removed = self.containers.pop(action.id, None)
            self._messages.pop(action.id, None)
            if removed is not None and removed.log_path:
                await self.s.world.blocking(podfiles.remove_logs, removed.log_path)
        elif isinstance(action, RemoveSandbox):
            await runtime.remove_sandbox(action.id)
            self.sandboxes.pop(action.id, None)
        else:
            await runtime.stop_sandbox(action.id)
            for container in await runtime.list_containers(action.id):
                await self.know(container)
            await self.list_sandboxes()

    # --- the end ---

    def stop(self, action: StopContainer) -> None:
        role, container = self.role_of(action.name), self.containers.get(action.id)
        ip = self.ip_of(container.sandbox_id) if container else ""
        self._stopper.stop(action, role.container if role else None, ip)

    def _stop_for_resize(self, container: Container) -> None:
        grace = float(self.pod.spec.termination_grace_period_seconds or 30)
        why = f"Container {container.name} resize requires restart"
        self.stop(StopContainer(container.id, container.name, self.s.world.now() + grace, why))

    def _stopped(self, container_id: str) -> None:
        self._stale[container_id] = None
        self._dirty.set()

    async def _tear_down(self) -> bool:
        """Volumes and probes of a pod of which nothing runs any more. False if something of it stays."""
        self._prober.close()
        await self._refresher.stop()
        try:
            async with self.s.removals:
                await self.volumes.tear_down(self.s.stopping.is_set)
                await self.s.devices.release(self.uid)
        except OSError as error:
            self.tell("Warning", "FailedKillPod", f"error killing pod: cannot remove its volumes: {error}")
            return False
        self._removal_backoff.reset()
        self.s.objects.release(self.uid)
        self._torn_down = True
        return True

    async def _forget(self) -> bool:
        """Removes the last traces. False if something of it stays."""
        try:
            async with self.s.removals:
                await self.starter.remove_files(self.pod)
        except OSError as error:
            log.warning("pod %s: removing its files: %s", self.uid, error)
            return False
        self.s.images.forget(self.uid)
        self.s.status.forget(self.uid)
        return True

    # --- small things ---

    def role_of(self, name: str) -> Role | None:
        return next((r for r in roles(self.pod.spec) if r.container.name == name), None)

    def ip_of(self, sandbox_id: str) -> str:
        if self.pod.spec.host_network:
            return self.s.config.node_ip
        sandbox = self.sandboxes.get(sandbox_id)
        return sandbox.ip if sandbox else ""

    def _odd(self, doing: str, error: Exception) -> None:
        """Something nobody has foreseen happened in a part of the worker, which goes on."""
        self.mishaps.note(self.pod, doing, doing, error)

    def _wake_in(self, seconds: float) -> None:
        async def later() -> None:
            await self.s.world.sleep(seconds)
            self._dirty.set()

        self.group.start(later(), name=f"retry of {self.uid}")

    def tell(self, type_: str, reason: str, message: str, container: AnyContainer | None = None) -> None:
        """Records an event about the pod, or about one of its containers."""
        path = None
        if container is not None:
            kind = next((r.kind for r in roles(self.pod.spec) if r.container.name == container.name), "main")
            field = {"init": "initContainers", "sidecar": "initContainers", "ephemeral": "ephemeralContainers"}
            path = f"spec.{field.get(kind, 'containers')}{{{container.name}}}"
        self.s.events.event(self.pod, type_, reason, message, field_path=path)
