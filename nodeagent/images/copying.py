"""Files for an image: which ones COPY means, and putting them into a root file system without leaving it."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path

from navarch.linux import syscalls
from nodeagent.images import layers


class Ignore:
    """The patterns of a .dockerignore file; the last one that matches decides, ``!`` takes back."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._rules: list[tuple[re.Pattern[str], bool]] = []
        for line in lines:
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            back = text.startswith("!")
            pattern = os.path.normpath(text.lstrip("!").strip().lstrip("/"))
            self._rules.append((re.compile(_regex(pattern) + "(?:/.*)?"), not back))

    @classmethod
    def of(cls, context: Path) -> Ignore:
        path = context / ".dockerignore"
        return cls(path.read_text().splitlines()) if path.is_file() else cls()

    def __call__(self, relative: str) -> bool:
        ignored = False
        for pattern, value in self._rules:
            if pattern.fullmatch(relative):
                ignored = value
        return ignored


def _regex(pattern: str) -> str:
    out = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        out += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    return out


def matches(root: Path, source: str, ignore: Ignore, *, follow: bool = True) -> list[tuple[Path, str]]:
    """The files and directories below ``root`` that a source means: their paths, and the names they are asked for by.

    Symlinks on the way are resolved as if ``root`` were the root directory; with ``follow`` also one that is meant itself.
    (A link of the context, or of another image, to /etc/shadow is about the context's or the image's file, never about
    the machine's.) Raises FileNotFoundError if there is none.
    """
    if source.startswith(("http://", "https://", "git@")):
        raise FileNotFoundError(f"{source}: only local files can be added")
    clean = os.path.normpath("/" + source).lstrip("/")
    names = sorted(_expand(root, clean)) if any(char in clean for char in "*?[") else [clean]
    files = []
    for name in names:
        if (path := _resolve(root, name, follow)) is not None and not ignore(name):
            files.append((path, os.path.basename(name) or path.name))
    if not files:
        raise FileNotFoundError(f"{source}: no such file or directory")
    return files


def _resolve(root: Path, name: str, follow: bool) -> Path | None:
    upper, _, last = name.rpartition("/")
    try:
        if follow or not last:
            return syscalls.path_in_root(root, name)
        path = syscalls.path_in_root(root, upper) / last
        return path if os.path.lexists(path) else None
    except OSError:
        return None


def _expand(root: Path, pattern: str) -> list[str]:
    """The names that a pattern matches, one directory after another, none of which is reached past the root."""
    names = [""]
    for part in pattern.split("/"):
        following = []
        for name in names:
            if not any(char in part for char in "*?["):
                following.append(f"{name}/{part}".lstrip("/"))
                continue
            place = _resolve(root, name, follow=True)
            entries = os.listdir(place) if place is not None and place.is_dir() else []
            matching = [e for e in entries if fnmatch.fnmatchcase(e, part) and (part[0] == "." or e[0] != ".")]
            following += [f"{name}/{e}".lstrip("/") for e in matching]
        names = following
    return names


def tree(directory: Path, target: str, root: Path, ignore: Ignore, exclude: Ignore) -> list[tuple[Path, str]]:
    """The directory itself and all in it (symlinks as they are), with their names in the image.

    ``ignore`` judges paths below ``root``, ``exclude`` paths below the directory.
    """
    paths = [(directory, target)]
    if directory.is_symlink():
        return paths  # os.walk would follow this one
    for place, names, files in os.walk(directory):
        names.sort()
        for name in sorted([*names, *files]):
            path = Path(place) / name
            inside = os.path.relpath(path, directory)
            if not ignore(os.path.relpath(path, root)) and not exclude(inside):
                paths.append((path, os.path.join(target, inside)))
    return paths


def is_directory(root: Path, name: str) -> bool:
    """Whether there is a directory of that name in the root file system."""
    fd = os.open(root, os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(syscalls.openat_in_root(fd, name.lstrip("/"), os.O_PATH | os.O_DIRECTORY))
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def put(
    root: Path,
    files: Iterable[tuple[Path, str]],
    *,
    directories: Iterable[str] = (),
    owner: tuple[int, int] | None = (0, 0),
    mode: int | None = None,
) -> None:
    """Copies files to their names in the root file system, after making ``directories``. A directory that is there
    keeps its owner and mode. ``owner`` None keeps the files' own."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    extractor = layers.Extractor(fd)
    try:
        for name in directories:
            if not is_directory(root, name):
                member = tarfile.TarInfo(name)
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                member.uid, member.gid = owner or (0, 0)
                extractor.add(member, None)
        for path, name in files:
            info = os.lstat(path)
            if stat.S_ISSOCK(info.st_mode) or (stat.S_ISDIR(info.st_mode) and is_directory(root, name)):
                continue
            member = layers.tar_info(path, name, info)
            if owner is not None:
                member.uid, member.gid = owner
            if mode is not None and not member.isdir():
                member.mode = mode
            if member.isreg():
                with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as content:
                    extractor.add(member, content)
            else:
                extractor.add(member, None)
    finally:
        extractor.close()
        os.close(fd)


def is_archive(path: Path) -> bool:
    """Whether ADD unpacks the file."""
    return path.is_file() and tarfile.is_tarfile(path)


def unpack(path: Path, root: Path, target: str) -> None:
    """Unpacks a local tar archive below ``target``."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    extractor = layers.Extractor(fd)
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = os.path.join(target, layers.clean(member.name))
                if member.isdir() and is_directory(root, name):
                    continue
                if member.islnk():
                    member.linkname = os.path.join(target, layers.clean(member.linkname))
                member.name = name
                extractor.add(member, archive.extractfile(member) if member.isreg() else None)
    finally:
        extractor.close()
        os.close(fd)
