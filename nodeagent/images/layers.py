"""Layers: a tar stream becomes a directory that overlayfs takes as one of its lower directories, and back.

In the tar a deleted file is an empty ``.wh.NAME`` and an emptied directory holds ``.wh..wh..opq``; overlayfs wants a
character device 0/0 and the attribute ``trusted.overlay.opaque``. The stream is not trusted: every name is resolved
inside the layer's directory by the kernel (openat2 with RESOLVE_IN_ROOT), so no symlink or ``..`` leads out of it.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import shutil
import stat
import subprocess
import tarfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from navarch.linux import syscalls
from nodeagent.linux import trees

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"
_XATTR = "SCHILY.xattr."
BLOCK = 1 << 18  # bytes read at a time: with tarfile's own 10 KiB an unpacking costs four times as much CPU
MAX_HEADER = 1 << 20  # bytes of a long name or of extended attributes, which tarfile reads as a whole
MAX_ENTRIES = 1_000_000  # of one layer
MIN_LIMIT, MAX_RATIO = 2 << 30, 100  # a layer, or all of an image, may unpack to 2 GiB, or to 100 times its blobs
ROOM, LOOK = 64 << 20, 32 << 20  # bytes that stay free on the disk; after so many it is looked
# Attributes a container may rely on; others (security.selinux, system.posix_acl...) belong to the machine.
_KEPT_ATTRIBUTES = ("security.capability", "user.")


class TooLarge(ValueError):
    """The layer unpacks to more than its blob can honestly hold."""


def size_limit(compressed: int) -> int:
    """Bytes to which a blob of that many bytes may unpack."""
    return max(MIN_LIMIT, MAX_RATIO * compressed)


class Budget:
    """Bytes to which the layers of one image may unpack together, side by side; and the disk of ``folder``, which they must
    not fill."""

    def __init__(self, limit: int, folder: Path) -> None:
        self._limit, self._folder, self._sum, self._next = limit, folder, 0, LOOK
        self._lock = threading.Lock()

    def spend(self, size: int) -> None:
        """Raises TooLarge, OSError."""
        with self._lock:
            self._sum += size
            if self._sum > self._limit:
                raise TooLarge(f"the layers unpack to more than {self._limit} bytes together")
            if self._sum < self._next:
                return
            self._next = self._sum + LOOK
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < ROOM:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, but for {ROOM} bytes; see: navarch image prune")


class Hashing:
    """A reader that knows the SHA-256 digest and length of what went through it. Raises TooLarge after ``limit`` bytes, and
    what ``budget`` raises."""

    def __init__(self, stream: Any, limit: int = 0, budget: Budget | None = None) -> None:
        self._stream, self._hash, self.length, self._limit = stream, hashlib.sha256(), 0, limit
        self._budget = budget

    def read(self, size: int = -1) -> bytes:
        data = cast(bytes, self._stream.read(size))
        self._hash.update(data)
        self.length += len(data)
        if self._limit and self.length > self._limit:
            raise TooLarge(f"layer unpacks to more than {self._limit} bytes")
        if self._budget is not None:
            self._budget.spend(len(data))
        return data

    def drain(self) -> None:
        while self.read(1 << 20):
            pass

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


@contextlib.contextmanager
def uncompressed(path: Path) -> Iterator[Any]:
    """The tar stream of a layer file, whatever it is compressed with (gzip, zstd through its tool, or not at all)."""
    with open(path, "rb") as raw:
        magic = raw.read(4)
        raw.seek(0)
        if magic[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=raw) as stream:
                yield stream
        elif magic == b"\x28\xb5\x2f\xfd":
            if shutil.which("zstd") is None:
                raise ValueError("the layer is packed with zstd, which is not installed; run deploy/setup")
            with subprocess.Popen(
                ["zstd", "-dcq", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process:
                try:
                    yield process.stdout
                finally:
                    process.kill()  # it may have more to say than anybody wants to read
        else:
            yield raw


class _Header(tarfile.TarInfo):
    """A tar header that does not read names and attributes of any length into memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in _LONG and self.size > MAX_HEADER:
            raise TooLarge(f"layer has a header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


_LONG = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


def extract(stream: Any, target: Path, limit: int = 0, budget: Budget | None = None) -> str:
    """Unpacks a tar stream into the empty directory ``target``. Returns the digest of the stream (the diff id).

    Raises TooLarge if stream or files have more than ``limit`` bytes (0: any), or if there are too many files; ValueError
    for numbers that the machine does not have, and for headers of headers of headers.
    """
    try:
        return _extract(stream, target, limit, budget)
    except (OverflowError, RecursionError) as error:
        raise ValueError(f"layer cannot be unpacked: {error}") from error


def _extract(stream: Any, target: Path, limit: int, budget: Budget | None) -> str:
    reader = Hashing(stream, limit, budget)
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    times: list[tuple[str, float]] = []
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", reader), mode="r|", bufsize=BLOCK, tarinfo=_Header) as archive:
            extractor = Extractor(root, limit)
            for count, member in enumerate(archive):
                archive.members.clear()  # type: ignore[attr-defined]  # else it remembers them all
                if limit and count >= MAX_ENTRIES:
                    raise TooLarge(f"layer has more than {MAX_ENTRIES} entries")
                extractor.add(member, archive.extractfile(member) if member.isreg() else None)
                if member.isdir():
                    times.append((member.name, member.mtime))
            extractor.close()
        for name, mtime in reversed(times):  # last, since making a file touches its directory
            with contextlib.suppress(OSError):
                fd = syscalls.openat_in_root(root, clean(name), os.O_RDONLY | os.O_DIRECTORY)
                os.utime(fd, (mtime, mtime))
                os.close(fd)
    finally:
        os.close(root)
    reader.drain()
    return reader.digest


def clean(name: str) -> str:
    """A tar entry's name without leading, double and dot parts."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


class Extractor:
    """Makes files below the directory that ``root`` is open on. It may be a mounted root file system too.

    ``limit``: bytes of all files together, 0 for any. A sparse file's header may promise any size: its holes count.
    """

    def __init__(self, root: int, limit: int = 0) -> None:
        self.root, self._limit, self._written = root, limit, 0
        self._parent: tuple[str, int] | None = None

    def close(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def _directory(self, path: str) -> int:
        """An open directory inside the root, made if absent. The last one stays open: tars list neighbours together."""
        if self._parent is not None:
            if self._parent[0] == path:
                return self._parent[1]
            self.close()
        try:
            fd = syscalls.openat_in_root(self.root, path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            upper, _, name = path.rpartition("/")
            parent = self._directory(upper)
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
            self.close()
            fd = syscalls.openat_in_root(self.root, path, os.O_RDONLY | os.O_DIRECTORY)
        self._parent = (path, fd)
        return fd

    def add(self, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        """Makes what a tar entry describes; ``content`` is a regular file's."""
        path = clean(member.name)
        if not path:
            os.fchmod(self.root, member.mode & 0o7777)
            os.fchown(self.root, member.uid, member.gid)
            return
        upper, _, name = path.rpartition("/")
        if ".." in path.split("/") or "\0" in path:
            raise ValueError(f"layer has an entry outside itself: {member.name!r}")
        parent = self._directory(upper)
        if name == OPAQUE:
            os.setxattr(parent, OPAQUE_ATTRIBUTE, b"y")
            return
        if name.startswith(WHITEOUT):
            name = name[len(WHITEOUT) :]
            if name in ("", ".", ".."):  # which would remove the folder itself, or what is around it
                raise ValueError(f"layer has a whiteout of nothing: {member.name!r}")
            self._clear(parent, name, keep_directory=False)
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
            return
        self._clear(parent, name, keep_directory=member.isdir())
        self._make(member, content, parent, name)

    def _make(self, member: tarfile.TarInfo, content: IO[bytes] | None, parent: int, name: str) -> None:
        mode = member.mode & 0o7777
        if member.islnk():
            upper, _, last = clean(member.linkname).rpartition("/")
            if last in ("", ".."):
                raise ValueError(f"layer has a link to a directory: {member.name!r}")
            fd = syscalls.openat_in_root(self.root, upper, os.O_PATH | os.O_DIRECTORY)
            try:
                os.link(last, name, src_dir_fd=fd, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(fd)
            return
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
            os.utime(name, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)
            return
        if member.isdir():
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        elif member.isreg():
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
            try:
                while content is not None and (data := content.read(1 << 20)):
                    self._written += len(data)
                    if self._limit and self._written > self._limit:
                        raise TooLarge(f"layer's files have more than {self._limit} bytes")
                    _write_all(fd, data)
            except BaseException:
                os.close(fd)
                raise
        elif member.isfifo() or member.ischr() or member.isblk():
            kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(name, kind | mode, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
            os.chmod(name, mode, dir_fd=parent)
            return
        else:
            raise ValueError(f"layer has an entry of unknown type: {member.name}")
        try:
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, mode)  # after chown, which drops set-user-id bits
            for key, value in member.pax_headers.items():
                if key.startswith(_XATTR) and key[len(_XATTR) :].startswith(_KEPT_ATTRIBUTES):
                    with contextlib.suppress(OSError):
                        os.setxattr(fd, key[len(_XATTR) :], value.encode("utf-8", "surrogateescape"))
            os.utime(fd, (member.mtime, member.mtime))
        finally:
            os.close(fd)

    def _clear(self, parent: int, name: str, keep_directory: bool) -> None:
        """Makes room: a later entry of the same name replaces the earlier one."""
        try:
            is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return
        if not is_directory:
            os.unlink(name, dir_fd=parent)
        elif not keep_directory:
            trees.remove_at(parent, name)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def pack(root: Path, archive: tarfile.TarFile, prefix: str = "") -> None:
    """Adds a directory, such as an overlay's upper one, to a tar in a stable order, with whiteouts as in image layers."""
    links: dict[tuple[int, int], str] = {}
    for path, name in _walk(root, prefix):
        info = os.lstat(path)
        if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            upper, _, last = name.rpartition("/")
            archive.addfile(tarfile.TarInfo(f"{upper}/{WHITEOUT}{last}".lstrip("/")))
            continue
        if stat.S_ISSOCK(info.st_mode):
            continue
        member = tar_info(path, name, info)
        if stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
            key = (info.st_dev, info.st_ino)
            if key in links:
                member.type, member.linkname, member.size = tarfile.LNKTYPE, links[key], 0
            else:
                links[key] = name
        if member.isreg():
            with open(path, "rb") as content:
                archive.addfile(member, content)
        else:
            archive.addfile(member)
        if member.isdir() and _attribute(path, OPAQUE_ATTRIBUTE) == b"y":
            archive.addfile(tarfile.TarInfo(f"{name}/{OPAQUE}"))


def tar_info(path: str | Path, name: str, info: os.stat_result) -> tarfile.TarInfo:
    """The tar header of a file as it is on disk, without user names (they belong to the machine)."""
    member = tarfile.TarInfo(name)
    member.mode, member.uid, member.gid = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
    member.mtime = int(info.st_mtime)
    if stat.S_ISDIR(info.st_mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(info.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif stat.S_ISREG(info.st_mode):
        member.size = info.st_size
    elif stat.S_ISFIFO(info.st_mode):
        member.type = tarfile.FIFOTYPE
    else:
        member.type = tarfile.CHRTYPE if stat.S_ISCHR(info.st_mode) else tarfile.BLKTYPE
        member.devmajor, member.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
    if not stat.S_ISLNK(info.st_mode):
        value = _attribute(path, "security.capability")
        if value is not None:
            member.pax_headers = {_XATTR + "security.capability": value.decode("utf-8", "surrogateescape")}
    return member


def _attribute(path: str | Path, key: str) -> bytes | None:
    try:
        return os.getxattr(path, key, follow_symlinks=False)
    except OSError:
        return None


def _walk(root: Path, prefix: str) -> Iterable[tuple[str, str]]:
    for directory, names, files in os.walk(root):
        names.sort()
        relative = os.path.relpath(directory, root)
        base = "" if relative == "." else relative
        for name in sorted([*names, *files]):
            path = f"{prefix}/{base}/{name}".replace("//", "/").strip("/")
            yield f"{directory}/{name}", path
