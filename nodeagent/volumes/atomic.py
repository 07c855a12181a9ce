"""Writes a set of files so that a reader sees all of the old ones or all of the new ones.

The files live in a folder of their own; ``..data`` is a symlink to it that is replaced in one rename, and the names
that users see are symlinks through ``..data``::

    ..2026_11_20_17_03_01.000042/      the files
    ..data -> ..2026_11_20_17_03_01.000042
    tls.crt -> ..data/tls.crt
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from nodeagent.volumes.payload import File

DATA = "..data"


def write(
    folder: Path, files: Mapping[str, File], now: float, *, gid: int | None = None, uid: int | None = None
) -> bool:
    """Makes ``files`` (relative path -> content and mode) the content of ``folder``. False if it was so already.

    ``gid`` gets at least read access to every file; ``uid`` becomes the owner.
    """
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / DATA
    current = os.readlink(link) if link.is_symlink() else ""
    if current and _same(folder / current, files, gid):
        _links(folder, files)
        return False
    stamp = datetime.fromtimestamp(now, UTC).strftime("..%Y_%m_%d_%H_%M_%S.%f")
    serial = 0
    while (target := folder / (stamp if not serial else f"{stamp}_{serial}")).exists():
        serial += 1
    target.mkdir(mode=0o755)
    os.chmod(target, 0o755)
    _fill(target, files, gid, uid)
    temporary = folder / "..data_tmp"
    temporary.unlink(missing_ok=True)
    os.symlink(target.name, temporary)
    os.replace(temporary, link)
    _links(folder, files)
    if current:
        shutil.rmtree(folder / current, ignore_errors=True)
    return True


def _fill(target: Path, files: Mapping[str, File], gid: int | None, uid: int | None) -> None:
    if gid is not None:
        _group(target, gid)
    for name, file in files.items():
        path = target / name
        for parent in reversed(path.relative_to(target).parents[:-1]):
            folder = target / parent
            if not folder.exists():
                folder.mkdir()
                os.chmod(folder, 0o755)
                if gid is not None:
                    _group(folder, gid)
        path.write_bytes(file.data)
        if gid is not None or uid is not None:
            os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid)
        os.chmod(path, file.mode | (0o440 if gid is not None else 0))


def _group(folder: Path, gid: int) -> None:
    os.chown(folder, -1, gid)
    os.chmod(folder, 0o2775)


def _links(folder: Path, files: Mapping[str, File]) -> None:
    """One symlink for every first path component; those that are no longer wanted go."""
    wanted = {name.split("/", 1)[0] for name in files}
    for entry in sorted(os.listdir(folder)):
        if not entry.startswith("..") and entry not in wanted:
            (folder / entry).unlink(missing_ok=True)
    for entry in sorted(wanted):
        path = folder / entry
        if not path.is_symlink():
            os.symlink(f"{DATA}/{entry}", path)


def _same(target: Path, files: Mapping[str, File], gid: int | None) -> bool:
    found = {str(Path(base, n).relative_to(target)) for base, _, names in os.walk(target) for n in names}
    if found != set(files):
        return False
    for name, file in files.items():
        path = target / name
        status = path.stat()
        if status.st_mode & 0o7777 != file.mode | (0o440 if gid is not None else 0):
            return False
        if status.st_size != len(file.data) or path.read_bytes() != file.data:
            return False
    return True
