"""PersistentVolumes and claims: which volume fits which claim. Shared by the scheduler and the binder.

The rules are Kubernetes' (component-helpers/storage/volume, version 1.34).
"""

from __future__ import annotations

from collections.abc import Iterable

from navarch.api import quantity, wellknown
from navarch.api.selectors import LabelSelector
from navarch.api.types import core_v1

Volume = core_v1.PersistentVolume
Claim = core_v1.PersistentVolumeClaim

SELECTED_NODE = "volume.kubernetes.io/selected-node"
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
OLD_STORAGE_PROVISIONER = "volume.beta.kubernetes.io/storage-provisioner"
NO_PROVISIONER = "kubernetes.io/no-provisioner"


def class_of(obj: Volume | Claim) -> str:
    """The StorageClass of a volume or a claim, by its old annotation too; "" for none."""
    return (obj.metadata.annotations or {}).get(wellknown.BETA_STORAGE_CLASS) or obj.spec.storage_class_name or ""


def size_of(claim: Claim) -> int:
    """Bytes that a claim asks for."""
    requests = (claim.spec.resources.requests if claim.spec.resources else None) or {}
    return quantity.value(requests["storage"]) if "storage" in requests else 0


def capacity_of(volume: Volume) -> int:
    """Bytes that a volume has."""
    capacity = volume.spec.capacity or {}
    return quantity.value(capacity["storage"]) if "storage" in capacity else 0


def fully_bound(claim: Claim) -> bool:
    return bool(claim.spec.volume_name) and BIND_COMPLETED in (claim.metadata.annotations or {})


def is_claimed_by(volume: Volume, claim: Claim) -> bool:
    """The volume's claimRef names this claim; a claimRef without uid (pre-bound by hand) names any of that name."""
    ref = volume.spec.claim_ref
    if ref is None or (ref.namespace, ref.name) != (claim.metadata.namespace, claim.metadata.name):
        return False
    return not ref.uid or ref.uid == claim.metadata.uid


def same_shape(volume: Volume, claim: Claim) -> bool:
    """Volume mode and attribute class agree. They must, even where somebody bound the two by hand."""
    spec, claim_spec = volume.spec, claim.spec
    modes = (spec.volume_mode or "Filesystem") == (claim_spec.volume_mode or "Filesystem")
    return modes and (spec.volume_attributes_class_name or "") == (claim_spec.volume_attributes_class_name or "")


def best_volume(
    claim: Claim, volumes: Iterable[Volume], selector: LabelSelector | None, *, only_prebound: bool = False
) -> Volume | None:
    """The volume that is pre-bound to the claim, else the smallest free one that fits it; None if there is none.

    ``only_prebound``: the claim waits for its first pod, and the scheduler chooses.
    """
    best: Volume | None = None
    modes = set(claim.spec.access_modes or ())
    for volume in sorted(volumes, key=lambda v: v.metadata.name or ""):
        if volume.metadata.deletion_timestamp or capacity_of(volume) < size_of(claim) or not same_shape(volume, claim):
            continue
        if is_claimed_by(volume, claim):
            return volume
        if only_prebound or volume.spec.claim_ref is not None or volume.status.phase != "Available":
            continue
        if class_of(volume) != class_of(claim) or not modes <= set(volume.spec.access_modes or ()):
            continue
        if selector is not None and not selector.matches(volume.metadata.labels or {}):
            continue
        if best is None or capacity_of(volume) < capacity_of(best):
            best = volume
    return best
