"""subPath: a file or folder inside a volume, for one container.

Other containers write into the volume at the same time, and may swap folders for symlinks at any moment. So a path
below a volume is never looked up twice: openat2 (RESOLVE_BENEATH) opens it once, no step leading out of the volume,
and that descriptor is bind-mounted to a place that no container sees. The runtime is given this place. The mount
lasts until the container has its own; see kubelet's subpath package for the attack (CVE-2017-1002101, CVE-2021-25741).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from navarch.linux import syscalls
from nodeagent.pods.fieldrefs import ConfigError

_OUTSIDE = (errno.EXDEV, errno.ELOOP, errno.ENOTDIR, errno.EAGAIN)


def open_below(volume: Path, relative: str) -> int:
    """An O_PATH descriptor of ``relative`` in a volume; missing folders are made with the mode of the volume's own.

    Symlinks count as long as they stay in the volume. Raises ConfigError.
    """
    parts = [part for part in relative.split("/") if part not in ("", ".")]
    if relative.startswith("/") or ".." in parts:
        raise ConfigError(f'subPath "{relative}" not allowed')
    try:
        root = os.open(volume, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"stat {volume}: {error.strerror}") from error
    try:
        return _descend(root, parts)
    except OSError as error:
        if error.errno in _OUTSIDE:
            raise ConfigError(f'subPath "{relative}" not within volume path {volume}') from error
        raise ConfigError(f'subPath "{relative}": {os.strerror(error.errno or 0)}') from error
    finally:
        os.close(root)


def _descend(root: int, parts: list[str]) -> int:
    """Opens as much as there is in one look-up, then makes the rest step by step from that descriptor."""
    missing: list[str] = []
    while True:
        try:
            fd = syscalls.openat2(root, "/".join(parts), os.O_PATH, syscalls.RESOLVE_BENEATH)
            break
        except FileNotFoundError:
            if not parts:
                raise
            missing.append(parts[-1])
            parts = parts[:-1]
    mode = stat.S_IMODE(os.fstat(root).st_mode)
    for name in reversed(missing):
        try:
            try:
                os.mkdir(name, dir_fd=fd)
                ours = True
            except FileExistsError:  # somebody was faster; if it is a symlink, it is refused below
                ours = False
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            if ours:
                os.fchmod(below, mode)  # whatever the umask
        finally:
            os.close(fd)
        fd = below
    return fd


class SubPaths:
    """The sub-paths of one pod's containers while they are being made. ``place``: a folder of the pod's own on /run.

    Without ``mounts`` (an agent that simulates, or is not root) what is given is the path that was opened.
    """

    def __init__(self, place: Path, *, mounts: bool = True) -> None:
        self.place, self._mounts = place, mounts

    def bind(self, container: str, index: int, volume: Path, relative: str) -> Path:
        """The path to give to the runtime for mount number ``index`` of a container. Raises ConfigError, OSError."""
        fd = open_below(volume, relative)
        try:
            if not self._mounts:
                return Path(os.readlink(f"/proc/self/fd/{fd}"))
            target = self.place / container / str(index)
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._take_away(target)
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                target.mkdir()
            else:
                target.touch()
            syscalls.mount(f"/proc/self/fd/{fd}", target, None, syscalls.MS_BIND | syscalls.MS_REC)
            return target
        finally:
            os.close(fd)

    def release(self, container: str) -> None:
        """The container has its own mounts now, or will never have them."""
        folder = self.place / container
        if self._mounts and folder.exists():
            for target in sorted(folder.iterdir()):
                self._take_away(target)
            folder.rmdir()

    def tear_down(self) -> None:
        """Takes everything away, also what an earlier agent left. Raises OSError."""
        if self.place.exists():
            for folder in sorted(self.place.iterdir()):
                self.release(folder.name)
            self.place.rmdir()

    @staticmethod
    def _take_away(target: Path) -> None:
        """Only ever unmounts, and removes an empty place: behind it are somebody's files."""
        while syscalls.umount(target):
            pass
        with contextlib.suppress(FileNotFoundError):
            if target.is_dir():
                target.rmdir()
            else:
                target.unlink()
