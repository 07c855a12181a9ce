"""Scheduling's knowledge of storage: claims, volumes, classes, drivers and their capacities, and which pods use what.

It is fed object by object, by informers or by hand. A decision that binds a volume, or has one made, is *assumed* here
until the API server shows it, as pods are in the node table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from navarch.api.types import core_v1, storage_v1
from navarch.api.volumes import SELECTED_NODE, class_of
from navarch.client.informer import SharedInformers
from navarch.client.watch import DELETED
from scheduler.state.pods import Disk, PodInfo

# Kinds of events (see plugin.py).
CLAIM_CHANGED, VOLUME_CHANGED, CLASS_CHANGED = "PersistentVolumeClaim", "PersistentVolume", "StorageClass"
DRIVER_CHANGED, CAPACITY_CHANGED = "CSIDriver", "CSIStorageCapacity"  # a CSINode is the drivers of a node
ATTACHMENT_CHANGED = "VolumeAttachment"



class Usage:
    """Which claims and which inline disks the pods of each row use; kept by deltas."""

    def __init__(self) -> None:
        self.claims: dict[str, dict[int, int]] = {}  # claim -> row -> pods
        self.on: dict[int, dict[str, int]] = {}  # row -> claim -> pods
        self.disks: dict[tuple[str, str], dict[int, list[Disk]]] = {}

    def count(self, pod: PodInfo, row: int, sign: int) -> None:
        for claim in dict.fromkeys(pod.claims):
            _add(self.claims, claim.key, row, sign)
            _add(self.on, row, claim.key, sign)
        for disk in pod.disks:
            rows = self.disks.setdefault((disk.kind, disk.id), {})
            if sign > 0:
                rows.setdefault(row, []).append(disk)
            else:
                rows[row].remove(disk)
                if not rows[row]:
                    del rows[row]
                if not rows:
                    del self.disks[disk.kind, disk.id]


def _add(counts: dict[Any, dict[Any, int]], first: Any, second: Any, sign: int) -> None:
    inner = counts.setdefault(first, {})
    inner[second] = inner.get(second, 0) + sign
    if not inner[second]:
        del inner[second]
    if not inner:
        del counts[first]


class Change(NamedTuple):
    """How an object is kept: where, by which key, and what its events are called."""

    where: str
    event: str
    namespaced: bool = False


KINDS: Mapping[type[Any], Change] = {
    core_v1.PersistentVolumeClaim: Change("claims", CLAIM_CHANGED, True),
    core_v1.PersistentVolume: Change("volumes", VOLUME_CHANGED),
    storage_v1.StorageClass: Change("classes", CLASS_CHANGED),
    storage_v1.CSIDriver: Change("drivers", DRIVER_CHANGED),
    storage_v1.CSINode: Change("csi_nodes", DRIVER_CHANGED),
    storage_v1.CSIStorageCapacity: Change("capacities", CAPACITY_CHANGED, True),
    storage_v1.VolumeAttachment: Change("attachments", ATTACHMENT_CHANGED),
}


class Volumes:
    def __init__(self) -> None:
        self.usage = Usage()
        self.claims: dict[str, core_v1.PersistentVolumeClaim] = {}  # by namespace/name
        self.volumes: dict[str, core_v1.PersistentVolume] = {}
        self.classes: dict[str, storage_v1.StorageClass] = {}
        self.drivers: dict[str, storage_v1.CSIDriver] = {}
        self.csi_nodes: dict[str, storage_v1.CSINode] = {}
        self.capacities: dict[str, storage_v1.CSIStorageCapacity] = {}
        self.attachments: dict[str, storage_v1.VolumeAttachment] = {}
        self.attached_to: dict[str, dict[str, storage_v1.VolumeAttachment]] = {}  # node -> name of the attachment
        self.version = 0  # of all of these objects
        self.by_class: dict[str, dict[str, core_v1.PersistentVolume]] = {}
        self.assumed_claims: dict[str, str] = {}  # volume -> the claim that it will be bound to
        self.assumed_nodes: dict[str, str] = {}  # claim -> the node for which its volume will be made
        self._news: asyncio.Event | None = None

    def put(self, obj: Any) -> None:
        """An object that is new or changed."""
        change = KINDS[type(obj)]
        key = _key(obj, change)
        objects = getattr(self, change.where)
        if isinstance(obj, core_v1.PersistentVolume):
            self._unlist(objects.get(key))
            self.by_class.setdefault(class_of(obj), {})[key] = obj
        if isinstance(obj, storage_v1.VolumeAttachment):
            self._detach(objects.get(key))
            self.attached_to.setdefault(obj.spec.node_name, {})[key] = obj
        objects[key] = obj
        self._tell()

    def drop(self, obj: Any) -> None:
        change = KINDS[type(obj)]
        old = getattr(self, change.where).pop(_key(obj, change), None)
        if isinstance(old, core_v1.PersistentVolume):
            self._unlist(old)
        elif isinstance(old, storage_v1.VolumeAttachment):
            self._detach(old)
        self._tell()

    def _detach(self, attachment: storage_v1.VolumeAttachment | None) -> None:
        if attachment is not None:
            here = self.attached_to[attachment.spec.node_name]
            del here[attachment.metadata.name or ""]
            if not here:
                del self.attached_to[attachment.spec.node_name]

    def _unlist(self, volume: core_v1.PersistentVolume | None) -> None:
        if volume is not None:
            listed = self.by_class[class_of(volume)]
            del listed[volume.metadata.name or ""]
            if not listed:
                del self.by_class[class_of(volume)]

    def follow(self, informers: SharedInformers, happened: Callable[[str, Any, Any], None]) -> None:
        """Is fed by informers from now on, and tells what happened: (kind of event, old, new)."""

        def handler(kind: str, old: Any, new: Any) -> None:
            (self.drop if kind == DELETED else self.put)(new)
            happened(KINDS[type(new)].event, old, new)

        for struct in KINDS:
            informers.informer(struct).add_handler(handler)

    def _tell(self) -> None:
        self.version += 1
        if self._news is not None:
            self._news.set()
            self._news = None

    async def change(self) -> None:
        """Until the next change of anything."""
        if self._news is None:
            self._news = asyncio.Event()
        await self._news.wait()

    # Reading

    def claimed_by(self, volume: core_v1.PersistentVolume) -> tuple[str, str]:
        """The claim that a volume is bound to, or will be: its key and uid; ("", "") if none."""
        assumed = self.assumed_claims.get(volume.metadata.name or "")
        if assumed:
            claim = self.claims.get(assumed)
            return assumed, (claim.metadata.uid or "") if claim else ""
        ref = volume.spec.claim_ref
        return (f"{ref.namespace}/{ref.name}", ref.uid or "") if ref else ("", "")

    def selected_node(self, claim: core_v1.PersistentVolumeClaim) -> str:
        assumed = self.assumed_nodes.get(f"{claim.metadata.namespace}/{claim.metadata.name}")
        return assumed or (claim.metadata.annotations or {}).get(SELECTED_NODE, "")

    def binds_late(self, claim: core_v1.PersistentVolumeClaim) -> bool:
        """Whether the claim's class waits for the first pod."""
        storage_class = self.classes.get(class_of(claim))
        return storage_class is not None and storage_class.volume_binding_mode == "WaitForFirstConsumer"


def _key(obj: Any, change: Change) -> str:
    name = obj.metadata.name or ""
    return f"{obj.metadata.namespace}/{name}" if change.namespaced else name
