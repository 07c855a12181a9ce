"""One pod's worker: observes, lets the state machine decide, and does what it says.

A worker lives as long as anything of its pod uid is on the node. It does one thing at a time that makes something
(sandbox, container), so starts keep the spec's order; stops run beside it, each as a task, since each may take its
grace period. Whatever happens sets ``_dirty``, and the loop decides again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec

from navarch.api import resources
from navarch.api.types import core_v1
from navarch.world import Backoff, TaskGroup
from nodeagent.pods import environment, lifecycle, podstatus
from nodeagent.pods.containerstarter import Starter, StartError
from nodeagent.pods.containerstopper import Stopper
from nodeagent.pods.context import Services
from nodeagent.pods.environment import Reference
from nodeagent.pods.handlers import Outcome
from nodeagent.pods.machine import (
    Action,
    CreateSandbox,
    Decision,
    PodMachine,
    RemoveContainer,
    RemoveSandbox,
    StartContainer,
    StopContainer,
    StopSandbox,
    Tell,
)
from nodeagent.pods.observed import AnyContainer, Observed, Role, roles
from nodeagent.pods.probes import Prober
from nodeagent.pods.resize import CONDITIONS, Host, Resizer
from nodeagent.runtime.runtime import CREATED, EXITED, RUNNING, Container, Event, RuntimeError_, Sandbox
from nodeagent.volumes import manager
from nodeagent.volumes.manager import PodVolumes, VolumeError
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
        self.qos = resources.qos_class(pod)
        self.machine = PodMachine(qos=self.qos)
        if rejected:
            self.machine.fail(*rejected)
            self._tell("Warning", rejected[0], rejected[1])
        self.volumes = PodVolumes(
            services.config, services.world, services.objects, Tokens(services.client, services.world), self.uid
        )
        host = Host(services, self.qos, self._stop_for_resize, self._tell, self._wake_in)
        self._resizer = Resizer(host, pod, found=bool(sandboxes))
        self.starter = Starter(services, self.volumes, self.qos, self._tell)
        self._dirty = asyncio.Event()
        self._stale: dict[str, None] = {}  # container ids to look at again
        self._stale_sandboxes = False
        self._busy: asyncio.Task[None] | None = None  # the one thing being made
        self._interruptible = False
        self._hooked: dict[str, None] = {}
        self._messages: dict[str, str] = {}
        self._told: dict[str, None] = {}
        self._volume_backoff = Backoff(services.world, first=0.5, most=120.0)
        self._group: TaskGroup
        self._prober: Prober
        self._stopper: Stopper
        self._refresher = Refresher(self.volumes, services.world)
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

    def gone(self) -> None:
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
        return self._resizer.pod(self.pod)

    def room_changed(self) -> None:
        """Another pod went or became smaller."""
        if self._resizer.deferred:
            self._dirty.set()

    @property
    def counts(self) -> bool:
        """Whether the pod takes room on the node."""
        return not self._torn_down and not self.machine.verdict and self.pod.status.phase not in podstatus.TERMINAL

    # --- the loop ---

    async def run(self) -> None:
        """Until nothing of the pod is left here. Cancelled: lets go, containers keep running."""
        async with self.s.world.task_group() as self._group:
            self._prober = Prober(self.s.runtime, self.s.world, self._group, self._dirty.set, self._tell)
            self._stopper = Stopper(self.s.runtime, self.s.world, self._group, self._stopped, self._tell)
            meta = self.pod.metadata
            wanted = list(manager.references(self.pod))
            for role in roles(self.pod.spec):
                wanted.extend(environment.references(role.container))
            wanted += [Reference("Secret", r.name or "") for r in self.pod.spec.image_pull_secrets or ()]
            self.s.objects.hold(self.uid, meta.namespace or "", wanted)
            self._adopt()
            while not await self._step():
                pass
            self._group.cancel()

    def _adopt(self) -> None:
        """Takes over what an earlier agent left: its containers' health goes on from the status it wrote."""
        self._stale.update(dict.fromkeys(self.containers))
        if self.sandboxes and self.pod.status.phase not in podstatus.TERMINAL:
            self._refresher.want()

    async def _step(self) -> bool:
        """Observes, decides, acts, waits. True when the pod has left this node for good."""
        self._dirty.clear()
        await self._look()
        if not self.machine.terminating and self._busy is None:
            await self._resizer.step(self.pod, self.containers.values(), self._observed().sandbox)
        now = self.s.world.now()
        pod = self._current()
        decision = self.machine.decide(pod, self._observed(), now)
        self._track_probes()
        if self.machine.terminating and self._busy is not None and self._interruptible:
            self._busy.cancel()  # no use in waiting for an image or a hook any more
        acted = False
        for action in decision.actions:
            acted = await self._do(action, now) or acted
        over = decision.ended and self._busy is None and not self._stopper.busy
        self._report(pod, decision, over)
        if over:
            if not self._torn_down and not await self._tear_down():
                decision.wake_at(now + 0.5)
            if self._torn_down:
                self.s.status.set(self.pod, decision.status, final=True)
                if self.is_gone and not self.containers and not self.sandboxes:
                    self._forget()
                    return True
        elif self._busy is None and self.sandboxes:
            sandbox = self._observed().sandbox
            facts = self.s.facts(sandbox.ip if sandbox else "")
            self._refresher.begin_if_due(self._group, self.pod, facts, self._dirty.set)
        if not acted:
            await self._wait(decision.wake)
        return False

    def _current(self) -> core_v1.Pod:
        """The pod with the newest status that we know: ours, with what others may write into it."""
        if self._status is None or self.pod.status.phase in podstatus.TERMINAL:
            return self.pod
        owned = (*podstatus.OWNED, *CONDITIONS)
        own = [c for c in self._status.conditions or () if c.type in owned]
        foreign = [c for c in self.pod.status.conditions or () if c.type not in owned]
        status = msgspec.structs.replace(self._status, conditions=own + foreign)
        return msgspec.structs.replace(self.pod, status=status)

    async def _wait(self, wake: float | None) -> None:
        # A refresh that cannot begin now is looked at again when what it waits for is done.
        due = self._refresher.due if self._busy is None and self.sandboxes and not self._torn_down else None
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
            await self._list_sandboxes()
        stale, self._stale = self._stale, {}
        for container_id in stale:
            found = await self.s.runtime.container(container_id)
            if found is None:
                self.containers.pop(container_id, None)
                self._prober.drop(container_id)
            elif found.state != CREATED or self._busy is None:
                self._know(found)

    def _know(self, container: Container) -> None:
        self.containers[container.id] = container
        if container.state != EXITED:
            return
        self._prober.drop(container.id)
        role = self._role(container.name)
        if role is not None and container.id not in self._messages:
            self._messages[container.id] = self.starter.termination_message(
                self.pod, role.container, container.attempt, container.exit_code, container.log_path
            )

    async def _list_sandboxes(self) -> None:
        found = await self.s.runtime.list_sandboxes()
        self.sandboxes = {x.id: x for x in found if x.config.pod_uid == self.uid}

    def _observed(self) -> Observed:
        return Observed(
            sandboxes=list(self.sandboxes.values()),
            containers=list(self.containers.values()),
            probes={i: self._prober.view(i) for i, c in self.containers.items() if c.state == RUNNING},
            hooked=frozenset(self._hooked),
            messages=self._messages,
            host_ip=self.s.config.node_ip,
            gone=self.is_gone,
        )

    def _track_probes(self) -> None:
        if self.machine.terminating:
            self._prober.only_readiness()
            return
        for container in self.containers.values():
            role = self._role(container.name)
            if container.state == RUNNING and role is not None and role.kind in ("main", "sidecar"):
                before = self._before(container)
                self._prober.track(role.container, container, self._ip(container.sandbox_id), before)

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
        self._status = self._resizer.shown(decision.status, generation, now)
        self.s.status.set(self.pod, self._status)

    # --- actions ---

    async def _do(self, action: Action, now: float) -> bool:
        """Begins or does an action. True if it is done already, so that the world has changed."""
        if isinstance(action, Tell):
            if action.once not in self._told or not action.once:
                self._told[action.once] = None
                self._tell(action.type, action.reason, action.message)
            return False
        if isinstance(action, StopContainer):
            self._stop(action)
            return False
        if isinstance(action, CreateSandbox):
            self._make(self._create_sandbox(action))
            return False
        if isinstance(action, StartContainer):
            self._make(self._start(action))
            return False
        if self._busy is not None:
            return False  # what is being made must not be taken apart under it
        try:
            await self._remove(action)
        except RuntimeError_ as error:
            log.warning("pod %s: %s", self.uid, error.message)
            self._wake_in(2.0)
            return False
        return True

    async def _remove(self, action: StopSandbox | RemoveSandbox | RemoveContainer) -> None:
        runtime = self.s.runtime
        if isinstance(action, RemoveContainer):
            await runtime.remove_container(action.id)
            removed = self.containers.pop(action.id, None)
            self._messages.pop(action.id, None)
            if removed is not None and removed.log_path:
                _remove_logs(removed.log_path)
        elif isinstance(action, RemoveSandbox):
            await runtime.remove_sandbox(action.id)
            self.sandboxes.pop(action.id, None)
        else:
            await runtime.stop_sandbox(action.id)
            for container in await runtime.list_containers(action.id):
                self._know(container)
            await self._list_sandboxes()

    def _make(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Starts making something, if nothing is being made."""
        if self._busy is not None or self.machine.terminating:
            coroutine.close()
            return
        self._busy = self._group.start(self._guarded(coroutine), name=f"pod {self.pod.metadata.name}")

    async def _guarded(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except asyncio.CancelledError:
            coroutine.close()
            raise
        except Exception:
            log.exception("pod %s", self.uid)
            self._wake_in(10.0)
        finally:
            self._busy = None
            self._interruptible = False
            self._dirty.set()

    async def _create_sandbox(self, action: CreateSandbox) -> None:
        now = self.s.world.now
        if action.changed:
            self._tell("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
        try:
            self._interruptible = True
            await self.starter.volumes(self.pod)
            self._interruptible = False
            self._volume_backoff.reset()
            if self.machine.terminating:
                return
            await self.starter.sandbox(self._resizer.pod(self.pod), action.attempt)
        except VolumeError as error:
            self._tell("Warning", "FailedMount", str(error))
            self.machine.sandbox_failed(str(error), now(), self._volume_backoff.next())
        except (RuntimeError_, OSError) as error:
            message = error.message if isinstance(error, RuntimeError_) else str(error)
            self._tell("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {message}")
            self.machine.sandbox_failed(message, now())
        await self._list_sandboxes()

    async def _start(self, action: StartContainer) -> None:
        pod = self._resizer.pod(self.pod)
        role = next((r for r in roles(pod.spec) if r.container.name == action.name), None)
        sandbox = self.sandboxes.get(action.sandbox_id)
        if role is None or sandbox is None:
            return
        container = role.container
        try:
            self._interruptible = True
            if not all(v.name in self.volumes.paths for v in pod.spec.volumes or ()):
                await self.starter.volumes(pod, sandbox.ip)
            image = await self.starter.image(pod, container)
            self._interruptible = False
            if self.machine.terminating:
                return
            ended = next((c for c in self._observed().of(action.name) if c.state == EXITED), None)
            container_id = await self.starter.create(pod, container, action.attempt, sandbox, image)
        except (StartError, VolumeError) as error:
            self._start_failed(container, error)
            return
        self._resizer.made(container_id, action.name)
        self._tell("Normal", "Created", f"Created container: {action.name}", container)
        hook = container.lifecycle.post_start if container.lifecycle else None
        if hook is not None:
            self._hooked[container_id] = None
        try:
            await self.s.runtime.start_container(container_id)
        except RuntimeError_ as error:
            self._hooked.pop(container_id, None)
            found = await self.s.runtime.container(container_id)
            if found is not None and found.state == EXITED:
                self.machine.restarted(container, ended, self.s.world.now())
                self._know(found)
            else:
                await self.s.runtime.remove_container(container_id)
            self._start_failed(container, StartError("RunContainerError", error.message))
            return
        self._tell("Normal", "Started", f"Started container {action.name}", container)
        self.machine.started(action.name)
        found = await self.s.runtime.container(container_id)
        self.machine.restarted(container, ended, self.s.world.now())
        if found is not None:
            self._know(found)
        self._dirty.set()
        if hook is not None:
            await self._post_start(hook, container, container_id, sandbox)

    async def _post_start(
        self, hook: core_v1.LifecycleHandler, container: AnyContainer, container_id: str, sandbox: Sandbox
    ) -> None:
        self._interruptible = True
        try:
            await lifecycle.run(self.s.runtime, self.s.world, hook, container, container_id, self._ip(sandbox.id))
        except Outcome as outcome:
            self._tell("Warning", "FailedPostStartHook", f"PostStartHook failed: {outcome.output}", container)
            grace = float(self.pod.spec.termination_grace_period_seconds or 30)
            self._stop(
                StopContainer(container_id, container.name, self.s.world.now() + grace, "FailedPostStartHook")
            )
        finally:
            self._interruptible = False
            self._hooked.pop(container_id, None)

    def _start_failed(self, container: AnyContainer, error: StartError | VolumeError) -> None:
        now = self.s.world.now()
        if isinstance(error, VolumeError):
            self._tell("Warning", "FailedMount", str(error))
            self.machine.failed(container.name, "ContainerCreating", "", now, self._volume_backoff.next())
            return
        quiet = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")
        shown = error.reason if error.reason in quiet else error.message
        self._tell("Warning", "Failed", f"Error: {shown}", container)
        self.machine.failed(container.name, error.reason, error.message, now, error.retry_in)

    # --- the end ---

    def _stop(self, action: StopContainer) -> None:
        role, container = self._role(action.name), self.containers.get(action.id)
        ip = self._ip(container.sandbox_id) if container else ""
        self._stopper.stop(action, role.container if role else None, ip)

    def _stop_for_resize(self, container: Container) -> None:
        grace = float(self.pod.spec.termination_grace_period_seconds or 30)
        why = f"Container {container.name} resize requires restart"
        self._stop(StopContainer(container.id, container.name, self.s.world.now() + grace, why))

    def _stopped(self, container_id: str) -> None:
        self._stale[container_id] = None
        self._dirty.set()

    async def _tear_down(self) -> bool:
        """Volumes and probes of a pod of which nothing runs any more."""
        self._prober.close()
        self._refresher.stop()
        try:
            self.volumes.tear_down()
        except OSError as error:
            log.warning("pod %s: tearing down: %s", self.uid, error)
            return False
        self.s.objects.release(self.uid)
        self._torn_down = True
        return True

    def _forget(self) -> None:
        self.s.images.forget(self.uid)
        self.s.status.forget(self.uid)
        self.starter.remove_files(self.pod)

    # --- small things ---

    def _role(self, name: str) -> Role | None:
        return next((r for r in roles(self.pod.spec) if r.container.name == name), None)

    def _ip(self, sandbox_id: str) -> str:
        if self.pod.spec.host_network:
            return self.s.config.node_ip
        sandbox = self.sandboxes.get(sandbox_id)
        return sandbox.ip if sandbox else ""

    def _wake_in(self, seconds: float) -> None:
        async def later() -> None:
            await self.s.world.sleep(seconds)
            self._dirty.set()

        self._group.start(later(), name=f"retry of {self.uid}")

    def _tell(self, type_: str, reason: str, message: str, container: AnyContainer | None = None) -> None:
        """Records an event about the pod, or about one of its containers."""
        path = None
        if container is not None:
            kind = next((r.kind for r in roles(self.pod.spec) if r.container.name == container.name), "main")
            field = {"init": "initContainers", "sidecar": "initContainers", "ephemeral": "ephemeralContainers"}
            path = f"spec.{field.get(kind, 'containers')}{{{container.name}}}"
        self.s.events.event(self.pod, type_, reason, message, field_path=path)


def _remove_logs(path: str) -> None:
    file = Path(path)
    for found in sorted(file.parent.glob(f"{file.name}*")):
        found.unlink(missing_ok=True)
