"""Says by VolumeAttachments which volumes are to be attached to which nodes; a driver's attacher does it.

A volume is detached when no pod of the node needs it and the node's volumesInUse no longer lists it, or the node is gone or
out of service. Names and events are Kubernetes' (pkg/controller/volume/attachdetach, version 1.34).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from controllers.controller import Context, Controller
from controllers.nodes.health import OUT_OF_SERVICE
from controllers.nodes.lifecycle import BY_NODE, by_node
from controllers.storageprotection import BY_CLAIM, claims_of
from navarch.api import volumes
from navarch.api.errors import AlreadyExists, NotFound
from navarch.api.pods import is_terminal
from navarch.api.types import core_v1, meta_v1, storage_v1
from navarch.client.events import NORMAL, WARNING
from navarch.client.informer import key_of

Pod = core_v1.Pod
Node = core_v1.Node
Claim = core_v1.PersistentVolumeClaim
Volume = core_v1.PersistentVolume
Attachment = storage_v1.VolumeAttachment
BY_VOLUME = "volume"
FORCED = "navarch.dev/force-detach"  # annotation of an attachment: its node is taken for dead, whatever it last said
IN_USE = 5.0  # seconds between two looks at a node that still has a volume
MAX_WAIT = 360.0  # seconds for which a node that does not answer may keep a volume


def attachment_name(handle: str, driver: str, node: str) -> str:
    return "csi-" + hashlib.sha256(f"{handle}{driver}{node}".encode()).hexdigest()


def unique_name(driver: str, handle: str) -> str:
    """The volume in a Node's volumesInUse."""
    return f"kubernetes.io/csi/{driver}^{handle}"


class AttachDetachController(Controller):
    """Keys are nodes."""

    name = "persistentvolume-attach-detach-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.events = context.recorder("attachdetach-controller")
        self.nodes = self.informer(Node)
        self.pods = self.informer(Pod, {BY_NODE: by_node, BY_CLAIM: claims_of})
        self.claims = self.informer(Claim)
        self.volumes = self.informer(Volume)
        self.drivers = self.informer(storage_v1.CSIDriver)
        indexes = {BY_NODE: lambda a: [a.spec.node_name], BY_VOLUME: lambda a: [a.spec.source.persistent_volume_name or ""]}
        self.attachments = self.informer(Attachment, indexes)
        self.unready_since: dict[str, float] = {}  # node -> monotonic time
        self.enqueues(self.nodes, lambda node: bool(self.attachments.by_index(BY_NODE, node.metadata.name or "")))
        self.pods.add_handler(self._pod_changed)
        self.claims.add_handler(lambda kind, old, new: self._claims_changed([self.claims.key(new)]))
        self.drivers.add_handler(lambda kind, old, new: self._claims_changed(map(self.claims.key, self.claims.list())))
        self.attachments.add_handler(self._attachment_changed)

    def _pod_changed(self, kind: str, old: Pod | None, new: Pod) -> None:
        if new.spec.node_name and claims_of(new):
            self.queue.add(new.spec.node_name)

    def _claims_changed(self, claims: Iterable[str]) -> None:
        for claim in claims:
            for pod in self.pods.by_index(BY_CLAIM, claim):
                self._pod_changed("MODIFIED", None, pod)

    def _attachment_changed(self, kind: str, old: Attachment | None, new: Attachment) -> None:
        self.queue.add(new.spec.node_name)
        if kind == "DELETED":  # perhaps another node waits for the volume
            volume = self.volumes.get_key(new.spec.source.persistent_volume_name or "")
            ref = volume.spec.claim_ref if volume is not None else None
            if ref is not None:
                self._claims_changed([key_of(ref.namespace, ref.name or "")])

    async def reconcile(self, key: str) -> float | None:
        node = self.nodes.get_key(key)
        desired = self._desired(self.pods.by_index(BY_NODE, key)) if node is not None else {}
        for name, (volume, pod) in desired.items():
            await self._attach(key, name, volume, pod)
        again = None
        for attachment in self.attachments.by_index(BY_NODE, key):
            if attachment.metadata.deletion_timestamp is None and (attachment.metadata.name or "") not in desired:
                again = await self._detach(attachment, node) or again
        return again

    def _desired(self, pods: Iterable[Pod]) -> dict[str, tuple[Volume, Pod]]:
        """Attachments that pods of one node need: name -> volume, and one of the pods."""
        out: dict[str, tuple[Volume, Pod]] = {}
        for pod in pods:
            for key in claims_of(pod) if not is_terminal(pod) else ():
                claim = self.claims.get_key(key)
                volume = self.volumes.get_key(claim.spec.volume_name or "") if claim and volumes.fully_bound(claim) else None
                source = volume.spec.csi if volume is not None else None
                if volume is not None and source is not None and self._attaches(source.driver):
                    out[attachment_name(source.volume_handle, source.driver, pod.spec.node_name or "")] = volume, pod
        return out

    def _attaches(self, driver: str) -> bool:
        info = self.drivers.get_key(driver)
        return info is None or info.spec.attach_required is not False

    async def _attach(self, node: str, name: str, volume: Volume, pod: Pod) -> None:
        source = volume.spec.csi
        assert source is not None
        attachment = self.attachments.get_key(name)
        if attachment is not None:
            if attachment.status.attached and attachment.metadata.deletion_timestamp is None:
                text = f'AttachVolume.Attach succeeded for volume "{volume.metadata.name}"'
                self.events.event(pod, NORMAL, "SuccessfulAttachVolume", text)
            return
        shared = {"ReadWriteMany", "ReadOnlyMany"} & {*(volume.spec.access_modes or ())}
        others = [a for a in self.attachments.by_index(BY_VOLUME, volume.metadata.name or "") if a.spec.node_name != node]
        if others and not shared:
            why = "Volume is already exclusively attached to one node and can't be attached to another"
            text = f'Multi-Attach error for volume "{volume.metadata.name}" {why}'
            self.events.event(pod, WARNING, "FailedAttachVolume", text)
            return  # the other attachment's end brings the node back
        desired = Attachment(
            metadata=meta_v1.ObjectMeta(name=name),
            spec=storage_v1.VolumeAttachmentSpec(
                attacher=source.driver,
                node_name=node,
                source=storage_v1.VolumeAttachmentSource(persistent_volume_name=volume.metadata.name),
            ),
            status=storage_v1.VolumeAttachmentStatus(attached=False),
        )
        try:
            await self.client[Attachment].create(desired)
        except AlreadyExists:
            pass

    async def _detach(self, attachment: Attachment, node: Node | None) -> float | None:
        """Takes an attachment that no pod needs away, once it is safe. Seconds until the next look if it is not."""
        name = attachment.metadata.name or ""
        node, is_needed = await self._fresh(attachment, node)
        if is_needed:
            return None
        if node is not None and not _is_out_of_service(node) and self._uses(node, attachment):
            if not self._waited_enough(node):
                return IN_USE
            self.log.warning("node %s is silent: detaching %s from it by force", node.metadata.name, name)
            await self.client[Attachment].patch(name, None, {"metadata": {"annotations": {FORCED: "true"}}})
        try:
            await self.client[Attachment].delete(name, uid=attachment.metadata.uid)
        except NotFound:
            pass
        return None

    async def _fresh(self, attachment: Attachment, node: Node | None) -> tuple[Node | None, bool]:
        """The node, and whether it has a pod that needs the volume, from the API server: the cache may be behind."""
        try:
            node = await self.client[Node].get(attachment.spec.node_name)
        except NotFound:
            return None, False
        pods = await self.client[Pod].list(field_selector=f"spec.nodeName={attachment.spec.node_name}")
        return node, (attachment.metadata.name or "") in self._desired(pods.items)

    def _uses(self, node: Node, attachment: Attachment) -> bool:
        volume = self.volumes.get_key(attachment.spec.source.persistent_volume_name or "")
        source = volume.spec.csi if volume is not None else None
        return source is not None and unique_name(source.driver, source.volume_handle) in (node.status.volumes_in_use or ())

    def _waited_enough(self, node: Node) -> bool:
        """The node has not been ready for so long that it is taken for dead."""
        name = node.metadata.name or ""
        if any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or ()):
            self.unready_since.pop(name, None)
            return False
        since = self.unready_since.setdefault(name, self.world.monotonic())
        return self.world.monotonic() - since >= MAX_WAIT


def _is_out_of_service(node: Node) -> bool:
    return any(taint.key == OUT_OF_SERVICE for taint in node.spec.taints or ())
