"""The simulated runtime: no containers, only their states, which change as the pods declare (see stages).

:class:`HollowNode` is the state of one simulated machine; what happens there by itself (a container that exits) hangs
on timers shared by all nodes, so that neither node nor pod needs a task. :class:`HollowRuntime` puts the Runtime
protocol on top, for the real agent.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from navarch.api.usage import declared, declared_disk
from navarch.world import World
from nodeagent.hollow.timers import Timers
from nodeagent.images.credentials import Login
from nodeagent.linux.cgroups import NodeUsage, Usage
from nodeagent.linux.diskusage import DiskUse
from nodeagent.runtime.runtime import (
    CREATED,
    EXITED,
    RUNNING,
    CollectedImages,
    Container,
    ContainerConfig,
    Event,
    Image,
    ImagePolicy,
    Process,
    Resources,
    RuntimeError_,
    Sandbox,
    SandboxConfig,
)
from nodeagent.runtime.stages import NORMAL, Drawn, Stages, stages

KILLED = 137
IMAGE_SIZE = 10_000_000


class HollowNode:
    """One simulated machine. ``changed(event)`` is called at every change; operations take effect at once."""

    def __init__(
        self,
        world: World,
        timers: Timers,
        changed: Callable[[Event], None],
        default: Stages = NORMAL,
        boots: int = 0,
    ) -> None:
        self._world, self._timers, self._changed = world, timers, changed
        self.default = default
        self.sandboxes: dict[str, Sandbox] = {}
        self.containers: dict[str, Container] = {}
        self.images: dict[str, Image] = {}  # by reference
        self._stages: dict[str, Drawn] = {}  # by container id
        self._in_sandbox: dict[str, dict[str, None]] = {}  # sandbox id -> its containers' ids
        self._in_pod: dict[str, dict[str, None]] = {}  # pod uid -> its sandboxes' ids
        self._network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
        self._next_address = 0
        self._addresses: dict[str, None] = {}
        self.boots = boots

    def power_off(self) -> None:
        """Everything that runs is gone without a word; images stay on the disk."""
        self.boots += 1
        self.sandboxes, self.containers, self._stages = {}, {}, {}
        self._in_sandbox, self._in_pod, self._addresses = {}, {}, {}

    def configure(self, pod_cidr: str) -> None:
        network = ipaddress.ip_network(pod_cidr.partition(",")[0])
        if network != self._network:
            self._network, self._next_address = network, 0

    @property
    def configured(self) -> bool:
        """Whether the pod range is known."""
        return self._network is not None

    def of_pod(self, uid: str) -> tuple[list[Sandbox], list[Container]]:
        """All that is here of one pod."""
        mine = self._in_pod.get(uid, {})
        containers = [self.containers[c] for s in mine for c in self._in_sandbox[s]]
        return [self.sandboxes[s] for s in mine], containers

    def image(self, reference: str) -> Image | None:
        image = self.images.get(reference)
        return image or next((i for i in self.images.values() if i.id == reference), None)

    def add_image(self, reference: str) -> Image:
        digest = "sha256:" + hashlib.sha256(reference.encode()).hexdigest()
        image = Image(digest, (reference,), (f"{reference.partition('@')[0]}@{digest}",), IMAGE_SIZE)
        return self.images.setdefault(reference, image)

    def add_sandbox(self, config: SandboxConfig) -> Sandbox:
        ip = "" if config.host_network else self._address()
        identity = _id(config.pod_uid, "sandbox", config.attempt, self.boots)
        sandbox = Sandbox(identity, config, True, self._world.now(), ip)
        self.sandboxes[identity] = sandbox
        self._in_sandbox[identity] = {}
        self._in_pod.setdefault(config.pod_uid, {})[identity] = None
        self._changed(Event("sandbox", "", config.pod_uid))
        return sandbox

    def restore_sandbox(self, config: SandboxConfig, created: float, ip: str) -> Sandbox:
        """Puts back, without a word, a sandbox that was here when the state of the machine was last known."""
        identity = _id(config.pod_uid, "sandbox", config.attempt, self.boots)
        sandbox = self.sandboxes[identity] = Sandbox(identity, config, True, created, ip)
        self._in_sandbox[identity] = {}
        self._in_pod.setdefault(config.pod_uid, {})[identity] = None
        if ip:
            self._addresses[ip] = None
        return sandbox

    def restore_container(self, container: Container, declared: Drawn) -> None:
        """As :meth:`restore_sandbox`. One that runs for a declared time ends when that is over."""
        self.containers[container.id] = container
        self._stages[container.id] = declared
        self._in_sandbox[container.sandbox_id][container.id] = None
        if container.state == RUNNING and declared.run is not None:
            remaining = container.started + declared.run - self._world.now()
            self._timers.after(max(0.0, remaining), self._exiting(container.id, declared.exit_code))

    def stop_sandbox(self, sandbox_id: str) -> None:
        sandbox = self.sandboxes.get(sandbox_id)
        if sandbox is None or not sandbox.ready:
            return
        for container_id in list(self._in_sandbox[sandbox_id]):
            self._exit(container_id, KILLED)
        self._addresses.pop(sandbox.ip, None)
        self.sandboxes[sandbox_id] = replace(sandbox, ready=False, ip="")
        self._changed(Event("sandbox", "", sandbox.config.pod_uid))

    def remove_sandbox(self, sandbox_id: str) -> None:
        self.stop_sandbox(sandbox_id)
        for container_id in list(self._in_sandbox.get(sandbox_id, ())):
            self.remove_container(container_id)
        sandbox = self.sandboxes.pop(sandbox_id, None)
        self._in_sandbox.pop(sandbox_id, None)
        if sandbox is not None:
            mine = self._in_pod[sandbox.config.pod_uid]
            del mine[sandbox_id]
            if not mine:
                del self._in_pod[sandbox.config.pod_uid]

    def add_container(self, sandbox_id: str, config: ContainerConfig, declared: Drawn) -> Container:
        sandbox = self.sandboxes.get(sandbox_id)
        if sandbox is None or not sandbox.ready:
            raise RuntimeError_("CreateContainerError", f"sandbox {sandbox_id} is not running")
        identity = _id(sandbox.config.pod_uid, config.name, config.attempt, self.boots)
        container = Container(
            identity, sandbox_id, config.name, config.attempt, config.image, config.image, CREATED, self._world.now(),
            labels=dict(config.labels), annotations=dict(config.annotations),
        )  # fmt: skip
        self.containers[identity] = container
        self._stages[identity] = declared
        self._in_sandbox[sandbox_id][identity] = None
        return container

    def start_container(self, container_id: str) -> None:
        container = self.containers[container_id]
        declared = self._stages[container_id]
        now = self._world.now()
        if declared.fail == "start":
            failed = replace(
                container, state=EXITED, started=now, finished=now, exit_code=128, reason="StartError",
                message="the pod declares that this container cannot start",
            )  # fmt: skip
            self.containers[container_id] = failed
            raise RuntimeError_("RunContainerError", failed.message)
        self.containers[container_id] = replace(container, state=RUNNING, started=now)
        if declared.run is not None:
            self._timers.after(declared.run, self._exiting(container_id, declared.exit_code))
        self._tell("started", container_id)

    def stop_container(self, container_id: str, grace: float) -> float:
        """Begins to stop it; gives the seconds until it is dead."""
        container = self.containers.get(container_id)
        if container is None or container.state == EXITED:
            return 0.0
        declared = self._stages[container_id]
        in_time = declared.stop <= grace
        delay = declared.stop if in_time else max(0.0, grace)
        self._timers.after(delay, self._exiting(container_id, declared.stop_code if in_time else KILLED))
        return delay

    def remove_container(self, container_id: str) -> None:
        container = self.containers.get(container_id)
        if container is None:
            return
        self._exit(container_id, KILLED)
        del self.containers[container_id], self._stages[container_id]
        self._in_sandbox.get(container.sandbox_id, {}).pop(container_id, None)

    def kill(self, container_id: str, exit_code: int = KILLED, reason: str = "") -> None:
        """A fault from outside: the container dies now."""
        self._exit(container_id, exit_code, reason)

    def declared(self, container_id: str) -> Drawn:
        return self._stages[container_id]

    def _exiting(self, container_id: str, exit_code: int) -> Callable[[], None]:
        boots = self.boots

        def exits() -> None:
            if boots == self.boots:
                self._exit(container_id, exit_code)

        return exits

    def _exit(self, container_id: str, exit_code: int, reason: str = "") -> None:
        container = self.containers.get(container_id)
        if container is None or container.state == EXITED:
            return
        ran = container.state == RUNNING
        self.containers[container_id] = replace(
            container,
            state=EXITED,
            finished=self._world.now(),
            exit_code=exit_code,
            signal=9 if exit_code == KILLED else 0,
            reason=reason or ("Completed" if exit_code == 0 else "Error"),
        )
        if ran:
            self._tell("exited", container_id)

    def _tell(self, kind: str, container_id: str) -> None:
        sandbox = self.sandboxes.get(self.containers[container_id].sandbox_id)
        self._changed(Event(kind, container_id, sandbox.config.pod_uid if sandbox else ""))

    def _address(self) -> str:
        """The next free pod address, round and round; the first two belong to the network and its bridge."""
        if self._network is None:
            raise RuntimeError_("NetworkNotReady", "the node has no pod range yet")
        size = self._network.num_addresses - 3
        for _ in range(size):
            ip = str(self._network[2 + self._next_address % size])
            self._next_address += 1
            if ip not in self._addresses:
                self._addresses[ip] = None
                return ip
        raise RuntimeError_("NetworkNotReady", f"no free address in {self._network}")


def _id(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


class HollowRuntime:
    """The Runtime protocol on a HollowNode. Stages come from the annotations of sandbox and container."""

    name = "hollow"
    handlers: tuple[str, ...] = ("",)
    version = "1"

    def __init__(self, world: World, default: Stages = NORMAL) -> None:
        self._world = world
        self._listeners: list[asyncio.Queue[Event]] = []
        self._timers = Timers(world)
        self.node = HollowNode(world, self._timers, self._changed, default)

    def _changed(self, event: Event) -> None:
        for queue in self._listeners:
            queue.put_nowait(event)

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        self._timers.clear()

    async def configure(self, pod_cidr: str) -> None:
        self.node.configure(pod_cidr)

    async def run_sandbox(self, config: SandboxConfig) -> str:
        await self._world.sleep(stages(config.annotations, default=self.node.default).drawn(self._world.random).sandbox)
        return self.node.add_sandbox(config).id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        self.node.stop_sandbox(sandbox_id)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        self.node.remove_sandbox(sandbox_id)

    async def list_sandboxes(self) -> list[Sandbox]:
        return list(self.node.sandboxes.values())

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        sandbox = self.node.sandboxes.get(sandbox_id)
        annotations = {**(sandbox.config.annotations if sandbox else {}), **config.annotations}
        declared = stages(annotations, config.name, self.node.default).drawn(self._world.random)
        if declared.fail == "create":
            text = "the pod declares that this container cannot be made"
            raise RuntimeError_("CreateContainerError", text)
        return self.node.add_container(sandbox_id, config, declared).id

    async def start_container(self, container_id: str) -> None:
        await self._world.sleep(self.node.declared(container_id).start)
        if container_id not in self.node.containers:
            raise RuntimeError_("RunContainerError", "the container is gone")
        self.node.start_container(container_id)

    async def stop_container(self, container_id: str, grace: float) -> None:
        await self._world.sleep(self.node.stop_container(container_id, grace))
        container = self.node.containers.get(container_id)
        if container is not None and container.state != EXITED:
            self.node.kill(container_id, self.node.declared(container_id).stop_code)

    async def remove_container(self, container_id: str) -> None:
        self.node.remove_container(container_id)

    async def list_containers(self, sandbox_id: str | None = None) -> list[Container]:
        containers = self.node.containers.values()
        return [c for c in containers if sandbox_id is None or c.sandbox_id == sandbox_id]

    async def container(self, container_id: str) -> Container | None:
        return self.node.containers.get(container_id)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> tuple[int, bytes]:
        """Every command succeeds without a word, in a container that runs."""
        container = self.node.containers.get(container_id)
        if container is None or container.state != RUNNING:
            raise RuntimeError_("ExecFailed", "the container is not running")
        return 0, b""

    async def exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> Process:
        raise RuntimeError_("NotSupported", "simulated containers have no processes to talk to")

    async def attach(self, container_id: str, *, stdin: bool) -> Process:
        raise RuntimeError_("NotSupported", "simulated containers have no processes to talk to")

    async def port_forward(self, sandbox_id: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise RuntimeError_("NotSupported", "simulated pods listen on no ports")

    async def reopen_log(self, container_id: str) -> None:
        pass

    async def events(self) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)

    async def image(self, reference: str) -> Image | None:
        return self.node.image(reference)

    async def pull(self, reference: str, logins: Sequence[Login] = ()) -> Image:
        await self._world.sleep(self.node.default.drawn(self._world.random).pull)
        if self.node.default.fail == "pull":
            raise RuntimeError_("ErrImagePull", f"no such image: {reference}")
        return self.node.add_image(reference)

    async def images(self) -> list[Image]:
        return list(self.node.images.values())

    async def image_volume(self, pod_uid: str, name: str, image_id: str) -> Path:
        return Path("/")  # nothing is mounted

    async def collect_images(self, policy: ImagePolicy) -> CollectedImages:
        return CollectedImages()  # a simulated disk is never full

    async def remove_image(self, image_id: str) -> None:
        if any(c.image_id == image_id and c.state != EXITED for c in self.node.containers.values()):
            raise RuntimeError_("ImageInUse", f"image {image_id} is in use")
        for reference in [r for r, i in self.node.images.items() if i.id == image_id]:
            del self.node.images[reference]

    async def resize_container(self, container_id: str, resources: Resources) -> None:
        return None

    async def resize_sandbox(self, sandbox_id: str, resources: Resources) -> None:
        return None

    async def layers(self, container_ids: Sequence[str], max_age: float) -> Mapping[str, DiskUse]:
        out = {}
        for container in [self.node.containers[i] for i in container_ids if i in self.node.containers]:
            annotations = self.node.sandboxes[container.sandbox_id].config.annotations
            out[container.id] = DiskUse(declared_disk(annotations, container.name), 1)
        return out

    async def usage(self) -> NodeUsage:
        usages, now = {}, self._world.now()
        for container in self.node.containers.values():
            if container.state == RUNNING:
                annotations = self.node.sandboxes[container.sandbox_id].config.annotations
                nanos, size = declared(annotations, container.name)
                usages[container.id] = Usage(nanos / 1e9 * (now - container.started), size, size, 1, size)
        return NodeUsage(None, {}, usages)


__all__ = ["HollowNode", "HollowRuntime"]
