"""A container's root file system: the image's layers below, a writable directory on top (overlayfs)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from navarch.linux import syscalls
from nodeagent.linux import trees

_PAGE = 4000  # mount(2) takes its options in one page


def mount(target: Path, lower: Sequence[Path], writable: Path, *, devices: bool = True) -> None:
    """Mounts an overlay at ``target``; ``lower`` has the lowest layer first. ``writable`` is made. Without ``devices``,
    device nodes in it are of no use."""
    flags = 0 if devices else syscalls.MS_NODEV
    upper, work, empty = writable / "upper", writable / "work", writable / "empty"
    for path in (upper, work):
        path.mkdir(parents=True, exist_ok=True)
    os.chmod(upper, 0o755)
    if not lower:
        empty.mkdir(exist_ok=True)
    elif lower:
        info = os.stat(lower[-1])
        os.chmod(upper, info.st_mode & 0o7777)
        os.chown(upper, info.st_uid, info.st_gid)
    paths = [str(path) for path in reversed(lower)] or [str(empty)]
    fds: list[int] = []
    try:
        if sum(len(path) + 1 for path in paths) > _PAGE - len(str(upper)) - len(str(work)):
            fds = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in paths]
            paths = [f"/proc/self/fd/{fd}" for fd in fds]
        options = f"lowerdir={':'.join(paths)},upperdir={upper},workdir={work}"
        try:
            # volatile: never sync the upper directory, which does not outlive the container.
            syscalls.mount("overlay", target, "overlay", flags, f"{options},volatile")
        except OSError as error:
            if error.errno != 22:
                raise
            syscalls.mount("overlay", target, "overlay", flags, options)
    finally:
        for fd in fds:
            os.close(fd)


def mount_read_only(target: Path, lower: Sequence[Path], empty: Path) -> None:
    """Mounts layers at ``target``, the lowest first, without a writable one; nothing in it can be executed. ``empty``: an
    empty directory, since an overlay needs two layers."""
    flags = syscalls.MS_RDONLY | syscalls.MS_NODEV | syscalls.MS_NOSUID | syscalls.MS_NOEXEC
    fds = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in (*reversed(lower), empty)]
    try:
        options = "lowerdir=" + ":".join(f"/proc/self/fd/{fd}" for fd in fds)
        syscalls.mount("overlay", target, "overlay", flags, options)
    finally:
        for fd in fds:
            os.close(fd)


def unmount(target: Path) -> None:
    """Not an error if nothing is mounted there."""
    syscalls.umount(target)


def discard(writable: Path, stop: Callable[[], bool]) -> None:
    """Removes the writable directory, for as long as ``stop`` does not say to let it be."""
    trees.remove(writable, stop)
