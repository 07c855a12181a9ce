"""Records of the node's mounts, on disk, beside each place: written before the driver is called, removed after it has taken
the mount away. So an agent that was killed in the middle of a call knows what there may be.

Places are kubelet's: pods/UID/volumes/kubernetes.io~csi/NAME/mount for a pod, plugins/kubernetes.io/csi/DRIVER/HASH/globalmount
for the node as a whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

FILE = "vol_data.json"


class Record(msgspec.Struct):
    """A volume at a place. ``done``: the driver has said that it is mounted."""

    driver: str
    handle: str
    volume: str  # name of the PersistentVolume, or of the pod's volume
    pod: str = ""  # uid; "" for the node's own place
    claim: str = ""  # namespace/name
    size: int = 0  # bytes that the file system has been given
    is_ephemeral: bool = False
    needs_attachment: bool = False
    done: bool = False


class Place:
    """One folder with a record and a mount."""

    def __init__(self, folder: Path, mount: str) -> None:
        self.folder, self.mount = folder, folder / mount

    def read(self) -> Record | None:
        """None if there is none, or it is not whole: then nothing was mounted yet."""
        try:
            return msgspec.json.decode((self.folder / FILE).read_bytes(), type=Record)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def write(self, record: Record) -> None:
        """Raises OSError."""
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        scratch = self.folder / f"{FILE}.new"
        scratch.write_bytes(msgspec.json.encode(record))
        os.replace(scratch, self.folder / FILE)

    def is_mounted(self) -> bool:
        """Looks into the table of mounts, not at the place: a server behind it may be away for ever."""
        return _escaped(self.mount) in _mount_points()

    def remove(self) -> None:
        """Removes the place. Only ever empty folders: behind one are somebody's data. Raises OSError."""
        if self.is_mounted():
            raise OSError(16, "the driver has not unmounted it", str(self.mount))
        with contextlib.suppress(FileNotFoundError):
            if self.mount.is_dir():
                self.mount.rmdir()
            else:
                self.mount.unlink()
        for name in (f"{FILE}.new", FILE):
            (self.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self.folder.rmdir()


class Places:
    """Below the folder that plugins know as /var/lib/kubelet."""

    def __init__(self, root: Path) -> None:
        self.pods = root / "pods"
        self.staging = root / "plugins" / "kubernetes.io" / "csi"

    def of_pod(self, uid: str, name: str) -> Place:
        return Place(self.pods / uid / "volumes" / "kubernetes.io~csi" / name, "mount")

    def of_node(self, driver: str, handle: str) -> Place:
        return Place(self.staging / driver / hashlib.sha256(handle.encode()).hexdigest(), "globalmount")

    def published(self, uid: str) -> list[Place]:
        """The places of a pod."""
        folder = self.pods / uid / "volumes" / "kubernetes.io~csi"
        return [Place(path, "mount") for path in _below(folder)]

    def pods_with_volumes(self) -> list[str]:
        return [path.name for path in _below(self.pods)]

    def all_published(self) -> Iterator[tuple[Place, Record]]:
        for uid in self.pods_with_volumes():
            for place in self.published(uid):
                if (record := place.read()) is not None:
                    yield place, record

    def all_staged(self) -> Iterator[tuple[Place, Record]]:
        for driver in _below(self.staging):
            for path in _below(driver):
                place = Place(path, "globalmount")
                if (record := place.read()) is not None:
                    yield place, record

    def forget_pod(self, uid: str) -> None:
        """Removes the empty folders of a pod. Raises OSError."""
        for folder in ("volumes/kubernetes.io~csi", "volumes", ""):
            with contextlib.suppress(FileNotFoundError):
                (self.pods / uid / folder).rmdir()


def _mount_points() -> frozenset[str]:
    with open("/proc/self/mountinfo") as file:
        return frozenset(line.split(" ", 5)[4] for line in file)


def _escaped(path: Path) -> str:
    """A path as the table of mounts has it; only the folder is looked up, which is ours."""
    text = os.path.join(os.path.realpath(path.parent), path.name)
    return text.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")


def _below(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []
