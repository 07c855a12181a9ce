"""Making a pod's sandbox and containers: one thing at a time, so that starts keep the spec's order.

Whatever goes wrong, foreseen or not, ends as a failure that the state machine knows (so it waits before the next
attempt), an event that people see, and a count in the metrics.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from navarch.api.types import core_v1
from navarch.world import Backoff, TaskGroup
from nodeagent.node import counters
from nodeagent.pods import lifecycle
from nodeagent.pods.containerstarter import Starter, StartError
from nodeagent.pods.context import Services
from nodeagent.pods.handlers import Outcome
from nodeagent.pods.machine import RETRY, CreateSandbox, PodMachine, StartContainer, StopContainer
from nodeagent.pods.mishaps import Mishaps, words
from nodeagent.pods.observed import AnyContainer, Observed, Role, roles
from nodeagent.pods.resize import Resizer
from nodeagent.runtime.runtime import EXITED, Container, RuntimeError_, Sandbox
from nodeagent.volumes.manager import PodVolumes, VolumeError

log = logging.getLogger(__name__)
_QUIET = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")


class MakingFor(Protocol):
    """The worker of the pod, as far as it is needed here."""

    s: Services
    pod: core_v1.Pod
    mishaps: Mishaps
    starter: Starter
    volumes: PodVolumes
    resizer: Resizer
    sandboxes: dict[str, Sandbox]
    group: TaskGroup

    @property
    def machine(self) -> PodMachine: ...

    @property
    def granted(self) -> core_v1.Pod:
        """The pod with the resources that the node has granted it."""
        ...

    def role_of(self, name: str) -> Role | None: ...
    def ip_of(self, sandbox_id: str) -> str: ...
    def tell(self, type_: str, reason: str, message: str, container: AnyContainer | None = None) -> None:
        """Records an event about the pod, or about one of its containers."""
        ...

    def observed(self) -> Observed: ...
    def stop(self, action: StopContainer) -> None: ...
    async def know(self, container: Container) -> None: ...
    async def list_sandboxes(self) -> None: ...
    @property
    def wake(self) -> Callable[[], None]: ...


class Making:
    """``hooked``: ids of containers whose postStart hook runs."""

    def __init__(self, worker: MakingFor) -> None:
        self._w, self._s = worker, worker.s
        self.hooked: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._interruptible = False
        self._volume_backoff = Backoff(worker.s.world, first=0.5, most=120.0)

    @property
    def busy(self) -> bool:
        return self._task is not None

    def interrupt(self) -> None:
        """The pod is to end: no use in waiting for an image or a hook any more."""
        if self._task is not None and self._interruptible:
            self._task.cancel()

    def begin(self, action: CreateSandbox | StartContainer) -> None:
        """Starts making something, if nothing is being made."""
        if self._task is not None or self._w.machine.terminating:
            return
        if isinstance(action, CreateSandbox):
            work = self._guarded("", self._create_sandbox(action))
        else:
            work = self._guarded(action.name, self._start(action))
        self._task = self._w.group.start(work, name=f"pod {self._w.pod.metadata.name}")

    async def _guarded(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        """Makes the container of that name, or ("") the sandbox."""
        try:
            await coroutine
            self._w.mishaps.over(name)
        except asyncio.CancelledError:
            coroutine.close()
            raise
        except Exception as error:
            self._broke(name, error)
        finally:
            self._task = None
            self._interruptible = False
            self._w.wake()

    def _broke(self, name: str, error: Exception) -> None:
        """Something that nobody had foreseen happened."""
        w, text, role = self._w, words(error), self._w.role_of(name)
        if role is None:
            self._sandbox_failed(text, w.mishaps.note(w.pod, "create sandbox", name, error))
            return
        delay = w.mishaps.note(w.pod, "start container", name, error)
        self._count(role, "CreateContainerError")
        w.tell("Warning", "Failed", f"Error: {text}", role.container)
        w.machine.failed(name, "CreateContainerError", text, self._s.world.now(), delay)

    def _sandbox_failed(self, message: str, retry_in: float = RETRY) -> None:
        self._s.counters.add(counters.PODS, code="CreatePodSandboxError")
        self._w.tell("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {message}")
        self._w.machine.sandbox_failed(message, self._s.world.now(), retry_in)

    def _count(self, role: Role, code: str) -> None:
        shown = {"main": "container", "ephemeral": "ephemeral_container"}.get(role.kind, "init_container")
        self._s.counters.add(counters.CONTAINERS, container_type=shown, code=code)

    # --- the sandbox ---

    async def _create_sandbox(self, action: CreateSandbox) -> None:
        w = self._w
        if action.changed:
            w.tell("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
        try:
            self._interruptible = True
            await w.starter.volumes(w.pod)
            self._interruptible = False
            self._volume_backoff.reset()
            if w.machine.terminating:
                return
            await w.starter.sandbox(w.granted, action.attempt)
        except VolumeError as error:
            w.tell("Warning", "FailedMount", str(error))
            w.machine.sandbox_failed(str(error), self._s.world.now(), self._volume_backoff.next())
        except (RuntimeError_, OSError) as error:
            self._sandbox_failed(error.message if isinstance(error, RuntimeError_) else str(error))
        await w.list_sandboxes()

    # --- containers ---

    async def _start(self, action: StartContainer) -> None:
        w, pod = self._w, self._w.granted
        role = next((r for r in roles(pod.spec) if r.container.name == action.name), None)
        sandbox = w.sandboxes.get(action.sandbox_id)
        if role is None or sandbox is None:
            return
        container, container_id = role.container, ""
        try:
            container_id = await self._run(pod, role, action.attempt, sandbox)
        except (StartError, VolumeError) as error:
            self._start_failed(role, error)
        finally:
            await self._s.world.blocking(w.starter.release, container.name)
        hook = container.lifecycle.post_start if container.lifecycle else None
        if container_id and hook is not None:
            await self._post_start(hook, container, container_id, sandbox)

    async def _run(self, pod: core_v1.Pod, role: Role, attempt: int, sandbox: Sandbox) -> str:
        """Gets the image, creates the container and starts it: its id, "" if the pod is to end meanwhile.

        Raises StartError, VolumeError.
        """
        w, container, runtime = self._w, role.container, self._s.runtime
        self._interruptible = True
        if not all(v.name in w.volumes.paths for v in pod.spec.volumes or () if v.image is None):
            await w.starter.volumes(pod, sandbox.ip)
        image = await w.starter.image(pod, container)
        await w.starter.image_volumes(pod, container)
        self._interruptible = False
        if w.machine.terminating:
            return ""
        ended = next((c for c in w.observed().of(container.name) if c.state == EXITED), None)
        container_id = await w.starter.create(pod, container, attempt, sandbox, image)
        w.resizer.note_container(container_id, container.name)
        w.tell("Normal", "Created", f"Created container: {container.name}", container)
        if container.lifecycle and container.lifecycle.post_start:
            self.hooked[container_id] = None
        try:
            await runtime.start_container(container_id)
        except RuntimeError_ as error:
            self.hooked.pop(container_id, None)
            dead = await runtime.container(container_id)
            if dead is not None and dead.state == EXITED:
                w.machine.restarted(container, ended, self._s.world.now())
                await w.know(dead)
            else:
                await runtime.remove_container(container_id)
            raise StartError("RunContainerError", error.message) from error
        w.tell("Normal", "Started", f"Started container {container.name}", container)
        w.machine.started(container.name)
        running = await runtime.container(container_id)
        w.machine.restarted(container, ended, self._s.world.now())
        if running is not None:
            await w.know(running)
        w.wake()
        return container_id

    async def _post_start(
        self, hook: core_v1.LifecycleHandler, container: AnyContainer, container_id: str, sandbox: Sandbox
    ) -> None:
        w, world = self._w, self._s.world
        self._interruptible = True
        try:
            await lifecycle.run(self._s.runtime, world, hook, container, container_id, w.ip_of(sandbox.id))
        except Outcome as outcome:
            # As with kubelet the event does not say why: what a hook printed or a server answered may be a secret.
            log.warning("container %s: postStart hook failed: %s", container.name, outcome.output)
            w.tell("Warning", "FailedPostStartHook", "PostStartHook failed", container)
            grace = float(w.pod.spec.termination_grace_period_seconds or 30)
            w.stop(StopContainer(container_id, container.name, world.now() + grace, "FailedPostStartHook"))
        finally:
            self._interruptible = False
            self.hooked.pop(container_id, None)

    def _start_failed(self, role: Role, error: StartError | VolumeError) -> None:
        w, container, now = self._w, role.container, self._s.world.now()
        if isinstance(error, VolumeError):
            w.tell("Warning", "FailedMount", str(error))
            w.machine.failed(container.name, "ContainerCreating", "", now, self._volume_backoff.next())
            return
        shown = error.reason if error.reason in _QUIET else error.message
        self._count(role, error.reason)
        w.tell("Warning", "Failed", f"Error: {shown}", container)
        w.machine.failed(container.name, error.reason, error.message, now, error.retry_in)
