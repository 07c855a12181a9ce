"""The few system calls that Python 3.11 does not offer: mounts, namespaces, safe path resolution, pidfds, inotify.

Everything goes through libc with ctypes, which releases the GIL and starts no process. Errors are OSError.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import struct
from collections.abc import Iterable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 4096, 8192, 16384, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

_SYS_OPENAT2 = 437  # the same number on every architecture
RESOLVE_NO_XDEV, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x01, 0x04, 0x08, 0x10
_PATIENCE = 1000  # attempts: the kernel answers EAGAIN while somebody renames what a path leads through

IN_MODIFY, IN_CREATE, IN_MOVED_TO, IN_MOVE_SELF = 0x2, 0x100, 0x80, 0x800
IN_NONBLOCK, IN_CLOEXEC = 0o4000, 0o2000000

NSFS_MAGIC, CGROUP_MAGIC, CGROUP2_MAGIC, OVERLAY_MAGIC = 0x6E736673, 0x27E0EB, 0x63677270, 0x794C7630


def _check(result: int, *what: object) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} ({' '.join(str(w) for w in what)})")
    return result


def _bytes(text: str | Path | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(source: str | Path, target: str | Path, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    _check(
        _libc.mount(_bytes(source), _bytes(target), _bytes(kind), ctypes.c_ulong(flags), _bytes(data)),
        "mount",
        kind or "",
        target,
    )


def umount(target: str | Path, flags: int = MNT_DETACH) -> bool:
    """umount2(2). False when nothing is mounted there (any more)."""
    if _libc.umount2(_bytes(target), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in (2, 22):  # ENOENT, EINVAL: gone already
        return False
    raise OSError(number, f"{os.strerror(number)} (umount {target})")


def unshare(flags: int) -> None:
    """unshare(2), for the calling thread only."""
    _check(_libc.unshare(flags), "unshare", hex(flags))


def setns(fd: int, flags: int = 0) -> None:
    """setns(2), for the calling thread only."""
    _check(_libc.setns(fd, flags), "setns", hex(flags))


def sethostname(name: str) -> None:
    """Sets the host name of the calling thread's UTS namespace."""
    raw = name.encode()
    _check(_libc.sethostname(raw, len(raw)), "sethostname")


def pivot_root(new: str | Path, old: str | Path) -> None:
    """pivot_root(2), for which glibc has no function; its number differs between machines."""
    number = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
    _check(_libc.syscall(number, _bytes(new), _bytes(old)), "pivot_root", new)


def set_process_name(name: str) -> None:
    """The name that ps and top show of the calling process (15 characters)."""
    _libc.prctl(15, name.encode()[:15], 0, 0, 0)


def inotify(folder: str | Path, mask: int) -> int:
    """A descriptor, which does not block, that is readable after something of ``mask`` happened in a folder."""
    fd = _check(_libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "inotify_init1")
    try:
        _check(_libc.inotify_add_watch(fd, _bytes(folder), mask), "inotify_add_watch", folder)
    except OSError:
        os.close(fd)
        raise
    return fd


def filesystem_type(path: str | Path) -> int:
    """The magic number of the file system at ``path`` (statfs), 0 when there is nothing."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.statfs(_bytes(path), buffer) != 0:
        return 0
    return int(struct.unpack_from("@l", buffer.raw)[0])


def openat2(directory: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2): opens ``path`` below an open directory under the given RESOLVE_ flags."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_PATIENCE):
        fd: int = _libc.syscall(_SYS_OPENAT2, directory, os.fsencode(path or "."), how, ctypes.c_size_t(len(how)))
        if fd >= 0 or ctypes.get_errno() != errno.EAGAIN:
            break
    return _check(fd, "openat2", path)


def openat_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Opens ``path`` as a process whose root directory is ``root_fd`` would: no symlink or ``..`` leads outside."""
    return openat2(root_fd, path, flags, RESOLVE_IN_ROOT, mode)


def open_plain(root: str | Path, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """Opens a file below ``root`` where no step is a symlink, ``..`` or another file system's. Raises OSError (ELOOP,
    EXDEV). For folders that others could write into: what is opened is what we made there."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return openat2(root_fd, path, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV, mode)
    finally:
        os.close(root_fd)


def path_in_root(root: str | Path, path: str) -> Path:
    """Where ``path`` leads for a process whose root directory is ``root``, as a path of ours. Raises OSError.

    It holds as long as nobody changes the tree.
    """
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = openat_in_root(root_fd, path.lstrip("/"), os.O_PATH)
        try:
            return Path(os.readlink(f"/proc/self/fd/{fd}"))
        finally:
            os.close(fd)
    finally:
        os.close(root_fd)


def read_in_root(root: str | Path, path: str, limit: int = 1 << 20) -> bytes | None:
    """Content of a regular file below ``root``, resolved safely; None when absent."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = openat_in_root(root_fd, path.lstrip("/"), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    finally:
        os.close(root_fd)
    with os.fdopen(fd, "rb") as file:
        try:
            return file.read(limit)
        except OSError:
            return None


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when there is no such process (or only its corpse).

    With the pid it identifies a process beyond pid reuse.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def open_process(pid: int, started: int) -> int | None:
    """A pidfd of the process ``pid`` if it is still the one that started then, else None."""
    if pid <= 0:
        return None
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    if start_time(pid) == started:
        return fd
    os.close(fd)
    return None


def signal_process(pid: int, started: int, number: int) -> bool:
    """Sends a signal to exactly that process. False when it is gone."""
    fd = open_process(pid, started)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def wait_any(fds: Iterable[int], timeout: float) -> bool:
    """Waits until one of the descriptors is readable (a pidfd: its process ended), at most ``timeout`` seconds."""
    poll = select.poll()  # select() itself cannot take descriptors above 1023
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces a file in one step: readers, and we after a crash, see the old content or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{id(data):x}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
