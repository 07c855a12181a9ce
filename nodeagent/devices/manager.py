"""The device manager: plugins register here, pods get devices before they start, and give them back when they have ended.

The protocol is kubelet's (device plugin API v1beta1). A plugin calls Register on ``kubelet.sock``; the agent then follows its
list of devices. When the agent starts, it makes that socket anew, which is how plugins notice that they must register again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from navarch.api import names, resources
from navarch.api.pods import all_containers
from navarch.api.types import core_v1
from navarch.rpc.sockets import Caller, Method, Refusal, RpcError, Server
from navarch.world import TaskGroup, World
from nodeagent.devices import ledger as ledgers
from nodeagent.devices.ledger import DeviceError, Gift, Ledger, Share
from nodeagent.devices.plugin import DevicePlugin
from protos import deviceplugin_pb2 as messages

log = logging.getLogger(__name__)
VERSION = "v1beta1"
PATIENCE = 300.0  # seconds after which a resource whose plugin went is no longer shown, as kubelet has it


class DeviceManager:
    """``folder`` has the sockets, ``file`` the ledger. ``changed`` is called when the node's devices have changed."""

    def __init__(self, world: World, folder: Path, file: Path) -> None:
        self._world, self._folder, self._file = world, folder, file
        self.changed: Callable[[], None] = lambda: None
        self.ledger = Ledger()
        self._plugins: dict[str, DevicePlugin] = {}
        self._absent: dict[str, float] = {}  # resource without a plugin -> since when (monotonic)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._saving = asyncio.Lock()
        self._group: TaskGroup

    # --- for the Node object ---

    def manages(self, resource: str) -> bool:
        """Whether a plugin has registered the resource, now or before."""
        return resource in self._plugins or resource in self.ledger.resources

    def amounts(self) -> dict[str, tuple[int, int]]:
        """(capacity, allocatable) of each resource. One whose plugin is gone has no devices that could be given away."""
        out = {}
        for resource in sorted({*self._plugins, *self.ledger.resources}):
            plugin = self._plugins.get(resource)
            is_lost = self._world.monotonic() - self._absent.get(resource, self._world.monotonic()) > PATIENCE
            out[resource] = (0, 0) if plugin is None or is_lost else (len(plugin.health), len(plugin.healthy))
        return out

    def devices(self) -> dict[str, list[str]]:
        """The devices of each resource that could be given to pods, used ones included."""
        return {resource: plugin.healthy for resource, plugin in sorted(self._plugins.items())}

    # --- plugins ---

    async def load(self) -> None:
        """Reads the ledger that an earlier agent left. One that nobody can read is put aside, and told."""
        try:
            self.ledger = await self._world.blocking(ledgers.load, self._file)
        except (OSError, msgspec.DecodeError) as error:
            log.error("%s: %s: nobody knows any more which devices running containers have", self._file, error)
            await self._world.blocking(_put_aside, self._file)
        self._absent = dict.fromkeys(self.ledger.resources, self._world.monotonic())

    async def run(self) -> None:
        """Serves plugins until cancelled. Raises OSError."""
        await self._world.blocking(_clear, self._folder)
        server = Server(self._folder / "kubelet.sock")
        server.add("v1beta1.Registration", {"Register": Method(messages.RegisterRequest, self._register)})
        async with self._world.task_group() as self._group:
            await server.start()
            try:
                await asyncio.Event().wait()
            finally:
                await server.stop()
                for plugin in list(self._plugins.values()):
                    await plugin.close()

    async def _register(self, request: messages.RegisterRequest) -> messages.Empty:
        if request.version != VERSION:
            text = f'requested API version "{request.version}" is not supported by kubelet. Supported version is "{VERSION}"'
            raise Refusal("INVALID_ARGUMENT", text)
        if not is_resource(request.resource_name):
            raise Refusal("INVALID_ARGUMENT", f'the ResourceName "{request.resource_name}" is invalid')
        if "/" in request.endpoint or request.endpoint in ("", ".", "..", "kubelet.sock"):
            raise Refusal("INVALID_ARGUMENT", f'the endpoint "{request.endpoint}" is not the name of a socket')
        self.add(
            request.resource_name,
            self._folder / request.endpoint,
            pre_start=request.options.pre_start_required,
            preferred=request.options.get_preferred_allocation_available,
        )
        return messages.Empty()

    def add(self, resource: str, socket: Path, *, pre_start: bool, preferred: bool) -> None:
        """A plugin for a resource; it takes the place of an earlier one."""
        log.info("device plugin for %s registered at %s", resource, socket.name)
        plugin = DevicePlugin(resource, socket, pre_start=pre_start, preferred=preferred)
        before = self._tasks.pop(resource, None)
        if before is not None:
            before.cancel()
        self._plugins[resource] = plugin
        self._absent.pop(resource, None)
        self._tasks[resource] = self._group.start(self._follow(plugin), name=f"device plugin {resource}")

    async def adopt(self, resource: str, socket: Path) -> None:
        """A plugin that was found by its registration socket. Raises RpcError."""
        caller = Caller(socket)
        try:
            path, reply = "/v1beta1.DevicePlugin/GetDevicePluginOptions", messages.DevicePluginOptions
            options = await caller.call(path, messages.Empty(), reply, 10.0, patient=True)
        finally:
            await caller.close()
        self.add(
            resource, socket, pre_start=options.pre_start_required, preferred=options.get_preferred_allocation_available
        )

    async def _follow(self, plugin: DevicePlugin) -> None:
        resource = plugin.resource
        try:
            if resource not in self.ledger.resources:
                self.ledger.resources.append(resource)
                await self._save_sometime()
            await plugin.follow(self.changed)
            log.warning("device plugin for %s ended its list of devices", resource)
        except Exception as error:  # whatever a plugin says, the others go on
            log.warning("device plugin for %s: %s", resource, error)
        finally:
            await plugin.close()
        if self._plugins.get(resource) is plugin:
            self._absent[resource] = self._world.monotonic()
            await self._world.sleep(PATIENCE + 1)
            self.changed()

    # --- pods ---

    async def admit(self, pod: core_v1.Pod) -> None:
        """Gives a pod the devices that its containers ask for. Raises DeviceError, and then it has none."""
        uid = pod.metadata.uid or ""
        try:
            for container in all_containers(pod):
                for resource, count in ledgers.requests(container):
                    if self.manages(resource) and resource not in self.ledger.of(uid, container.name):
                        async with self._locks.setdefault(resource, asyncio.Lock()):
                            await self._allocate(pod, container.name, resource, count)
            if uid in self.ledger.shares:
                await self._save()
        except (DeviceError, RpcError, OSError) as error:
            await self.release(uid)
            raise DeviceError(f"Allocate failed due to {error}, which is unexpected") from error

    async def _allocate(self, pod: core_v1.Pod, container: str, resource: str, count: int) -> None:
        plugin = self._plugins.get(resource)
        if plugin is None:
            raise DeviceError(f"cannot allocate unregistered device {resource}")
        if not plugin.healthy:
            raise DeviceError(f"no healthy devices present; cannot allocate unhealthy devices {resource}")
        uid = pod.metadata.uid or ""
        reusable = self.ledger.reusable(pod, container, resource)
        must, free = ledgers.choose(resource, count, plugin.healthy, self.ledger, reusable)
        preferred: Iterable[str] = ()
        if plugin.preferred and len(must) < count:
            preferred = await plugin.preference(count, free, must)
        ids = ledgers.picked(count, must, free, preferred)
        # Only what is whole goes into the ledger: another pod may have it saved at any moment.
        self.ledger.put(uid, container, resource, Share(ids, await plugin.allocate(ids)))

    async def prepare(self, pod: core_v1.Pod, container: str) -> Gift:
        """All that a container gets with its devices, each time before it starts. Raises DeviceError."""
        shares = self.ledger.of(pod.metadata.uid or "", container)
        for resource, share in sorted(shares.items()):
            plugin = self._plugins.get(resource)
            if plugin is None or not plugin.pre_start:
                continue
            try:
                await plugin.before_start(share.ids)
            except RpcError as error:
                raise DeviceError(f"PreStartContainer of {resource} failed: {error}") from error
        return ledgers.merged({resource: share.gift for resource, share in shares.items()})

    async def release(self, uid: str) -> None:
        """The pod has ended: others may have its devices. Raises OSError."""
        if self.ledger.release(uid):
            await self._save()

    async def keep_only(self, uids: Mapping[str, object]) -> None:
        """Takes back what pods have that are no longer on the node. Raises OSError."""
        for uid in [uid for uid in self.ledger.shares if uid not in uids]:
            await self.release(uid)

    async def _save_sometime(self) -> None:
        """Saves now, or along with the next change if the disk is full."""
        try:
            await self._save()
        except OSError as error:
            log.error("%s: %s", self._file, error)

    async def _save(self) -> None:
        async with self._saving:
            await self._world.blocking(ledgers.save, self._file, msgspec.json.encode(self.ledger))


def is_resource(name: str) -> bool:
    """Whether a plugin may have a resource of this name: an extended one, so none of the node's own."""
    return resources.is_extended(name) and not names.qualified_name(name)


def _clear(folder: Path) -> None:
    """Removes the sockets that were there before; plugins watch for it."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_socket():
            path.unlink(missing_ok=True)


def _put_aside(file: Path) -> None:
    file.replace(file.with_suffix(".unreadable"))
