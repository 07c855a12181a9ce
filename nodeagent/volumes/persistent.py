"""persistentVolumeClaim and ephemeral volumes: from a claim to the folder of its volume on this node.

Volumes of type local and hostPath are folders of the node, those of type csi are its drivers' (csi/). With every other type the
pod waits.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from navarch.api.types import core_v1
from navarch.api.volumes import fully_bound
from navarch.client.client import Client
from navarch.linux import syscalls
from nodeagent.linux.diskusage import MAX_ANCHORS, MAX_PATH
from nodeagent.pods.fieldrefs import ConfigError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS

Volume = core_v1.PersistentVolume
Claim = core_v1.PersistentVolumeClaim


def claim_name(pod: core_v1.Pod, volume: core_v1.Volume) -> str | None:
    """The claim behind a volume of a pod; None for other volumes."""
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim.claim_name
    return f"{pod.metadata.name}-{volume.name}" if volume.ephemeral is not None else None


def is_read_only(volume: core_v1.Volume) -> bool:
    return bool(volume.persistent_volume_claim is not None and volume.persistent_volume_claim.read_only)


async def bound_volume(client: Client, pod: core_v1.Pod, name: str, ephemeral: bool) -> tuple[Claim, Volume]:
    """A pod's claim and the volume that it is bound to. Raises ConfigError as kubelet words it, StatusError, TransportError."""
    namespace = pod.metadata.namespace or ""
    claim = await client[core_v1.PersistentVolumeClaim].get(name, namespace)
    owners = claim.metadata.owner_references or ()
    if ephemeral and not any(o.controller and o.uid == pod.metadata.uid for o in owners):
        raise ConfigError(f"PVC {namespace}/{name} was not created for pod {namespace}/{pod.metadata.name} (pod is not owner)")
    if not fully_bound(claim) or claim.status.phase != "Bound":
        raise ConfigError(f"PVC {namespace}/{name} is not bound")
    volume = await client[Volume].get(claim.spec.volume_name or "")
    ref = volume.spec.claim_ref
    if ref is None or ref.uid != claim.metadata.uid:
        raise ConfigError(f"PVC {namespace}/{name} is not bound to PV {volume.metadata.name}")
    if volume.spec.volume_mode == "Block":
        raise ConfigError("block volumes are not supported")
    return claim, volume


def local_folder(volume: Volume) -> str:
    """The folder of a volume of type local. Raises ConfigError."""
    assert volume.spec.local is not None
    path = volume.spec.local.path
    if not os.path.isdir(path):
        raise ConfigError(f'path "{path}" does not exist')
    return path


def give_to_group(path: str, gid: int, policy: str | None) -> None:
    """Lets the group ``gid`` read and write all of a folder (spec.securityContext.fsGroup). Raises OSError.

    Policy OnRootMismatch looks at the folder itself only. No link is followed: pods have written what lies here.
    """
    top = os.stat(path)
    if policy == "OnRootMismatch" and top.st_gid == gid and top.st_mode & 0o2070 == 0o2070:
        return
    for descriptor, files in _each(path):
        info = os.fstat(descriptor)
        os.fchown(descriptor, -1, gid)
        os.fchmod(descriptor, stat.S_IMODE(info.st_mode) | 0o2770)
        for name in files:
            info = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            os.chown(name, -1, gid, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(info.st_mode):
                # Opened without following a link that took the file's place meanwhile.
                file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
                try:
                    if stat.S_ISREG(os.fstat(file).st_mode):
                        os.chmod(f"/proc/self/fd/{file}", stat.S_IMODE(info.st_mode) | 0o660)
                finally:
                    os.close(file)


def _each(path: str) -> Iterator[tuple[int, list[str]]]:
    """Each folder of a tree as an open descriptor, with the names in it that are no folders. However deep it is: what lies
    deeper than a path can say is opened from a folder on the way, as in linux/diskusage.py. Raises OSError for ``path``."""
    anchors = [(os.open(path, _FOLDER), ["."])]
    try:
        while anchors:
            anchor, waiting = anchors[-1]
            if not waiting:
                os.close(anchors.pop()[0])
                continue
            relative = waiting.pop()
            try:
                descriptor = syscalls.openat2(anchor, relative, _FOLDER, _RESOLVE)
            except OSError:
                continue  # removed meanwhile, or replaced by a link
            is_anchor = False
            try:
                folders, files = _entries(descriptor)
                yield descriptor, files
                is_anchor = len(relative) >= MAX_PATH and len(anchors) < MAX_ANCHORS
                if is_anchor:
                    anchors.append((descriptor, folders))
                elif len(relative) < MAX_PATH:
                    waiting.extend(f"{relative}/{name}" for name in folders)
            finally:
                if not is_anchor:
                    os.close(descriptor)
    finally:
        for anchor, _ in anchors:
            os.close(anchor)


def _entries(descriptor: int) -> tuple[list[str], list[str]]:
    """Names of folders, and of all else, in an open folder."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    return folders, files
