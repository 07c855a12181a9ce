"""How the cri runtime learns what has become of its sandboxes and containers.

What there is is kept in memory and asked for again when something may have changed: after our own calls, when a
process that we watch ends (the runtime tells pids, and we live in the same PID namespace), and every few seconds in any
case, for a runtime that restarts may have ended something. So an end is noticed at once and an idle node costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from navarch.linux import syscalls
from navarch.world import Backoff, World
from nodeagent.images.store import ImageStore
from nodeagent.linux.cgroups import Cgroups
from nodeagent.runtime.base import ImagePuller, RealRuntime
from nodeagent.runtime.cri import messages
from nodeagent.runtime.cri.client import SLOW, CriClient, CriError
from nodeagent.runtime.cri.inventory import Inventory
from nodeagent.runtime.runtime import EXITED, RUNNING, Container, Event, Sandbox
from nodeagent.runtime.watcher import Watcher
from protos import cri_pb2 as cri

log = logging.getLogger(__name__)

LOOK_EVERY = 10.0  # seconds between looks at everything
LOOK_OFTEN = 1.0  # as long as processes run whose ends we cannot watch


class Looking(RealRuntime):
    """Base of the cri runtime: its client, what it knows, and how that is kept true."""

    name = "cri"

    def __init__(
        self, world: World, images: ImageStore, cgroups: Cgroups, puller: ImagePuller | None, policy_socket: str | Path
    ) -> None:
        super().__init__(world, images, cgroups, puller, policy_socket)
        self._client: CriClient
        self._inventory = Inventory()
        self._watcher = Watcher()
        self._ended: dict[str, asyncio.Event] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def _lock(self, key: str) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    def _emit(self, kind: str, container_id: str, sandbox_id: str) -> None:
        sandbox = self._inventory.sandboxes.get(sandbox_id)
        self._tell(Event(kind, container_id, sandbox.config.pod_uid if sandbox else ""))

    async def _keep_looking(self) -> None:
        backoff = Backoff(self._world, first=LOOK_OFTEN, most=LOOK_EVERY)
        while True:
            blind = any(c.state == RUNNING and not c.pid for c in self._inventory.containers.values())
            await self._world.sleep(LOOK_OFTEN if blind else LOOK_EVERY)
            try:
                await self._look()
                backoff.reset()
            except CriError as error:
                log.warning("the container runtime does not answer: %s", error.message)
                await self._world.sleep(backoff.next())

    async def _look(self) -> None:
        """Compares what we know with what the runtime has. Raises CriError."""
        sandboxes = (await self._client.call("ListPodSandbox", cri.ListPodSandboxRequest())).items
        containers = (await self._client.call("ListContainers", cri.ListContainersRequest())).containers
        for sandbox in sandboxes:
            if self._inventory.differs_sandbox(sandbox.id, sandbox.state == cri.SANDBOX_READY):
                await self._look_at_sandbox(sandbox.id)
        for container in containers:
            if self._inventory.differs_container(container.id, messages.state(container.state)):
                await self._look_at(container.id, container.pod_sandbox_id)
        for container_id in self._inventory.gone_containers({c.id for c in containers}):
            self._forget(container_id)
        for sandbox_id in self._inventory.gone_sandboxes({s.id for s in sandboxes}):
            self._watcher.forget(sandbox_id)
            self._emit("removed", "", sandbox_id)
            self._inventory.forget_sandbox(sandbox_id)

    async def _look_at_sandbox(self, sandbox_id: str) -> Sandbox | None:
        """Asks for one sandbox's status; None if it is gone or not ours. Raises CriError."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
        try:
            answer = messages.sandbox_status(await self._client.call("PodSandboxStatus", request))
        except CriError as error:
            if error.is_gone:
                return None
            raise
        if answer is None:
            return None
        sandbox, pid = answer
        before = self._inventory.sandboxes.get(sandbox_id)
        self._inventory.sandboxes[sandbox_id] = sandbox
        self._inventory.pids[sandbox_id] = pid
        if before is not None and before.ready and not sandbox.ready:
            self._watcher.forget(sandbox_id)
            self._emit("sandbox", "", sandbox_id)
        if sandbox.ready and (before is None or not before.ready):
            self._watch(sandbox_id, pid, lambda: self._spawn(self._sandbox_ended(sandbox_id)))
        return sandbox

    async def _look_at(self, container_id: str, sandbox_id: str) -> Container | None:
        """Asks for one container's status; None if it is gone or not ours. Raises CriError."""
        request = cri.ContainerStatusRequest(container_id=container_id, verbose=True)
        try:
            answer = await self._client.call("ContainerStatus", request)
            if answer.status.state == cri.CONTAINER_UNKNOWN:  # its shim is gone, and nobody knows: end it for good
                await self._client.call("StopContainer", cri.StopContainerRequest(container_id=container_id), SLOW)
                answer = await self._client.call("ContainerStatus", request)
        except CriError as error:
            if error.is_gone:
                return None
            raise
        container = messages.container_status(answer, sandbox_id, self.name)
        if container is None:
            return None
        before = self._inventory.containers.get(container_id)
        self._inventory.containers[container_id] = container
        self._inventory.streams[container_id] = messages.streams(answer)
        ended = self._ended.setdefault(container_id, asyncio.Event())
        if container.state == RUNNING and (before is None or before.state != RUNNING):
            self._watch(container_id, container.pid, lambda: self._spawn(self._container_ended(container_id)))
            if before is not None:
                self._emit("started", container_id, sandbox_id)
        if container.state == EXITED and not ended.is_set():
            self._watcher.forget(container_id)
            ended.set()
            self._emit("exited", container_id, sandbox_id)
        return container

    def _watch(self, key: str, pid: int, ended: Callable[[], None]) -> None:
        if pid:
            self._watcher.watch(key, pid, syscalls.start_time(pid), ended)

    async def _sandbox_ended(self, sandbox_id: str) -> None:
        await self._until_told(lambda: self._sandbox_is_down(sandbox_id))

    async def _sandbox_is_down(self, sandbox_id: str) -> bool:
        sandbox = await self._look_at_sandbox(sandbox_id)
        return sandbox is None or not sandbox.ready

    async def _container_ended(self, container_id: str) -> None:
        await self._until_told(lambda: self._container_is_down(container_id))

    async def _container_is_down(self, container_id: str) -> bool:
        container = self._inventory.containers.get(container_id)
        if container is None or container.state == EXITED:
            return True
        now = await self._look_at(container_id, container.sandbox_id)
        return now is None or now.state == EXITED

    async def _until_told(self, is_down: Callable[[], Awaitable[bool]]) -> None:
        """A process has ended: the runtime says so a moment later."""
        backoff = Backoff(self._world, first=0.005, most=1.0)
        while True:
            try:
                if await is_down():
                    return
            except CriError as error:
                log.warning("after an end: %s", error.message)
            await self._world.sleep(backoff.next())

    def _forget(self, container_id: str) -> None:
        """A container is gone."""
        container = self._inventory.containers.get(container_id)
        if container is None:
            return
        self._watcher.forget(container_id)
        self._ended.pop(container_id).set()
        self._emit("removed", container_id, container.sandbox_id)
        self._inventory.forget_container(container_id)
        self._locks.pop(container_id, None)

