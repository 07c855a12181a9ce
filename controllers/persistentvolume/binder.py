"""The PersistentVolume binder: brings claims and volumes together, and says in their phases how they are.

A binding is four writes (claimRef of the volume, phase of the volume, volumeName of the claim, phase of the claim), each of
which is guarded by a resourceVersion and made only if it is still missing. So the binder can die between any two of them.
Events, annotations and phases are Kubernetes' (pkg/controller/volume/persistentvolume, version 1.34).
"""

from __future__ import annotations

from typing import Any

import msgspec

from controllers.controller import Context, Controller
from navarch.api import selectors, volumes
from navarch.api.errors import Conflict, NotFound
from navarch.api.types import storage_v1
from navarch.api.volumes import Claim, Volume, class_of, is_claimed_by
from navarch.client.events import NORMAL, WARNING
from navarch.client.informer import key_of

BY_CLASS, BY_CLAIM, BY_VOLUME = "storage class", "claim", "volume"
WAIT = "waiting for first consumer to be created before binding"
EXTERNAL = (
    "Waiting for a volume to be created either by the external provisioner '{0}' or manually by the system administrator. "
    "If volume creation is delayed, please verify that the provisioner is running and correctly registered."
)


def claim_key(volume: Volume) -> str:
    """The key of the claim that a volume's claimRef names; "" without one."""
    ref = volume.spec.claim_ref
    return key_of(ref.namespace, ref.name or "") if ref is not None else ""


class PersistentVolumeBinder(Controller):
    """Keys are claims (``namespace/name``) and volumes (``name``)."""

    name = "persistentvolume-binder-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.events = context.recorder("persistentvolume-controller")
        of_claims = {BY_CLASS: lambda claim: [class_of(claim)], BY_VOLUME: lambda claim: [claim.spec.volume_name or ""]}
        self.claims = self.informer(Claim, of_claims)
        by_class = {BY_CLAIM: lambda volume: [claim_key(volume)], BY_CLASS: lambda volume: [class_of(volume)]}
        self.volumes = self.informer(Volume, by_class)
        self.classes = self.informer(storage_v1.StorageClass)
        self.enqueues(self.claims)
        self.enqueues(self.volumes)
        self.claims.add_handler(self._claim_changed)
        self.volumes.add_handler(self._volume_changed)
        self.classes.add_handler(self._class_changed)

    def _claim_changed(self, kind: str, old: Claim | None, new: Claim) -> None:
        if new.spec.volume_name:
            self.queue.add(new.spec.volume_name)
        for volume in self.volumes.by_index(BY_CLAIM, key_of(new.metadata.namespace, new.metadata.name or "")):
            self.queue.add(volume.metadata.name or "")

    def _volume_changed(self, kind: str, old: Volume | None, new: Volume) -> None:
        for claim in self.claims.by_index(BY_VOLUME, new.metadata.name or ""):
            self.enqueue(claim)
        if key := claim_key(new):
            self.queue.add(key)
        elif kind != "DELETED":  # somebody may have waited for one like it
            for claim in self.claims.by_index(BY_CLASS, class_of(new)):
                if not volumes.fully_bound(claim):
                    self.enqueue(claim)

    def _class_changed(self, kind: str, old: Any, new: storage_v1.StorageClass) -> None:
        for claim in self.claims.by_index(BY_CLASS, new.metadata.name or ""):
            if not volumes.fully_bound(claim):
                self.enqueue(claim)

    async def reconcile(self, key: str) -> float | None:
        try:
            if "/" in key:
                if (claim := self.claims.get_key(key)) is not None:
                    await self._claim(claim)
            elif (volume := self.volumes.get_key(key)) is not None:
                await self._volume(volume)
        except Conflict:
            raise  # the cache is behind: the key comes again
        except NotFound:
            pass  # deleted meanwhile
        return None

    # Claims

    async def _claim(self, claim: Claim) -> None:
        if volumes.BIND_COMPLETED in (claim.metadata.annotations or {}):
            await self._bound_claim(claim)
        elif claim.spec.volume_name:
            await self._named(claim, claim.spec.volume_name)
        else:
            await self._unbound(claim)

    async def _bound_claim(self, claim: Claim) -> None:
        name = claim.spec.volume_name
        if not name:
            text = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
            await self._lost(claim, "ClaimLost", text)
            return
        volume = self.volumes.get_key(name) or await self._look(name)
        if volume is None:
            text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
            await self._lost(claim, "ClaimLost", text)
        elif volume.spec.claim_ref is None or volume.spec.claim_ref.uid == claim.metadata.uid:
            await self._bind(volume, claim)
        else:
            text = "Two claims are bound to the same volume, this one is bound incorrectly"
            await self._lost(claim, "ClaimMisbound", text)

    async def _named(self, claim: Claim, name: str) -> None:
        volume = self.volumes.get_key(name)
        if volume is None:
            await self._pending(claim)
        elif volume.spec.claim_ref is None:
            if wrong := self._mismatch(volume, claim):
                self._tell(claim, WARNING, "VolumeMismatch", f'Cannot bind to requested volume "{name}": {wrong}')
                await self._pending(claim)
            else:
                await self._bind(volume, claim)
        elif is_claimed_by(volume, claim):
            await self._bind(volume, claim)
        else:
            self._tell(claim, WARNING, "FailedBinding", f'volume "{name}" already bound to a different claim.')
            await self._pending(claim)

    @staticmethod
    def _mismatch(volume: Volume, claim: Claim) -> str:
        """Why a volume that the claim names is not good for it; "" if it is."""
        if volumes.size_of(claim) > volumes.capacity_of(volume):
            return "requested PV is too small"
        if class_of(volume) != class_of(claim):
            return "storageClassName does not match"
        if not volumes.same_shape(volume, claim):
            return "incompatible volumeMode"
        if not set(claim.spec.access_modes or ()) <= set(volume.spec.access_modes or ()):
            return "incompatible accessMode"
        return ""

    async def _unbound(self, claim: Claim) -> None:
        storage_class = self.classes.get_key(class_of(claim)) if class_of(claim) else None
        selected = (claim.metadata.annotations or {}).get(volumes.SELECTED_NODE)
        late = storage_class is not None and storage_class.volume_binding_mode == "WaitForFirstConsumer" and not selected
        selector = selectors.from_struct(claim.spec.selector) if claim.spec.selector is not None else None
        near = self.volumes.by_index(BY_CLASS, class_of(claim)) if not late else []
        near += self.volumes.by_index(BY_CLAIM, self.claims.key(claim))
        volume = volumes.best_volume(claim, near, selector, only_prebound=late)
        if volume is not None:
            await self._bind(volume, claim)
            return
        if late:
            self._tell(claim, NORMAL, "WaitForFirstConsumer", WAIT)
        elif class_of(claim):
            await self._provision(claim, storage_class)
        else:
            text = "no persistent volumes available for this claim and no storage class is set"
            self._tell(claim, NORMAL, "FailedBinding", text)
        await self._pending(self.claims.get_key(self.claims.key(claim)) or claim)

    async def _provision(self, claim: Claim, storage_class: storage_v1.StorageClass | None) -> None:
        """Asks the class's provisioner: by an annotation, as external provisioners expect it."""
        if storage_class is None:
            text = f'storageclass.storage.k8s.io "{class_of(claim)}" not found'
            self._tell(claim, WARNING, "ProvisioningFailed", text)
            return
        if storage_class.provisioner == volumes.NO_PROVISIONER:
            text = f"no volume plugin matched name: {volumes.NO_PROVISIONER}"
            self._tell(claim, WARNING, "ProvisioningFailed", text)
            return
        annotations = claim.metadata.annotations or {}
        if annotations.get(volumes.STORAGE_PROVISIONER) != storage_class.provisioner:
            names = (volumes.STORAGE_PROVISIONER, volumes.OLD_STORAGE_PROVISIONER)
            await self._patch(claim, {"metadata": {"annotations": dict.fromkeys(names, storage_class.provisioner)}})
        self._tell(claim, NORMAL, "ExternalProvisioning", EXTERNAL.format(storage_class.provisioner))

    async def _pending(self, claim: Claim) -> None:
        if claim.status.phase != "Pending":
            await self._patch(claim, {"status": {"phase": "Pending"}}, "status", versioned=False)

    async def _lost(self, claim: Claim, reason: str, text: str) -> None:
        if claim.status.phase != "Lost":
            await self._patch(claim, {"status": {"phase": "Lost"}}, "status")
            self._tell(claim, WARNING, reason, text)

    # Both

    async def _bind(self, volume: Volume, claim: Claim) -> None:
        """Makes what is missing of a binding."""
        ref = volume.spec.claim_ref
        if ref is None or ref.uid != claim.metadata.uid:
            claim_ref: dict[str, Any] = {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.metadata.namespace,
                "name": claim.metadata.name, "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
            }  # fmt: skip
            change: dict[str, Any] = {"spec": {"claimRef": claim_ref}}
            if ref is None:
                change["metadata"] = {"annotations": {volumes.BOUND_BY_CONTROLLER: "yes"}}
            volume = await self._patch(volume, change)
        if volume.status.phase != "Bound":
            volume = await self._patch(volume, {"status": {"phase": "Bound", "reason": None, "message": None}}, "status")
        annotations = claim.metadata.annotations or {}
        if claim.spec.volume_name != volume.metadata.name or volumes.BIND_COMPLETED not in annotations:
            notes = {volumes.BIND_COMPLETED: "yes"}
            if not claim.spec.volume_name:
                notes[volumes.BOUND_BY_CONTROLLER] = "yes"
            change = {"metadata": {"annotations": notes}, "spec": {"volumeName": volume.metadata.name}}
            claim = await self._patch(claim, change)
        # A claim that grew keeps the capacity that was granted to it: resizing says when there is more.
        capacity = dict(volume.spec.capacity or {}) if claim.status.phase != "Bound" else claim.status.capacity
        modes = volume.spec.access_modes
        if (claim.status.phase, claim.status.access_modes, claim.status.capacity) != ("Bound", modes, capacity):
            status = {"phase": "Bound", "accessModes": modes, "capacity": capacity}
            await self._patch(claim, {"status": status}, "status")

    # Volumes

    async def _volume(self, volume: Volume) -> None:
        ref = volume.spec.claim_ref
        if ref is None:
            await self._phase(volume, "Available")
            return
        if not ref.uid:
            await self._phase(volume, "Available")
            self.queue.add(claim_key(volume))
            return
        claim = self.claims.get_key(claim_key(volume))
        if claim is None or claim.metadata.uid != ref.uid:
            # The cache may be behind, and what is released may be deleted: ask.
            claim = await self._claim_now(ref.namespace or "", ref.name or "")
        if claim is None or claim.metadata.uid != ref.uid:
            await self._release(volume)
        elif not claim.spec.volume_name:
            self.enqueue(claim)
        elif claim.spec.volume_name == volume.metadata.name:
            await self._phase(volume, "Bound")
        elif (volume.metadata.annotations or {}).get(volumes.PROVISIONED_BY) and _deletes(volume):
            await self._release(volume)  # made for a claim that found another one meanwhile
        else:
            await self._unbind(volume)

    async def _unbind(self, volume: Volume) -> None:
        """Takes back a claimRef whose claim went elsewhere; what people wrote by hand keeps its name."""
        if volumes.BOUND_BY_CONTROLLER in (volume.metadata.annotations or {}):
            change: dict[str, Any] = {
                "metadata": {"annotations": {volumes.BOUND_BY_CONTROLLER: None}}, "spec": {"claimRef": None},
            }  # fmt: skip
        else:
            change = {"spec": {"claimRef": {"uid": None, "resourceVersion": None}}}
        await self._phase(await self._patch(volume, change), "Available")

    async def _release(self, volume: Volume) -> None:
        """The claim is gone. Retain: people decide. Delete: the provisioner that made the volume does it."""
        if volume.status.phase == "Failed":
            return
        await self._phase(volume, "Released")
        policy = volume.spec.persistent_volume_reclaim_policy or "Retain"
        provisioner = (volume.metadata.annotations or {}).get(volumes.PROVISIONED_BY)
        if policy == "Recycle":
            await self._cannot_reclaim(volume, "VolumeFailedRecycle", "no recyclable volume plugin matched")
        elif policy == "Delete" and not provisioner:
            head = f'error getting deleter volume plugin for volume "{volume.metadata.name}"'
            text = f"{head}: no deletable volume plugin matched"
            await self._cannot_reclaim(volume, "VolumeFailedDelete", text)

    async def _cannot_reclaim(self, volume: Volume, reason: str, text: str) -> None:
        await self._patch(volume, {"status": {"phase": "Failed", "message": text}}, "status", versioned=False)
        self._tell(volume, WARNING, reason, text)

    async def _phase(self, volume: Volume, phase: str) -> None:
        if volume.status.phase != phase:
            await self._patch(volume, {"status": {"phase": phase}}, "status")

    async def _patch(self, obj: Any, change: dict[str, Any], subresource: str = "", versioned: bool = True) -> Any:
        """Raises Conflict if somebody changed the object since it was read."""
        if versioned:
            meta = {**change.get("metadata", {}), "resourceVersion": obj.metadata.resource_version}
            change = {**change, "metadata": meta}
        name, namespace = obj.metadata.name, obj.metadata.namespace
        return await self.client[type(obj)].patch(name, namespace, change, subresource=subresource or None)

    async def _claim_now(self, namespace: str, name: str) -> Claim | None:
        try:
            return await self.client[Claim].get(name, namespace)
        except NotFound:
            return None

    async def _look(self, name: str) -> Volume | None:
        try:
            return await self.client[Volume].get(name)
        except NotFound:
            return None

    def _tell(self, obj: msgspec.Struct, type_: str, reason: str, text: str) -> None:
        self.events.event(obj, type_, reason, text)  # type: ignore[arg-type]


def _deletes(volume: Volume) -> bool:
    return volume.spec.persistent_volume_reclaim_policy == "Delete"
