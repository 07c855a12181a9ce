"""All that plugins of the node have to do with: device plugins, CSI drivers, and how they make themselves known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.world import TaskGroup, World
from nodeagent.config import Config
from nodeagent.devices.manager import VERSION, DeviceManager, is_resource
from nodeagent.devices.podresources import PodResources
from nodeagent.node.registration import NodeKeeper
from nodeagent.plugins.watcher import Handler, PluginError, PluginWatcher
from nodeagent.volumes.csi.drivers import Drivers
from nodeagent.volumes.csi.mounter import CsiVolumes
from nodeagent.volumes.csi.usage import InUse

Keep = Callable[[str, Callable[[], Awaitable[None]]], Coroutine[Any, Any, None]]


class NodePlugins:
    """``active`` gives the pods that take room on the node."""

    def __init__(
        self, config: Config, client: Client, world: World, keeper: NodeKeeper, active: Callable[[], list[core_v1.Pod]]
    ) -> None:
        self._config = config
        # Without plugins this machine's /var/lib/kubelet may be a kubelet's.
        root = config.kubelet_dir if config.plugins else config.plugins_dir
        self.devices = DeviceManager(world, root / "device-plugins", config.root_dir / "devices.json")
        self.devices.changed = keeper.look_again
        keeper.devices = self.devices.amounts
        self._in_use = InUse(keeper.look_again)
        keeper.volumes_in_use = lambda: self._in_use.names
        self.drivers = Drivers(client, config.node_name, lambda: keeper.node)
        self.csi = CsiVolumes(world, client, config.node_name, root, self.drivers, self._in_use)
        handlers: dict[str, Handler] = {"CSIPlugin": self.drivers, "DevicePlugin": DevicePlugins(self.devices)}
        self._watcher = PluginWatcher(world, root / "plugins_registry", handlers)
        self._monitor = PodResources(self.devices, active)

    def observe(self, node: core_v1.Node) -> None:
        """The Node as the API server has it now."""
        self._in_use.observe(node)

    def serve(self, group: TaskGroup, keep: Keep) -> None:
        """Starts what plugins speak with, unless the node has no plugins (a simulated one)."""
        if not self._config.plugins:
            return
        socket = self._config.kubelet_dir / "pod-resources" / "kubelet.sock"
        for doing, run in (
            ("serve device plugins", self.devices.run),
            ("serve pod resources", lambda: self._monitor.run(socket)),
            ("watch for plugins", self._watcher.run),
        ):
            group.start(keep(doing, run), name=doing)

    def tidy(self, group: TaskGroup, keep: Keep, is_known: Callable[[str], bool]) -> None:
        """Starts taking away the volumes that no pod uses. ``is_known``: whether the node has a pod of a uid."""
        if self._config.plugins:
            group.start(keep("tidy up CSI volumes", lambda: self.csi.run(is_known)), name="CSI volumes")


class DevicePlugins:
    """Device plugins that wait to be found by their registration socket."""

    def __init__(self, devices: DeviceManager) -> None:
        self._devices = devices

    async def register(self, name: str, endpoint: Path, versions: Sequence[str]) -> None:
        if VERSION not in versions:
            raise PluginError(f"none of the versions {', '.join(versions)} is supported: {VERSION} is")
        if not is_resource(name):
            raise PluginError(f'the ResourceName "{name}" is invalid')
        await self._devices.adopt(name, endpoint)

    async def deregister(self, name: str) -> None:
        """Its list of devices has ended, which the manager knows."""
