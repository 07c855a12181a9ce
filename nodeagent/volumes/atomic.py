"""Writes a set of files so that a reader sees all of the old ones or all of the new ones.

The files live in a folder of their own; ``..data`` is a symlink to it that is replaced in one rename, and the names
that users see are symlinks through ``..data``::

    ..2026_11_20_17_03_01.000042/      the files
    ..data -> ..2026_11_20_17_03_01.000042
    tls.crt -> ..data/tls.crt

Containers see the folder, and one that may mount can make it writable for itself. So everything is done from the
folder's descriptor, and no symlink is followed that we have not just made.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from navarch.linux import syscalls
from nodeagent.linux import trees
from nodeagent.pods.fieldrefs import ConfigError
from nodeagent.volumes.payload import File

DATA = "..data"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLAIN = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS


def write(
    folder: Path, files: Mapping[str, File], now: float, *, gid: int | None = None, uid: int | None = None
) -> bool:
    """Makes ``files`` (relative path -> content and mode) the content of ``folder``. False if it was so already.

    ``gid`` gets at least read access to every file; ``uid`` becomes the owner. Raises ConfigError for a path that would
    lead outside, OSError.
    """
    files = {clean_name(name): file for name, file in files.items()}
    folder.mkdir(parents=True, exist_ok=True)
    root = os.open(folder, _DIRECTORY)
    try:
        return _write(root, files, now, gid, uid)
    finally:
        os.close(root)


def clean_name(name: str) -> str:
    """A path below a volume in its shortest form. Raises ConfigError by the rules of upstream's writer."""
    clean = os.path.normpath(name) if name else ""
    if name.startswith(("/", "..")) or ".." in name.split("/") or clean in ("", "."):
        raise ConfigError(f"invalid path: {name!r} must be a path below the volume, without '..'")
    return clean


def _write(root: int, files: Mapping[str, File], now: float, gid: int | None, uid: int | None) -> bool:
    current = _current(root)
    if current and _same(root, current, files, gid):
        _links(root, files)
        return False
    target = _new_folder(root, datetime.fromtimestamp(now, UTC).strftime("..%Y_%m_%d_%H_%M_%S.%f"))
    fd = os.open(target, _DIRECTORY, dir_fd=root)
    try:
        _fill(fd, files, gid, uid)
    finally:
        os.close(fd)
    trees.remove_at(root, "..data_tmp")
    os.symlink(target, "..data_tmp", dir_fd=root)
    os.rename("..data_tmp", DATA, src_dir_fd=root, dst_dir_fd=root)
    _links(root, files)
    if current:
        with contextlib.suppress(OSError):
            trees.remove_at(root, current)
    return True


def _current(root: int) -> str:
    """The folder that ``..data`` names, "" if it is none of ours."""
    try:
        name = os.readlink(DATA, dir_fd=root)
    except OSError:
        return ""
    return name if name.startswith("..") and name != ".." and "/" not in name and name != DATA else ""


def _new_folder(root: int, stamp: str) -> str:
    serial = 0
    while True:
        name = stamp if not serial else f"{stamp}_{serial}"
        try:
            os.mkdir(name, 0o755, dir_fd=root)
            return name
        except FileExistsError:
            serial += 1


def _fill(root: int, files: Mapping[str, File], gid: int | None, uid: int | None) -> None:
    os.fchmod(root, 0o755)
    if gid is not None:
        _group(root, gid)
    folders: dict[str, None] = {}
    for name, file in files.items():
        parts = name.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent not in folders:
                folders[parent] = None
                _make_folder(root, parent, gid)
        fd = syscalls.openat2(root, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PLAIN, 0o600)
        with os.fdopen(fd, "wb") as out:
            out.write(file.data)
            if gid is not None or uid is not None:
                os.fchown(fd, -1 if uid is None else uid, -1 if gid is None else gid)
            os.fchmod(fd, file.mode | (0o440 if gid is not None else 0))


def _make_folder(root: int, path: str, gid: int | None) -> None:
    upper, _, name = path.rpartition("/")
    parent = syscalls.openat2(root, upper, os.O_PATH | os.O_DIRECTORY, _PLAIN)
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    finally:
        os.close(parent)
    try:
        os.fchmod(fd, 0o755)
        if gid is not None:
            _group(fd, gid)
    finally:
        os.close(fd)


def _group(fd: int, gid: int) -> None:
    os.fchown(fd, -1, gid)
    os.fchmod(fd, 0o2775)


def _links(root: int, files: Mapping[str, File]) -> None:
    """One symlink for every first path component; those that are no longer wanted go."""
    names = {name.split("/", 1)[0] for name in files}
    for entry in sorted(os.listdir(root)):
        if not entry.startswith("..") and entry not in names:
            trees.remove_at(root, entry)
    for entry in sorted(names):
        aim = f"{DATA}/{entry}"
        try:
            if os.readlink(entry, dir_fd=root) == aim:
                continue
        except OSError:
            pass
        trees.remove_at(root, entry)
        os.symlink(aim, entry, dir_fd=root)


def _same(root: int, current: str, files: Mapping[str, File], gid: int | None) -> bool:
    try:
        folder = os.open(current, _DIRECTORY, dir_fd=root)
    except OSError:
        return False
    try:
        present = {
            os.path.normpath(f"{base}/{name}") for base, _, names, _ in os.fwalk(".", dir_fd=folder) for name in names
        }
        if present != set(files):
            return False
        return all(_has(folder, name, file, gid) for name, file in files.items())
    except OSError:
        return False
    finally:
        os.close(folder)


def _has(folder: int, name: str, file: File, gid: int | None) -> bool:
    with os.fdopen(syscalls.openat2(folder, name, os.O_RDONLY | os.O_NONBLOCK, _PLAIN), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size != len(file.data):
            return False
        if status.st_mode & 0o7777 != file.mode | (0o440 if gid is not None else 0):
            return False
        return stream.read(len(file.data) + 1) == file.data
