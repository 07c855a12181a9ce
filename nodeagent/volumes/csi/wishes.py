"""A volume as a pod wishes it: the same facts, whether they stand in a PersistentVolume or in the pod itself. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from navarch.api import quantity
from navarch.api import volumes as volume_rules
from navarch.api.types import core_v1
from nodeagent.pods.fieldrefs import ConfigError
from nodeagent.volumes import persistent
from nodeagent.volumes.csi import requests
from nodeagent.volumes.csi.records import Record

SecretRef = tuple[str, str] | None  # namespace, name


@dataclass
class Wish:
    driver: str
    handle: str
    volume: str  # name of the PersistentVolume, or of the pod's volume
    pod: str = ""  # uid
    claim: str = ""  # namespace/name
    object: core_v1.PersistentVolume | None = None
    access_modes: Sequence[str] = ("ReadWriteOnce",)
    fs_type: str = ""
    mount_options: Sequence[str] = ()
    attributes: dict[str, str] = field(default_factory=dict)
    read_only: bool = False
    group: int | None = None  # the pod's fsGroup
    stage_secret: SecretRef = None
    publish_secret: SecretRef = None
    expand_secret: SecretRef = None
    is_ephemeral: bool = False
    needs_attachment: bool = False
    size: int = 0  # bytes that the volume has
    granted: int = 0  # bytes that the claim's status tells

    def record(self) -> Record:
        return Record(
            self.driver, self.handle, self.volume, self.pod, self.claim, self.granted or self.size,
            is_ephemeral=self.is_ephemeral, needs_attachment=self.needs_attachment,
        )  # fmt: skip

    @classmethod
    def again(cls, record: Record, claim: persistent.Claim, volume: persistent.Volume) -> Wish:
        """The wish behind a record, as the objects are now."""
        wish = _of_volume(volume, claim)
        wish.pod = record.pod
        return wish


def _of_volume(volume: persistent.Volume, claim: persistent.Claim) -> Wish:
    source = volume.spec.csi
    assert source is not None
    granted = (claim.status.capacity or {}).get("storage")
    return Wish(
        source.driver, source.volume_handle, volume.metadata.name or "", object=volume,
        claim=f"{claim.metadata.namespace}/{claim.metadata.name}", access_modes=volume.spec.access_modes or (),
        fs_type=source.fs_type or "", mount_options=volume.spec.mount_options or (),
        attributes=dict(source.volume_attributes or {}),
        stage_secret=_ref(source.node_stage_secret_ref), publish_secret=_ref(source.node_publish_secret_ref),
        expand_secret=_ref(source.node_expand_secret_ref), read_only=bool(source.read_only),
        size=volume_rules.capacity_of(volume), granted=quantity.value(granted) if granted is not None else 0,
    )  # fmt: skip


def claim_wish(pod: core_v1.Pod, volume: core_v1.Volume, claim: persistent.Claim, bound: persistent.Volume) -> Wish:
    """A volume of a pod that is a claim's."""
    wish = _of_volume(bound, claim)
    wish.pod, wish.group = pod.metadata.uid or "", _group(pod)
    wish.read_only = wish.read_only or persistent.is_read_only(volume)
    return wish


def inline_wish(pod: core_v1.Pod, volume: core_v1.Volume) -> Wish:
    """A volume that is described in the pod and lives with it. Raises ConfigError."""
    source, uid = volume.csi, pod.metadata.uid or ""
    if source is None:
        raise ConfigError("no volume plugin matched")
    ref = source.node_publish_secret_ref
    return Wish(
        source.driver, requests.inline_handle(uid, volume.name), volume.name, uid, fs_type=source.fs_type or "",
        attributes=dict(source.volume_attributes or {}), read_only=bool(source.read_only), group=_group(pod), is_ephemeral=True,
        publish_secret=(pod.metadata.namespace or "", ref.name or "") if ref is not None else None,
    )  # fmt: skip


def _group(pod: core_v1.Pod) -> int | None:
    return pod.spec.security_context.fs_group if pod.spec.security_context else None


def _ref(ref: core_v1.SecretReference | None) -> SecretRef:
    return (ref.namespace or "", ref.name or "") if ref is not None else None
