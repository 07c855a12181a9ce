"""The cri runtime: sandboxes and containers of containerd, or of another runtime that speaks CRI, over gRPC.

Pods' cgroups and networks are ours, as with the oci runtime, and so are images (images.py). Containers hang on the runtime's
shims: they live through our restart and through the runtime's. A call that was cancelled is finished all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from navarch.linux.cgroups import Limits
from navarch.world import Backoff, World
from nodeagent.images.store import ImageStore, Settings
from nodeagent.linux.cgroups import Cgroups, NodeUsage
from nodeagent.linux.diskusage import DiskUse
from nodeagent.network.network import PodNetwork
from nodeagent.runtime import cdi, devicenodes, portforward, spec
from nodeagent.runtime.base import ImagePuller
from nodeagent.runtime.cri import messages, network
from nodeagent.runtime.cri.client import SLOW, CriClient, CriError
from nodeagent.runtime.cri.commands import Commands
from nodeagent.runtime.cri.images import Importer, ImportFailed
from nodeagent.runtime.cri.inventory import use_key
from nodeagent.runtime.cri.layout import PAUSE_IMAGE, cni_socket
from nodeagent.runtime.runtime import (
    CREATED,
    RUNNING,
    CollectedImages,
    Container,
    ContainerConfig,
    Image,
    ImagePolicy,
    Resources,
    RuntimeError_,
    Sandbox,
    SandboxConfig,
)
from protos import cri_pb2 as cri

T = TypeVar("T")

log = logging.getLogger(__name__)

ATTEMPTS = 6
STATUS_PATIENCE = 5.0  # seconds
START_PATIENCE = 60.0  # seconds that a runtime may take until it answers


class CriRuntime(Commands):
    """``socket`` is the runtime's; ``run_dir`` a directory on the node's /run, ``data`` one on a disk."""

    handlers: tuple[str, ...] = ("",)

    def __init__(
        self,
        world: World,
        *,
        socket: str | Path,
        run_dir: str | Path,
        data: str | Path,
        images: ImageStore,
        cgroups: Cgroups,
        mtu: int = 0,
        puller: ImagePuller | None = None,
        seccomp_directory: str | Path = "/var/lib/kubelet/seccomp",
        policy_socket: str | Path = "",
    ) -> None:
        super().__init__(world, images, cgroups, puller, policy_socket)
        self.version = ""
        self._socket, self._run_dir, self._data = Path(socket), Path(run_dir), Path(data).absolute()
        self._profiles = str(seccomp_directory)
        self._network = PodNetwork(mtu)
        self._networks = network.SandboxNetworks(self._run_dir / "cri" / "networks", self._network)
        self._importer = Importer(images, self._socket)
        self._server: asyncio.AbstractServer | None = None
        self._looker: asyncio.Task[None] | None = None

    # -- plumbing

    async def _whole(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Finishes what must not be cut short; a cancelled caller waits for it all the same."""
        task = asyncio.get_running_loop().create_task(coroutine)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            raise

    async def start(self) -> None:
        self._client = CriClient(self._socket)
        try:
            version = await self._client.call("Version", cri.VersionRequest(), START_PATIENCE)
            status = await self._client.call("Status", cri.StatusRequest(verbose=True))
        except CriError as error:
            raise RuntimeError_("RuntimeNotReady", f"no CRI runtime at {self._socket}: {error.message}") from error
        self.name, self.version = version.runtime_name, version.runtime_version
        self.handlers = messages.handlers(status)
        await self._call(lambda: self._data.mkdir(parents=True, exist_ok=True))
        await self._look()
        await self._call(self._networks.load, list(self._inventory.sandboxes))
        keep = [use_key(c.sandbox_id, c.name, c.attempt) for c in self._inventory.containers.values()]
        await self._call(self._images.release_node, self._data, keep)
        self._server = await network.serve(cni_socket(self._run_dir), self._networks, self._call)
        await self._have_image(PAUSE_IMAGE, self._importer.pause)
        self._looker = asyncio.get_running_loop().create_task(self._keep_looking())

    async def close(self) -> None:
        self._watcher.close()
        self._tell(None)
        if self._looker is not None:
            self._looker.cancel()
            await asyncio.wait([self._looker])
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=1.0)
        for task in list(self._tasks):
            task.cancel()
        if self._server is not None:
            self._server.close()
        await self._client.close()
        self._pool.shutdown()
        self._network.close()

    async def configure(self, pod_cidr: str) -> None:
        await self._call(self._network.configure, pod_cidr)

    # -- sandboxes

    async def run_sandbox(self, config: SandboxConfig) -> str:
        if not config.host_network and self._network.pool.network is None:
            raise RuntimeError_("NetworkNotReady", "the node has no pod range (podCIDR) yet")
        return await self._whole(self._run_sandbox(config))

    async def _run_sandbox(self, config: SandboxConfig) -> str:
        limits = config.resources
        own = Limits(limits.cpu_shares, limits.cpu_quota, limits.cpu_period, limits.memory_limit, limits.pids_limit)

        def prepare() -> None:
            self._cgroups.ensure(config.cgroup, own)
            if config.log_directory:
                Path(config.log_directory).mkdir(parents=True, exist_ok=True)

        try:
            await self._call(prepare)
            message = messages.sandbox(config, self._cgroups.path(config.cgroup))
            request = cri.RunPodSandboxRequest(config=message, runtime_handler=config.runtime_handler)
            sandbox_id: str = (await self._client.call("RunPodSandbox", request, SLOW)).pod_sandbox_id
            sandbox = await self._look_at_sandbox(sandbox_id)
        except (OSError, CriError) as error:
            await self._clean_up_after(config)
            raise RuntimeError_("CreatePodSandboxError", _words(error)) from error
        if sandbox is None:
            raise RuntimeError_("CreatePodSandboxError", f"sandbox {sandbox_id} was removed at once")
        await self._wait_isolated(config, sandbox.ip)
        return sandbox_id

    async def _clean_up_after(self, config: SandboxConfig) -> None:
        """A sandbox that could not be made may be left all the same, if the runtime could not take it down."""
        before = set(self._inventory.sandboxes)
        with contextlib.suppress(CriError, RuntimeError_):  # else the next look finds it, and the agent removes it
            await self._look()
            for sandbox in await self.list_sandboxes():
                same = (sandbox.config.pod_uid, sandbox.config.attempt) == (config.pod_uid, config.attempt)
                if same and sandbox.id not in before:
                    await self._remove_sandbox(sandbox.id)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await self._whole(self._stop_sandbox(sandbox_id))

    async def _stop_sandbox(self, sandbox_id: str) -> None:
        if sandbox_id not in self._inventory.sandboxes:
            return
        inside = [c.id for c in self._inventory.inside(sandbox_id)]
        await asyncio.gather(*(self.stop_container(container_id, 0) for container_id in inside))
        async with self._lock(sandbox_id):
            sandbox = self._inventory.sandboxes.get(sandbox_id)
            if sandbox is None or sandbox_id in self._inventory.stopped:
                return
            await self._do("StopPodSandbox", cri.PodSandboxRequest(pod_sandbox_id=sandbox_id), "KillPodSandboxError")
            await self._refresh_sandbox(sandbox_id)
            self._inventory.stopped.add(sandbox_id)

    async def _refresh_sandbox(self, sandbox_id: str) -> None:
        with contextlib.suppress(CriError):  # the next look finds it
            await self._look_at_sandbox(sandbox_id)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self._whole(self._remove_sandbox(sandbox_id))

    async def _remove_sandbox(self, sandbox_id: str) -> None:
        if sandbox_id not in self._inventory.sandboxes:
            return
        await self._stop_sandbox(sandbox_id)
        for container in self._inventory.inside(sandbox_id):
            await self._remove_container(container.id)
        async with self._lock(sandbox_id):
            sandbox = self._inventory.sandboxes.get(sandbox_id)
            if sandbox is None:
                return
            await self._do("RemovePodSandbox", cri.PodSandboxRequest(pod_sandbox_id=sandbox_id), "RemovePodSandboxError")
            cgroup = sandbox.config.cgroup
            if cgroup and not self._inventory.others_in(cgroup, sandbox_id):
                await self._call(self._cgroups.remove, cgroup)
            self._emit("removed", "", sandbox_id)
            self._inventory.forget_sandbox(sandbox_id)
            self._locks.pop(sandbox_id, None)

    async def _do(self, method: str, request: Any, reason: str, timeout: float = SLOW) -> None:
        """A call that may be repeated, and was in vain if its object is gone. Raises RuntimeError_ with ``reason``."""
        backoff = Backoff(self._world, first=0.05, most=1.0)
        for attempt in range(ATTEMPTS):
            try:
                await self._client.call(method, request, timeout)
                return
            except CriError as error:
                if error.is_gone:
                    return
                # It ended in the middle, or still does what an agent before us asked for.
                passing = error.code == "UNAVAILABLE" or "already in removing state" in error.message
                if attempt + 1 == ATTEMPTS or not passing:
                    raise RuntimeError_(reason, error.message) from error
            await self._world.sleep(backoff.next())

    async def list_sandboxes(self) -> list[Sandbox]:
        return list(self._inventory.sandboxes.values())

    # -- containers

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        return await self._whole(self._create_container(sandbox_id, config))

    async def _create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        sandbox = self._inventory.sandboxes.get(sandbox_id)
        if sandbox is None or not sandbox.ready:
            raise RuntimeError_("CreateContainerError", f"sandbox {sandbox_id} is not ready")
        if config.target:
            self._running(config.target)
        settings, image_id = await self._call(self._stored, config)
        spec.check_non_root(config, sandbox.config, settings)
        config = await self._call(cdi.resolved, config)
        await self._call(devicenodes.nodes, config.devices)  # says what is no device, in the words of the oci runtime
        message = messages.container(config, sandbox.config, settings, image_id, self._profiles)
        key = use_key(sandbox_id, config.name, config.attempt)
        try:
            await self._call(self._images.use, self._data, key, config.image)
            await self._have_image(config.image, lambda: self._importer.image(config.image))
            request = cri.CreateContainerRequest(
                pod_sandbox_id=sandbox_id,
                config=message,
                sandbox_config=messages.sandbox(sandbox.config, self._cgroups.path(sandbox.config.cgroup)),
            )
            container_id: str = (await self._client.call("CreateContainer", request, SLOW)).container_id
            container = await self._look_at(container_id, sandbox_id)
        except (OSError, KeyError, CriError, RuntimeError_) as error:
            await self._call(self._images.release, self._data, key)
            raise RuntimeError_("CreateContainerError", _words(error)) from error
        if container is None:
            raise RuntimeError_("CreateContainerError", f"container {container_id} was removed at once")
        return container_id

    def _stored(self, config: ContainerConfig) -> tuple[Settings, str]:
        """The image's settings, and the image as statuses name it. Blocks; raises RuntimeError_."""
        record = self._images.record(config.image) if config.image.startswith("sha256:") else None
        if record is None:
            raise RuntimeError_("CreateContainerError", f'image "{config.image}" not found')
        return self._images.config(record.id).config or Settings(), record.identity(config.image_name)

    async def _have_image(self, image: str, bring: Any) -> None:
        """Imports an image if the runtime does not have it. Raises RuntimeError_ (CreateContainerError)."""
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=image))
        async with self._lock(f"image {image}"):
            try:
                if (await self._client.call("ImageStatus", request)).HasField("image"):
                    return
                await self._call(bring)
                backoff = Backoff(self._world, first=0.005, most=0.5)
                async with asyncio.timeout(SLOW):  # its CRI side hears of the image by an event
                    while not (await self._client.call("ImageStatus", request)).HasField("image"):
                        await self._world.sleep(backoff.next())
            except (CriError, ImportFailed, TimeoutError) as error:
                raise RuntimeError_("CreateContainerError", f"cannot import image {image}: {_words(error)}") from error

    async def start_container(self, container_id: str) -> None:
        await self._whole(self._start_container(container_id))

    async def _start_container(self, container_id: str) -> None:
        async with self._lock(container_id):
            container = self._of(container_id)
            if container.state != CREATED:
                text = f"container {container_id} is {container.state}, not created"
                raise RuntimeError_("RunContainerError", text)
            failure = ""
            try:
                await self._client.call("StartContainer", cri.ContainerRequest(container_id=container_id), SLOW)
            except CriError as error:
                failure = error.message
            try:
                await self._look_at(container_id, container.sandbox_id)
            except CriError as error:
                failure = failure or error.message
        if failure:
            raise RuntimeError_("RunContainerError", failure)

    async def stop_container(self, container_id: str, grace: float) -> None:
        container = self._inventory.containers.get(container_id)
        if container is None or container.state != RUNNING:
            return
        request = cri.StopContainerRequest(container_id=container_id, timeout=math.ceil(max(0.0, grace)))
        await self._do("StopContainer", request, "KillContainerError", request.timeout + SLOW)
        with contextlib.suppress(CriError):
            await self._look_at(container_id, container.sandbox_id)

    async def remove_container(self, container_id: str) -> None:
        await self._whole(self._remove_container(container_id))

    async def _remove_container(self, container_id: str) -> None:
        await self.stop_container(container_id, 0)
        async with self._lock(container_id):
            container = self._inventory.containers.get(container_id)
            if container is None:
                return
            await self._do("RemoveContainer", cri.ContainerRequest(container_id=container_id), "RemoveContainerError")
            key = use_key(container.sandbox_id, container.name, container.attempt)
            await self._call(self._images.release, self._data, key)
            self._forget(container_id)

    async def list_containers(self, sandbox_id: str | None = None) -> list[Container]:
        return list(self._inventory.containers.values() if sandbox_id is None else self._inventory.inside(sandbox_id))

    async def container(self, container_id: str) -> Container | None:
        return self._inventory.containers.get(container_id)

    # -- streams

    async def port_forward(self, sandbox_id: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sandbox = self._inventory.sandboxes.get(sandbox_id)
        if sandbox is None or not sandbox.ready:
            raise RuntimeError_("PortForwardError", f"sandbox {sandbox_id} is not running")
        pid = self._inventory.pids.get(sandbox_id, 0)
        pin = None if sandbox.config.host_network else Path(f"/proc/{pid}/ns/net")
        return await portforward.connect(self._call, pin, port)

    # -- images

    async def images(self) -> list[Image]:
        """The store's. Raises RuntimeError_ (RuntimeNotReady) when the runtime says, or shows, that it is not well: the agent
        asks often, to tell on its Node."""
        try:
            status = (await self._client.call("Status", cri.StatusRequest(), STATUS_PATIENCE)).status
        except CriError as error:
            raise RuntimeError_("RuntimeNotReady", f"{self._socket} does not answer: {error.message}") from error
        if trouble := messages.trouble(status):
            raise RuntimeError_("RuntimeNotReady", trouble)
        return await super().images()

    async def collect_images(self, policy: ImagePolicy) -> CollectedImages:
        """The store's, and then the runtime's copies of what the store has no more."""
        done = await super().collect_images(policy)
        try:
            copies = [i.id for i in (await self._client.call("ListImages", cri.ListImagesRequest())).images]
            pause = await self._client.call("ImageStatus", cri.ImageStatusRequest(image=cri.ImageSpec(image=PAUSE_IMAGE)))
            keep = {pause.image.id, *(image.id for image in await self.images())}
            for image_id in copies:
                if image_id not in keep:
                    request = cri.RemoveImageRequest(image=cri.ImageSpec(image=image_id))
                    await self._client.call("RemoveImage", request)
        except CriError as error:
            raise RuntimeError_("ImageGCFailed", error.message) from error
        return done

    # -- limits and usage

    def _cgroup_of(self, container: Container) -> str:
        sandbox = self._inventory.sandboxes.get(container.sandbox_id)
        return self._cgroups.path(f"{sandbox.config.cgroup}/{container.id}") if sandbox else ""

    async def resize_container(self, container_id: str, resources: Resources) -> None:
        container = self._inventory.containers.get(container_id)
        if container is None or container.state != RUNNING:
            raise RuntimeError_("ResizeError", f"container {container_id} does not run")
        await self._call(self._check_room, self._cgroup_of(container), resources)
        linux = messages.changed_resources(resources)
        request = cri.UpdateContainerResourcesRequest(container_id=container_id, linux=linux)
        try:
            await self._client.call("UpdateContainerResources", request)
        except CriError as error:
            raise RuntimeError_("ResizeError", error.message) from error

    async def resize_sandbox(self, sandbox_id: str, resources: Resources) -> None:
        sandbox = self._inventory.sandboxes.get(sandbox_id)
        if sandbox is None:
            raise RuntimeError_("ResizeError", f"sandbox {sandbox_id} does not exist")
        if sandbox.config.cgroup:
            await self._resize(self._cgroups.path(sandbox.config.cgroup), resources)

    async def image_volume(self, pod_uid: str, name: str, image_id: str) -> Path:
        raise RuntimeError_("CreateContainerError", "image volumes are not supported on this runtime")

    async def layers(self, container_ids: Sequence[str], max_age: float) -> Mapping[str, DiskUse]:
        """As the runtime measures them, every ten seconds."""
        try:
            stats = (await self._client.call("ListContainerStats", cri.ListContainerStatsRequest())).stats
        except CriError as error:
            log.warning("sizes of writable layers: %s", error.message)
            return {}
        asked_for = frozenset(container_ids)
        return {
            each.attributes.id: DiskUse(each.writable_layer.used_bytes.value, each.writable_layer.inodes_used.value)
            for each in stats
            if each.attributes.id in asked_for and each.HasField("writable_layer")
        }

    async def usage(self) -> NodeUsage:
        containers = {c.id: self._cgroup_of(c) for c in self._inventory.containers.values() if c.state == RUNNING}
        configs = [s.config for s in self._inventory.sandboxes.values() if s.config.cgroup]
        return await self._usage({c.pod_uid: self._cgroups.path(c.cgroup) for c in configs}, containers)


def _words(error: BaseException) -> str:
    return str(getattr(error, "message", "")) or str(error)
