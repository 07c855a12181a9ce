"""emptyDir and hostPath: folders that the node itself has. (What is inside of a volume: see subpaths.py.)"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from navarch.api import quantity
from navarch.api.types import core_v1
from navarch.linux import syscalls
from nodeagent.pods.fieldrefs import ConfigError


def mount_tmpfs(path: Path, size: int = 0, mode: int = 0o755, *, executable: bool = True) -> None:
    """Mounts a tmpfs of at most ``size`` bytes (0: the kernel's default). Raises OSError."""
    options = f"mode={mode:o}" + (f",size={size}" if size else "")
    flags = 0 if executable else syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("tmpfs", path, "tmpfs", flags, options)


def show_at(folder: Path, place: Path) -> None:
    """Mounts ``folder`` at ``place``, too, where plugins expect it. What they mount below it, the node sees: it is shared.

    Raises OSError."""
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    place.mkdir(mode=0o750, parents=True, exist_ok=True)
    if not os.path.samefile(folder, place):  # it is there after a restart of the agent
        syscalls.mount(folder, place, None, syscalls.MS_BIND)
        syscalls.mount("none", place, None, syscalls.MS_SHARED)


def unmount(path: Path) -> None:
    """Unmounts ``path`` if something is mounted there; busy mounts go when their last user goes."""
    if os.path.ismount(path):
        syscalls.umount(path)


def empty_dir_folder(pods: Path, uid: str, name: str) -> Path:
    """Where an emptyDir of a pod lies, below the folder of all pods."""
    return pods / uid / "volumes" / "kubernetes.io~empty-dir" / name


def empty_dir(folder: Path, source: core_v1.EmptyDirVolumeSource, gid: int | None, memory_limit: int = 0) -> None:
    """Makes the folder of an emptyDir; with medium Memory a tmpfs, no larger than sizeLimit or ``memory_limit``."""
    folder.mkdir(parents=True, exist_ok=True)
    if source.medium == "Memory" and not os.path.ismount(folder):
        size = quantity.value(source.size_limit) if source.size_limit else 0
        if memory_limit:
            size = min(size or memory_limit, memory_limit)
        mount_tmpfs(folder, size, 0o777)
    elif source.medium not in (None, "", "Memory"):
        raise ConfigError(f'unknown storage medium "{source.medium}"')
    if gid is None:
        os.chmod(folder, 0o777)
    else:
        os.chown(folder, -1, gid)
        os.chmod(folder, 0o2777)


_KINDS: dict[str, tuple[str, Callable[[int], bool]]] = {
    "Directory": ("directory", stat.S_ISDIR),
    "File": ("file", stat.S_ISREG),
    "Socket": ("socket file", stat.S_ISSOCK),
    "CharDevice": ("character device", stat.S_ISCHR),
    "BlockDevice": ("block device", stat.S_ISBLK),
}


def host_path(source: core_v1.HostPathVolumeSource) -> Path:
    """Checks (and for the OrCreate types makes) a hostPath. Raises ConfigError as kubelet words it."""
    path, path_type = Path(source.path), source.type or ""
    if not path_type:
        return path
    if path_type.endswith("OrCreate") and not path.exists():
        try:
            if path_type == "DirectoryOrCreate":
                path.mkdir(mode=0o755, parents=True)
            else:
                path.touch(mode=0o644)
        except OSError as error:
            raise ConfigError(f"hostPath type check failed: {error.strerror}") from error
    path_type = path_type.removesuffix("OrCreate")
    if path_type not in _KINDS:
        raise ConfigError(f"{path_type} is an invalid volume type")
    word, test = _KINDS[path_type]
    if not path.exists() or not test(path.stat().st_mode):
        raise ConfigError(f"hostPath type check failed: {path} is not a {word}")
    return path


def make_host_path(source: core_v1.HostPathVolumeSource) -> None:
    """A hostPath without a type that is not there: container runtimes make a directory of it. Raises ConfigError."""
    if source.type or os.path.exists(source.path):
        return
    try:
        os.makedirs(source.path, 0o755)
    except OSError as error:
        raise ConfigError(f'failed to mkdir "{source.path}": {error.strerror}') from error
