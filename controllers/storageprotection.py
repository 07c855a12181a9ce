"""Storage that somebody uses stays: claims, volumes and attribute classes keep a finalizer until nobody does any more.

Admission sets the finalizers (apiserver/admission/plugins/storageobjectinuseprotection.py); objects from before get them here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controllers.controller import Context, Controller
from navarch.api import wellknown
from navarch.api.errors import NotFound
from navarch.api.types import core_v1, storage_v1
from navarch.client.informer import Informer, key_of

Pod = core_v1.Pod
Claim = core_v1.PersistentVolumeClaim
Volume = core_v1.PersistentVolume
BY_CLAIM, BY_ATTRIBUTES = "claim", "volume attributes class"


def claims_of(pod: Pod) -> list[str]:
    """Keys of the claims whose volumes the pod mounts, those that are made for its ephemeral volumes included."""
    out = []
    for volume in pod.spec.volumes or ():
        if volume.persistent_volume_claim is not None:
            out.append(key_of(pod.metadata.namespace, volume.persistent_volume_claim.claim_name))
        elif volume.ephemeral is not None:
            out.append(key_of(pod.metadata.namespace, f"{pod.metadata.name}-{volume.name}"))
    return out


def attributes_of_claim(claim: Claim) -> list[str]:
    """Names of the attribute classes that a claim has, gets or asks for."""
    status = claim.status
    changing = status.modify_volume_status if status else None
    names = (
        claim.spec.volume_attributes_class_name if claim.spec else None,
        status.current_volume_attributes_class_name if status else None,
        changing.target_volume_attributes_class_name if changing else None,
    )
    return [name for name in names if name]


def attributes_of_volume(volume: Volume) -> list[str]:
    name = volume.spec.volume_attributes_class_name if volume.spec else None
    return [name] if name else []


class Protection(Controller):
    """The common part of the three: one kind, one finalizer."""

    finalizer = ""
    protected: Informer[Any]

    async def in_use(self, obj: Any) -> bool:
        """Whether an object that is being deleted has to stay."""
        raise NotImplementedError

    async def reconcile(self, key: str) -> float | None:
        obj = self.protected.get_key(key)
        if obj is None:
            return None
        finalizers = obj.metadata.finalizers or []
        if obj.metadata.deletion_timestamp is None:
            if self.finalizer not in finalizers:
                await self._set(obj, [*finalizers, self.finalizer])
        elif self.finalizer in finalizers and not await self.in_use(obj):
            await self._set(obj, [f for f in finalizers if f != self.finalizer])
        return None

    async def _set(self, obj: Any, finalizers: list[str]) -> None:
        metadata = {"finalizers": finalizers or None, "resourceVersion": obj.metadata.resource_version}
        try:
            await self.client[type(obj)].patch(obj.metadata.name, obj.metadata.namespace, {"metadata": metadata})
        except NotFound:
            return  # somebody was faster


def _needs_look(finalizer: str) -> Any:
    """Objects with nothing to do are not even queued."""
    return lambda obj: obj.metadata.deletion_timestamp is not None or finalizer not in (obj.metadata.finalizers or ())


class ClaimProtection(Protection):
    """A claim stays while a pod that is bound to a node mounts it."""

    name = "persistentvolumeclaim-protection-controller"
    finalizer = wellknown.PVC_PROTECTION

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.protected = self.informer(Claim)
        self.pods = self.informer(Pod, {BY_CLAIM: claims_of})
        self.enqueues(self.protected, _needs_look(self.finalizer))
        self.pods.add_handler(self._pod_changed)

    def _pod_changed(self, kind: str, old: Pod | None, new: Pod) -> None:
        if kind == "DELETED" or new.spec.node_name or (old is not None and old.metadata.uid != new.metadata.uid):
            for pod in (old, new) if old is not None else (new,):
                for claim in claims_of(pod):
                    protected = self.protected.get_key(claim)
                    if protected is not None and protected.metadata.deletion_timestamp is not None:
                        self.queue.add(claim)

    async def in_use(self, obj: Claim) -> bool:
        claim = self.protected.key(obj)
        if _mounted(self.pods.by_index(BY_CLAIM, claim)):
            return True
        # The cache may be behind, and a volume that goes under a running pod is lost: ask once more.
        pods = await self.client[Pod].list(obj.metadata.namespace)
        return _mounted(pod for pod in pods.items if claim in claims_of(pod))


def _mounted(pods: Iterable[Pod]) -> bool:
    return any(pod.spec.node_name for pod in pods)


class VolumeProtection(Protection):
    """A volume stays while it is bound to a claim."""

    name = "persistentvolume-protection-controller"
    finalizer = wellknown.PV_PROTECTION

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.protected = self.informer(Volume)
        self.enqueues(self.protected, _needs_look(self.finalizer))

    async def in_use(self, obj: Volume) -> bool:
        return obj.status is not None and obj.status.phase == "Bound"


class AttributesClassProtection(Protection):
    """A VolumeAttributesClass stays while a claim or a volume names it."""

    name = "volumeattributesclass-protection-controller"
    finalizer = wellknown.VAC_PROTECTION

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.protected = self.informer(storage_v1.VolumeAttributesClass)
        self.claims = self.informer(Claim, {BY_ATTRIBUTES: attributes_of_claim})
        self.volumes = self.informer(Volume, {BY_ATTRIBUTES: attributes_of_volume})
        self.enqueues(self.protected, _needs_look(self.finalizer))
        self.claims.add_handler(lambda kind, old, new: self._queue_dropped(attributes_of_claim, kind, old, new))
        self.volumes.add_handler(lambda kind, old, new: self._queue_dropped(attributes_of_volume, kind, old, new))

    def _queue_dropped(self, names: Any, kind: str, old: Any, new: Any) -> None:
        before = names(old) if old is not None else []
        after = [] if kind == "DELETED" else names(new)
        for name in [*before, *(names(new) if kind == "DELETED" else ())]:
            if name not in after:
                self.queue.add(name)

    async def in_use(self, obj: storage_v1.VolumeAttributesClass) -> bool:
        name = obj.metadata.name or ""
        if self.claims.by_index(BY_ATTRIBUTES, name) or self.volumes.by_index(BY_ATTRIBUTES, name):
            return True
        claims, volumes = await self.client[Claim].list(), await self.client[Volume].list()
        return any(name in attributes_of_claim(c) for c in claims.items) or any(
            name in attributes_of_volume(v) for v in volumes.items
        )
