"""The CSI drivers that have registered on the node, and how the API server hears of them (CSINode, labels of the Node)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from navarch.api.errors import AlreadyExists, Conflict, NotFound
from navarch.api.types import core_v1, meta_v1, storage_v1
from navarch.client.client import Client
from nodeagent.plugins.watcher import PluginError
from nodeagent.volumes.csi.driver import Driver
from protos import csi_pb2 as csi

log = logging.getLogger(__name__)
NODE_IDS = "csi.volume.kubernetes.io/nodeid"  # annotation of the Node: driver -> id, as JSON
ATTEMPTS = 5


class Drivers:
    """Handler of plugins of type CSIPlugin. ``changed`` is called when a driver has come."""

    def __init__(self, client: Client, node_name: str, node: Callable[[], core_v1.Node | None]) -> None:
        self._client, self._node_name, self._node = client, node_name, node
        self._drivers: dict[str, Driver] = {}
        self.changed: Callable[[], None] = lambda: None

    def get(self, name: str) -> Driver | None:
        return self._drivers.get(name)

    async def register(self, name: str, endpoint: Path, versions: Sequence[str]) -> None:
        """Asks the driver about the node and tells the API server.

        Raises PluginError, RpcError, StatusError, TransportError."""
        if not any(version.lstrip("v").partition(".")[0] == "1" for version in versions):
            raise PluginError(f"none of the CSI versions {', '.join(versions)} is supported: 1.x is")
        driver = Driver(name, endpoint)
        try:
            info = await driver.info()
            await self._label(name, info)
            await self._list(entry(name, info))
        except BaseException:
            await driver.close()
            raise
        before = self._drivers.get(name)
        self._drivers[name] = driver
        if before is not None:
            await before.close()
        self.changed()

    async def deregister(self, name: str) -> None:
        """The driver's registration is gone. What it has mounted stays until pods end, and then waits for its return."""
        driver = self._drivers.pop(name, None)
        if driver is not None:
            await driver.close()
        log.warning("CSI driver %s is no longer registered", name)
        await self._unlist(name)

    async def _label(self, name: str, info: csi.NodeGetInfoResponse) -> None:
        """Labels the Node with its place in the driver's topology."""
        node = self._node() or await self._client[core_v1.Node].get(self._node_name)
        segments, labels = dict(info.accessible_topology.segments), node.metadata.labels or {}
        if clash := [key for key, value in segments.items() if labels.get(key, value) != value]:
            raise PluginError(f"detected topology value collision: driver reported other values of {', '.join(sorted(clash))}")
        annotations = node.metadata.annotations or {}
        ids = msgspec.json.decode(annotations.get(NODE_IDS) or "{}", type=dict[str, str])
        if segments.items() <= labels.items() and ids.get(name) == info.node_id:
            return
        text = msgspec.json.encode(ids | {name: info.node_id}, order="sorted").decode()
        change: dict[str, Any] = {"metadata": {"labels": segments, "annotations": {NODE_IDS: text}}}
        await self._client[core_v1.Node].patch(self._node_name, None, change, "strategic")

    async def _list(self, driver: storage_v1.CSINodeDriver) -> None:
        """Puts the driver into the CSINode. An entry cannot change but for its limit: another one goes first."""
        for _ in range(ATTEMPTS):
            csi_node = await self._csi_node()
            others = [d for d in csi_node.spec.drivers if d.name != driver.name]
            old = next((d for d in csi_node.spec.drivers if d.name == driver.name), None)
            if old == driver:
                return
            fixed = old is not None and msgspec.structs.replace(old, allocatable=driver.allocatable) != driver
            try:
                if fixed:
                    csi_node = await self._write(csi_node, others)
                await self._write(csi_node, [*others, driver])
                return
            except (Conflict, AlreadyExists):
                continue
        raise PluginError(f"CSINode {self._node_name} changes all the time")

    async def _unlist(self, name: str) -> None:
        for _ in range(ATTEMPTS):
            csi_node = await self._csi_node()
            others = [d for d in csi_node.spec.drivers if d.name != name]
            if len(others) == len(csi_node.spec.drivers):
                return
            try:
                await self._write(csi_node, others)
                return
            except Conflict:
                continue

    async def _csi_node(self) -> storage_v1.CSINode:
        """The node's CSINode, or one that is to be made."""
        try:
            return await self._client[storage_v1.CSINode].get(self._node_name)
        except NotFound:
            node = self._node() or await self._client[core_v1.Node].get(self._node_name)
            owner = meta_v1.OwnerReference(api_version="v1", kind="Node", name=self._node_name, uid=node.metadata.uid or "")
            meta = meta_v1.ObjectMeta(name=self._node_name, owner_references=[owner])
            return storage_v1.CSINode(metadata=meta, spec=storage_v1.CSINodeSpec(drivers=[]))

    async def _write(self, csi_node: storage_v1.CSINode, drivers: list[storage_v1.CSINodeDriver]) -> storage_v1.CSINode:
        changed = msgspec.structs.replace(csi_node, spec=storage_v1.CSINodeSpec(drivers=drivers))
        if csi_node.metadata.resource_version:
            return await self._client[storage_v1.CSINode].update(changed)
        return await self._client[storage_v1.CSINode].create(changed)


def entry(name: str, info: csi.NodeGetInfoResponse) -> storage_v1.CSINodeDriver:
    """The driver in the CSINode."""
    most = info.max_volumes_per_node
    return storage_v1.CSINodeDriver(
        name=name,
        node_id=info.node_id,
        topology_keys=sorted(info.accessible_topology.segments) or None,
        allocatable=storage_v1.VolumeNodeResources(count=min(most, 2**31 - 1)) if most > 0 else None,
    )
