"""Attaches volumes to nodes and detaches them, as VolumeAttachments ask for it (external-attacher's part).

A volume is detached only when its node no longer lists it in volumesInUse. The agent lists it before it looks whether the
attachment is being deleted, and we look at the list after it is: so one of the two sees the other, whatever the order.
"""

from __future__ import annotations

from typing import Any

from controllers.attachdetach import FORCED, unique_name
from controllers.controller import Context, Controller
from controllers.csi.driver import RPC, Driver, Volume, capability, secret
from controllers.nodes.health import OUT_OF_SERVICE
from navarch.api.errors import NotFound, StatusError
from navarch.api.times import format_time
from navarch.api.types import core_v1, storage_v1
from navarch.rpc.sockets import RpcError
from protos import csi_pb2 as csi

Attachment = storage_v1.VolumeAttachment
IN_USE = 1.0  # seconds between two looks at a node that still has the volume


class Attacher(Controller):
    """Keys are VolumeAttachments."""

    name = "csi-attacher"

    def __init__(self, context: Context, driver: Driver) -> None:
        super().__init__(context)
        self.driver = driver
        self.finalizer = f"external-attacher/{driver.name.replace('.', '-')}"
        self.attachments = self.informer(Attachment)
        self.volumes = self.informer(Volume)
        self.csi_nodes = self.informer(storage_v1.CSINode)
        self.enqueues(self.attachments, lambda a: a.spec.attacher == driver.name)

    async def reconcile(self, key: str) -> float | None:
        attachment = self.attachments.get_key(key)
        if attachment is None or attachment.spec.attacher != self.driver.name:
            return None
        if attachment.metadata.deletion_timestamp is not None:
            return await self._detach(attachment)
        if not attachment.status.attached:
            await self._attach(attachment)
        return None

    async def _attach(self, attachment: Attachment) -> None:
        if self.finalizer not in (attachment.metadata.finalizers or ()):
            attachment = await self._finalizers(attachment, [*(attachment.metadata.finalizers or ()), self.finalizer])
        try:
            context = await self._publish(attachment)
        except (RpcError, StatusError) as error:
            await self._tell(attachment, "attachError", str(error))
            raise
        status = {"attached": True, "attachmentMetadata": context or None, "attachError": None}
        await self._status(attachment, status)

    async def _publish(self, attachment: Attachment) -> dict[str, str]:
        if RPC.PUBLISH_UNPUBLISH_VOLUME not in self.driver.capabilities:
            return {}
        volume = await self._volume(attachment)
        source = volume.spec.csi
        assert source is not None
        modes = RPC.SINGLE_NODE_MULTI_WRITER in self.driver.capabilities
        request = csi.ControllerPublishVolumeRequest(
            volume_id=source.volume_handle, node_id=await self._node_id(attachment.spec.node_name),
            volume_capability=capability(
                volume.spec.access_modes or (), source.fs_type or "", volume.spec.mount_options or (), modes
            ),
            readonly=bool(source.read_only) and RPC.PUBLISH_READONLY in self.driver.capabilities,
            secrets=await secret(self.client, source.controller_publish_secret_ref),
            volume_context=dict(source.volume_attributes or {}),
        )  # fmt: skip
        answer = await self.driver.controller("ControllerPublishVolume", request, csi.ControllerPublishVolumeResponse)
        return dict(sorted(answer.publish_context.items()))

    async def _detach(self, attachment: Attachment) -> float | None:
        if self.finalizer not in (attachment.metadata.finalizers or ()):
            return None
        volume = await self._volume(attachment)
        source = volume.spec.csi
        assert source is not None
        is_forced = FORCED in (attachment.metadata.annotations or {})
        if not is_forced and await self._is_in_use(attachment.spec.node_name, unique_name(source.driver, source.volume_handle)):
            return IN_USE
        try:
            if RPC.PUBLISH_UNPUBLISH_VOLUME in self.driver.capabilities:
                request = csi.ControllerUnpublishVolumeRequest(
                    volume_id=source.volume_handle, node_id=await self._node_id(attachment.spec.node_name),
                    secrets=await secret(self.client, source.controller_publish_secret_ref),
                )  # fmt: skip
                await self.driver.controller("ControllerUnpublishVolume", request, csi.ControllerUnpublishVolumeResponse)
        except (RpcError, StatusError) as error:
            await self._tell(attachment, "detachError", str(error))
            raise
        if attachment.status.attached:
            attachment = await self._status(attachment, {"attached": False, "detachError": None})
        await self._finalizers(attachment, [f for f in attachment.metadata.finalizers or () if f != self.finalizer])
        return None

    async def _is_in_use(self, node: str, volume: str) -> bool:
        """Asks the API server, not the cache: see above. A node out of service uses nothing."""
        try:
            now = await self.client[core_v1.Node].get(node)
        except NotFound:
            return False
        if any(taint.key == OUT_OF_SERVICE for taint in now.spec.taints or ()):
            return False
        return volume in (now.status.volumes_in_use or ())

    async def _volume(self, attachment: Attachment) -> Volume:
        name = attachment.spec.source.persistent_volume_name or ""
        return self.volumes.get_key(name) or await self.client[Volume].get(name)

    async def _node_id(self, node: str) -> str:
        """The node's name for the driver. Raises StatusError, RpcError."""
        csi_node = self.csi_nodes.get_key(node) or await self.client[storage_v1.CSINode].get(node)
        for entry in csi_node.spec.drivers:
            if entry.name == self.driver.name:
                return entry.node_id
        raise RpcError("UNAVAILABLE", f"CSINode {node} does not contain driver {self.driver.name}")

    async def _finalizers(self, attachment: Attachment, finalizers: list[str]) -> Attachment:
        metadata = {"finalizers": finalizers or None, "resourceVersion": attachment.metadata.resource_version}
        return await self.client[Attachment].patch(attachment.metadata.name or "", None, {"metadata": metadata})

    async def _status(self, attachment: Attachment, status: dict[str, Any]) -> Attachment:
        return await self.client[Attachment].patch_status(attachment.metadata.name or "", None, {"status": status})

    async def _tell(self, attachment: Attachment, field: str, text: str) -> None:
        error = {"time": format_time(self.world.now()), "message": text}
        try:
            await self._status(attachment, {field: error})
        except NotFound:
            pass
