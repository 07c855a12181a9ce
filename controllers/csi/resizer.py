"""Lets volumes grow when their claims ask for more, and changes their attributes (external-resizer's part)."""

from __future__ import annotations

from typing import Any

from controllers.controller import Context, Controller
from controllers.csi.driver import RPC, Claim, Driver, Volume, capability, secret
from navarch.api import quantity, volumes
from navarch.api.errors import NotFound
from navarch.api.times import format_time
from navarch.api.types import storage_v1
from navarch.client.events import NORMAL, WARNING
from navarch.rpc.sockets import RpcError
from protos import csi_pb2 as csi


class Resizer(Controller):
    """Keys are claims."""

    name = "csi-resizer"

    def __init__(self, context: Context, driver: Driver) -> None:
        super().__init__(context)
        self.driver = driver
        self.events = context.recorder(f"external-resizer {driver.name}")
        self.claims = self.informer(Claim)
        self.volumes = self.informer(Volume)
        self.enqueues(self.claims, lambda c: volumes.fully_bound(c) and c.status.phase == "Bound")

    async def reconcile(self, key: str) -> float | None:
        claim = self.claims.get_key(key)
        volume = self.volumes.get_key(claim.spec.volume_name or "") if claim is not None else None
        source = volume.spec.csi if volume is not None else None
        if claim is None or volume is None or source is None or source.driver != self.driver.name:
            return None
        if claim.metadata.deletion_timestamp is not None:
            return None
        await self._grow(claim, volume)
        await self._modify(claim, volume)
        return None

    # --- size ---

    async def _grow(self, claim: Claim, volume: Volume) -> None:
        size, has = volumes.size_of(claim), volumes.capacity_of(volume)
        granted = quantity.value((claim.status.capacity or {}).get("storage", "0"))
        if size <= granted or RPC.EXPAND_VOLUME not in self.driver.capabilities:
            return
        waits = any(c.type == "FileSystemResizePending" for c in claim.status.conditions or ())
        if size <= has and waits:
            return  # the node's turn
        source = volume.spec.csi
        assert source is not None
        modes = RPC.SINGLE_NODE_MULTI_WRITER in self.driver.capabilities
        request = csi.ControllerExpandVolumeRequest(
            volume_id=source.volume_handle,
            capacity_range=csi.CapacityRange(required_bytes=size),
            secrets=await secret(self.client, source.controller_expand_secret_ref),
            volume_capability=capability(
                volume.spec.access_modes or (), source.fs_type or "", volume.spec.mount_options or (), modes
            ),
        )
        try:
            answer = await self.driver.controller("ControllerExpandVolume", request, csi.ControllerExpandVolumeResponse)
        except RpcError as error:
            text = f'resize volume "{volume.metadata.name}" by resizer "{self.driver.name}" failed: {error}'
            self.events.event(claim, WARNING, "VolumeResizeFailed", text)
            raise
        await self._grown(claim, volume, max(answer.capacity_bytes, size), answer.node_expansion_required)

    async def _grown(self, claim: Claim, volume: Volume, size: int, on_node: bool) -> None:
        storage = quantity.from_value(size, "BinarySI")
        if size > volumes.capacity_of(volume):
            change: dict[str, Any] = {"spec": {"capacity": {"storage": storage}}}
            await self.client[Volume].patch(volume.metadata.name or "", None, change)
        others = [c for c in claim.status.conditions or () if c.type not in ("FileSystemResizePending", "Resizing")]
        status: dict[str, Any]
        if on_node:
            text = "Waiting for user to (re-)start a pod to finish file system resize of volume on node."
            pending = {"type": "FileSystemResizePending", "status": "True", "message": text}
            pending["lastTransitionTime"] = format_time(self.world.now())
            status = {"conditions": [*others, pending]}
            self.events.event(claim, NORMAL, "FileSystemResizeRequired", "Require file system resize of volume on node")
        else:
            status = {"conditions": others or None, "capacity": {"storage": storage}}
            self.events.event(claim, NORMAL, "VolumeResizeSuccessful", "Resize volume succeeded")
        await self.client[Claim].patch_status(claim.metadata.name or "", claim.metadata.namespace, {"status": status})

    # --- attributes ---

    async def _modify(self, claim: Claim, volume: Volume) -> None:
        """Gives a volume the attributes of the class that its claim names now."""
        name = claim.spec.volume_attributes_class_name or ""
        if not name or RPC.MODIFY_VOLUME not in self.driver.capabilities:
            return
        if claim.status.current_volume_attributes_class_name == name == volume.spec.volume_attributes_class_name:
            return
        if volume.spec.volume_attributes_class_name != name:
            await self._call(claim, volume, name)
            change = {"spec": {"volumeAttributesClassName": name}}
            await self.client[Volume].patch(volume.metadata.name or "", None, change)
        status = {"status": {"currentVolumeAttributesClassName": name, "modifyVolumeStatus": None}}
        await self.client[Claim].patch_status(claim.metadata.name or "", claim.metadata.namespace, status)
        self.events.event(claim, NORMAL, "VolumeModifySuccessful", "external resizer modified volume with vac successfully")

    async def _call(self, claim: Claim, volume: Volume, name: str) -> None:
        state = "InProgress"
        try:
            attributes = await self.client[storage_v1.VolumeAttributesClass].get(name)
        except NotFound:
            state = "Pending"
        text = {"status": {"modifyVolumeStatus": {"status": state, "targetVolumeAttributesClassName": name}}}
        await self.client[Claim].patch_status(claim.metadata.name or "", claim.metadata.namespace, text)
        if state == "Pending":
            self.events.event(claim, WARNING, "VolumeModifyFailed", f"VAC {name} does not exist")
            raise NotFound(f'volumeattributesclasses.storage.k8s.io "{name}" not found')
        source = volume.spec.csi
        assert source is not None
        request = csi.ControllerModifyVolumeRequest(
            volume_id=source.volume_handle,
            mutable_parameters=dict(attributes.parameters or {}),
            secrets=await secret(self.client, source.controller_expand_secret_ref),
        )
        try:
            await self.driver.controller("ControllerModifyVolume", request, csi.ControllerModifyVolumeResponse)
        except RpcError as error:
            self.events.event(claim, WARNING, "VolumeModifyFailed", str(error))
            raise
