"""The facts that a driver is told of a volume and a pod. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from navarch.api.types import core_v1, storage_v1
from protos import csi_pb2 as csi

_MODE = csi.VolumeCapability.AccessMode
BLOCK = "block volumes are not supported"


def capability(
    access_modes: Sequence[str], fs_type: str, flags: Sequence[str], *, single_node_modes: bool = False, group: str = ""
) -> csi.VolumeCapability:
    """How a volume is to be used. ``single_node_modes``: the driver tells ReadWriteOnce from ReadWriteOncePod."""
    out = csi.VolumeCapability()
    out.mount.SetInParent()
    out.mount.fs_type = fs_type
    out.mount.mount_flags.extend(flags)
    out.mount.volume_mount_group = group
    out.access_mode.mode = access_mode(access_modes, single_node_modes)
    return out


def access_mode(modes: Sequence[str], single_node_modes: bool) -> int:
    """The interface's one mode for Kubernetes' list: the one that allows most of it."""
    if "ReadWriteMany" in modes:
        return int(_MODE.MULTI_NODE_MULTI_WRITER)
    if "ReadOnlyMany" in modes and len(modes) > 1:
        return int(_MODE.MULTI_NODE_SINGLE_WRITER)
    if "ReadOnlyMany" in modes:
        return int(_MODE.MULTI_NODE_READER_ONLY)
    if single_node_modes:
        pod_only = "ReadWriteOncePod" in modes
        return int(_MODE.SINGLE_NODE_SINGLE_WRITER if pod_only else _MODE.SINGLE_NODE_MULTI_WRITER)
    return int(_MODE.SINGLE_NODE_WRITER)


def attachment_name(handle: str, driver: str, node: str) -> str:
    """The name of the VolumeAttachment of a volume to a node."""
    return "csi-" + hashlib.sha256(f"{handle}{driver}{node}".encode()).hexdigest()


def unique_name(driver: str, handle: str) -> str:
    """The volume in a Node's volumesInUse."""
    return f"kubernetes.io/csi/{driver}^{handle}"


def inline_handle(uid: str, volume: str) -> str:
    """The id of a volume that lives with its pod."""
    return "csi-" + hashlib.sha256(f"{uid}{volume}".encode()).hexdigest()


def pod_context(
    pod: core_v1.Pod, spec: storage_v1.CSIDriverSpec | None, *, is_ephemeral: bool, tokens: Mapping[str, dict[str, str]]
) -> dict[str, str]:
    """Returns the facts of the pod that its driver asks for. ``tokens``: by audience, as kubelet writes them."""
    out: dict[str, str] = {}
    if spec is not None and spec.pod_info_on_mount:
        prefix, meta = "csi.storage.k8s.io/", pod.metadata
        out[prefix + "pod.name"] = meta.name or ""
        out[prefix + "pod.namespace"] = meta.namespace or ""
        out[prefix + "pod.uid"] = meta.uid or ""
        out[prefix + "serviceAccount.name"] = pod.spec.service_account_name or "default"
        out[prefix + "ephemeral"] = "true" if is_ephemeral else "false"
    if tokens:
        out["csi.storage.k8s.io/serviceAccount.tokens"] = msgspec.json.encode(tokens).decode()
    return out


def gives_group(spec: storage_v1.CSIDriverSpec | None, volume: core_v1.PersistentVolume | None, fs_type: str) -> bool:
    """Whether the node makes the pod's fsGroup the owner of what is in the volume (CSIDriver's fsGroupPolicy)."""
    policy = (spec.fs_group_policy if spec else None) or "ReadWriteOnceWithFSType"
    if policy != "ReadWriteOnceWithFSType":
        return policy == "File"
    modes = (volume.spec.access_modes if volume else None) or ()
    return bool(fs_type) and ("ReadWriteOnce" in modes or "ReadWriteOncePod" in modes)
