"""The provisioner of a lab: volumes that are folders of this machine, one for each claim.

Class ``local-path`` makes a folder that belongs to one node: the volume says so by node affinity, and a pod that uses it stays
there. Class ``local-loop`` makes a file with a file system in it, which has the size that was asked for and no more. Class
``lab-shared`` makes a folder that every node of the lab reaches (ReadWriteMany). The nodes of a lab are namespaces on one
machine and see its files, so a controller can make the folders; on several machines an external provisioner has to.

What is being made is noted first (``.making``), until there is a PersistentVolume for it. If the provisioner dies in between
and the claim goes meanwhile, or chooses another node, nobody else would know of it.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from controllers.controller import Context, Controller
from navarch.api import volumes
from navarch.api.errors import AlreadyExists, NotFound
from navarch.api.types import core_v1, meta_v1, storage_v1
from navarch.api.volumes import Claim, Volume
from navarch.api.wellknown import HOSTNAME
from navarch.client.events import NORMAL, WARNING
from navarch.client.watch import DELETED

LOCAL, SHARED, LOOP = "navarch.dev/local-path", "navarch.dev/shared-path", "navarch.dev/local-loop"
OURS = (LOCAL, SHARED, LOOP)
UNFINISHED = "(unfinished)"  # the key for what is noted; no object has such a name
MIN_IMAGE = 8 << 20  # bytes of the smallest file system
SINGLE = {"ReadWriteOnce", "ReadWriteOncePod"}
REMOVAL_TIMEOUT = 600.0  # seconds
LAST_MOUNT = 1024 + 0x2C  # where an ext4 file system has the time of its last mount, 0 for never
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*").fullmatch


class Refused(Exception):
    """A claim that this provisioner cannot serve; the message is for the claim's event."""


def new_volume(claim: Claim, storage_class: storage_v1.StorageClass, root: Path, host: str) -> Volume:
    """The volume for a claim. ``host``: the label kubernetes.io/hostname of its node, "" for a shared one.

    Raises Refused."""
    if claim.spec.volume_mode == "Block":
        raise Refused("block volumes are not supported: use volumeMode Filesystem")
    if claim.spec.selector is not None:
        raise Refused("claim.Spec.Selector is not supported")
    shared = storage_class.provisioner == SHARED
    modes = claim.spec.access_modes or []
    if not shared and not set(modes) <= SINGLE:
        raise Refused("only ReadWriteOnce and ReadWriteOncePod are supported: use the class lab-shared for the others")
    uid = claim.metadata.uid or ""
    folder = "shared" if shared else host
    if not _SAFE(folder) or not _SAFE(uid):  # both become parts of a path
        raise Refused(f"not the name of a folder: {folder!r}")
    loop = storage_class.provisioner == LOOP
    if loop and volumes.size_of(claim) < MIN_IMAGE:
        raise Refused(f"a volume with a file system of its own has at least {MIN_IMAGE >> 20}Mi")
    path = str(root / folder / (f"pvc-{uid}.img" if loop else f"pvc-{uid}"))
    term = core_v1.NodeSelectorTerm(
        match_expressions=[core_v1.NodeSelectorRequirement(key=HOSTNAME, operator="In", values=[host])]
    )
    affinity = core_v1.VolumeNodeAffinity(required=core_v1.NodeSelector(node_selector_terms=[term]))
    size = ((claim.spec.resources.requests if claim.spec.resources else None) or {}).get("storage", "0")
    return Volume(
        metadata=meta_v1.ObjectMeta(name=f"pvc-{uid}", annotations={volumes.PROVISIONED_BY: storage_class.provisioner}),
        spec=core_v1.PersistentVolumeSpec(
            access_modes=modes,
            capacity={"storage": size},
            claim_ref=core_v1.ObjectReference(
                api_version="v1", kind="PersistentVolumeClaim", namespace=claim.metadata.namespace,
                name=claim.metadata.name, uid=uid, resource_version=claim.metadata.resource_version,
            ),
            local=core_v1.LocalVolumeSource(path=path, fs_type="ext4" if loop else None) if not shared else None,
            host_path=core_v1.HostPathVolumeSource(path=path, type="DirectoryOrCreate") if shared else None,
            node_affinity=None if shared else affinity,
            mount_options=storage_class.mount_options,
            persistent_volume_reclaim_policy=storage_class.reclaim_policy or "Delete",
            storage_class_name=storage_class.metadata.name,
            volume_attributes_class_name=claim.spec.volume_attributes_class_name,
            volume_mode="Filesystem",
        ),
        status=core_v1.PersistentVolumeStatus(),
    )  # fmt: skip


def path_of(volume: Volume) -> str:
    spec = volume.spec
    return spec.local.path if spec.local is not None else spec.host_path.path if spec.host_path is not None else ""


def is_made_here(root: Path, path: Path, name: str) -> bool:
    """The path is one that this provisioner gives a volume: ROOT/FOLDER/NAME, with no way up in it."""
    is_ours = path.name in (name, f"{name}.img") and name.startswith("pvc-")
    return path.parent.parent == root and is_ours and ".." not in path.parts


class Notes:
    """Volumes that are being made below ``root``: a file for each, with its path. Methods raise OSError, SubprocessError."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / ".making"

    def begin(self, name: str, path: str) -> None:
        """Notes a volume; removes what was begun for the same claim elsewhere."""
        note = self.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        if note.exists() and note.read_text() not in ("", path):
            self.undo(name)
        scratch = self.folder / f".{name}"
        scratch.write_text(path)
        scratch.rename(note)

    def end(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        return sorted(p.name for p in self.folder.iterdir() if p.name[0] != ".") if self.folder.is_dir() else []

    def undo(self, name: str) -> None:
        path = Path((self.folder / name).read_text())
        if is_made_here(self.root, path, name):
            remove_folder(scratch_of(str(path)))
            if is_unused(path):
                remove_folder(str(path))
        self.end(name)


def is_unused(path: Path) -> bool:
    """Tells whether nobody can have written to it: the folder is empty, the file system was never mounted.

    Somebody may have bound the volume, and have taken the object away to keep the data, while this provisioner was not there.
    """
    if path.is_dir():
        return not any(path.iterdir())
    if not path.is_file():
        return True
    with path.open("rb") as file:
        file.seek(LAST_MOUNT)
        return file.read(4) == bytes(4)


def scratch_of(path: str) -> str:
    return f"{path}.new"


def make_folder(path: str) -> None:
    """Anyone in a pod may write: which user that is the claim does not say. Raises OSError."""
    os.makedirs(path, 0o755, exist_ok=True)
    os.chmod(path, 0o777)


def make_image(path: str, size: int) -> None:
    """A file with an empty ext4 in it, whose top anyone may write to. It takes room on the disk as it fills.

    Raises OSError, subprocess.SubprocessError."""
    if os.path.exists(path):
        return
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    scratch = scratch_of(path)
    with open(scratch, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.truncate(size)
    _tool("mkfs.ext4", "-q", "-F", "-m", "0", scratch)
    # Databases want an empty folder; e2fsck makes lost+found again if it has something for it.
    for change in ("rmdir lost+found", "set_inode_field <2> mode 040777"):
        _tool("debugfs", "-w", "-R", change, scratch)
    os.rename(scratch, path)


def _tool(*command: str) -> None:
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    subprocess.run(command, check=True, capture_output=True, timeout=REMOVAL_TIMEOUT, env=environment)


def remove_folder(path: str) -> None:
    """Removes what pods wrote. ``rm`` follows no links, goes as deep as it must and stays on the file system.

    Raises OSError, subprocess.SubprocessError."""
    command = ["rm", "-rf", "--one-file-system", "--", path]
    subprocess.run(command, check=True, capture_output=True, timeout=REMOVAL_TIMEOUT)


class LocalPathProvisioner(Controller):
    """Keys are claims (``namespace/name``) and volumes (``name``). ``root``: the folder for all volumes."""

    name = "local-path-provisioner"

    def __init__(self, context: Context, root: str) -> None:
        super().__init__(context)
        self.root, self.notes = Path(root), Notes(Path(root))
        self.events = context.recorder(self.name)
        self.claims = self.informer(Claim)
        self.volumes = self.informer(Volume)
        self.classes = self.informer(storage_v1.StorageClass)
        self.nodes = self.informer(core_v1.Node)
        self.enqueues(self.claims, self._concerns)
        self.enqueues(self.volumes, lambda v: _is_ours(v) and v.status.phase == "Released")
        self.claims.add_handler(lambda kind, old, new: self.queue.add(UNFINISHED) if kind == DELETED else None)
        self.queue.add(UNFINISHED)

    @staticmethod
    def _concerns(claim: Claim) -> bool:
        return (claim.metadata.annotations or {}).get(volumes.STORAGE_PROVISIONER) in OURS

    async def reconcile(self, key: str) -> float | None:
        if "/" in key:
            claim = self.claims.get_key(key)
            if claim is not None and claim.metadata.deletion_timestamp is None and self._concerns(claim):
                await (self._grow(claim) if volumes.fully_bound(claim) else self._make(claim))
        elif key == UNFINISHED:
            await self._look_at_notes()
        elif (volume := self.volumes.get_key(key)) is not None:
            await self._take_away(volume)
        return None

    async def _look_at_notes(self) -> None:
        """Removes what was begun for claims that are gone. There is nobody's data in it: it never had a volume."""
        for name in await self.world.blocking(self.notes.names):
            if self.volumes.get_key(name) is None:
                if any(f"pvc-{claim.metadata.uid}" == name for claim in self.claims.list()):
                    continue  # it is being made, or will be
                try:
                    await self.client[Volume].get(name)
                except NotFound:
                    await self.world.blocking(self.notes.undo, name)
                    continue
            await self.world.blocking(self.notes.end, name)

    async def _make(self, claim: Claim) -> None:
        storage_class = self.classes.get_key(volumes.class_of(claim))
        if storage_class is None or storage_class.provisioner not in OURS:
            return  # anyone may write the annotation; the class decides who makes volumes
        name = f"pvc-{claim.metadata.uid}"
        if claim.spec.volume_name or self.volumes.get_key(name) is not None:
            return
        try:
            volume = new_volume(claim, storage_class, self.root, self._host(claim, storage_class))
            await self.world.blocking(self.notes.begin, name, path_of(volume))
            if storage_class.provisioner == LOOP:
                await self.world.blocking(make_image, path_of(volume), volumes.size_of(claim))
            else:
                await self.world.blocking(make_folder, path_of(volume))
        except (Refused, OSError, subprocess.SubprocessError) as error:
            text = f'failed to provision volume with StorageClass "{storage_class.metadata.name}": {error}'
            self.events.event(claim, WARNING, "ProvisioningFailed", text)
            if isinstance(error, Refused):
                return  # a change of the claim or its class brings the key back
            raise
        try:
            await self.client[Volume].create(volume)
        except AlreadyExists:
            return
        await self.world.blocking(self.notes.end, name)  # from now on it goes as volumes go
        text = f"Successfully provisioned volume {volume.metadata.name}"
        self.events.event(claim, NORMAL, "ProvisioningSucceeded", text)

    def _host(self, claim: Claim, storage_class: storage_v1.StorageClass) -> str:
        """The host name of the claim's node: the one that the scheduler selected, else the first by name."""
        if storage_class.provisioner == SHARED:
            return ""
        selected = (claim.metadata.annotations or {}).get(volumes.SELECTED_NODE)
        nodes = sorted(n.metadata.name or "" for n in self.nodes.list())
        if selected and selected not in nodes:
            raise Refused(f'node "{selected}" not found')
        if not selected and not nodes:
            raise Refused("there is no node")
        node = self.nodes.get_key(selected or nodes[0])
        name = selected or nodes[0]
        return ((node.metadata.labels or {}) if node is not None else {}).get(HOSTNAME, name)

    async def _grow(self, claim: Claim) -> None:
        """A folder has no size of its own: a claim that asks for more has it at once. A file system grows when mounted."""
        volume = self.volumes.get_key(claim.spec.volume_name or "")
        requested = volumes.size_of(claim)
        if volume is None or not _is_ours(volume) or claim.status.phase != "Bound":
            return
        size = ((claim.spec.resources.requests if claim.spec.resources else None) or {}).get("storage", "0")
        if _is_image(volume):
            await self._grow_image(claim, volume, str(size))
            return
        if requested > volumes.capacity_of(volume):
            change: dict[str, Any] = {"spec": {"capacity": {"storage": size}}}
            await self.client[Volume].patch(volume.metadata.name or "", None, change)
        if (claim.status.capacity or {}).get("storage") != size and requested >= volumes.capacity_of(volume):
            status = {"status": {"capacity": {"storage": size}}}
            await self.client[Claim].patch_status(claim.metadata.name or "", claim.metadata.namespace, status)
            self.events.event(claim, NORMAL, "FileSystemResizeSuccessful", "MountVolume.NodeExpandVolume succeeded for volume")

    async def _grow_image(self, claim: Claim, volume: Volume, size: str) -> None:
        """Makes the file larger; the node's agent does the rest when a pod mounts it, and tells the claim."""
        requested, path = volumes.size_of(claim), Path(path_of(volume))
        if requested <= volumes.capacity_of(volume) or not is_made_here(self.root, path, volume.metadata.name or ""):
            return
        await self.world.blocking(_enlarge, path, requested)
        text = "Waiting for user to (re-)start a pod to finish file system resize of volume on node."
        pending = {"type": "FileSystemResizePending", "status": "True", "message": text}
        status = {"status": {"conditions": [pending]}}
        await self.client[Claim].patch_status(claim.metadata.name or "", claim.metadata.namespace, status)
        self.events.event(claim, NORMAL, "FileSystemResizeRequired", "Require file system resize of volume on node")
        change: dict[str, Any] = {"spec": {"capacity": {"storage": size}}}
        await self.client[Volume].patch(volume.metadata.name or "", None, change)

    async def _take_away(self, volume: Volume) -> None:
        spec = volume.spec
        if not _is_ours(volume) or volume.status.phase != "Released" or spec.persistent_volume_reclaim_policy != "Delete":
            return
        path = Path(path_of(volume))
        if is_made_here(self.root, path, volume.metadata.name or ""):
            try:
                await self.world.blocking(remove_folder, str(path))
            except (OSError, subprocess.SubprocessError) as error:
                self.events.event(volume, WARNING, "VolumeFailedDelete", f"rm -rf {path}: {error}")
                raise
        else:  # a path that somebody wrote into the object: not ours to remove
            self.events.event(volume, WARNING, "VolumeFailedDelete", f"{path} is not below {self.root}")
            return
        try:
            await self.client[Volume].delete(volume.metadata.name or "", uid=volume.metadata.uid)
        except NotFound:
            pass


def _is_ours(volume: Volume) -> bool:
    return (volume.metadata.annotations or {}).get(volumes.PROVISIONED_BY) in OURS


def _is_image(volume: Volume) -> bool:
    return (volume.metadata.annotations or {}).get(volumes.PROVISIONED_BY) == LOOP


def _enlarge(path: Path, size: int) -> None:
    if path.stat().st_size < size:
        os.truncate(path, size)
