"""Removing directory trees that strangers filled: as deep and as full as they please, with links and mounts in them.

Nothing is done by path below the top: every directory is opened from its parent, never through a symlink and never onto
another file system, and no more than a few descriptors are open at a time however deep the tree is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from navarch.linux import syscalls

MAX_OPEN = 32  # directories open at a time
# A thread pauses so often, for so many seconds: it takes Python's lock back faster than an event loop can have it.
PACE, PAUSE = 32, 0.001
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_RESOLVE = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV


def mounts_below(folder: str | Path) -> list[str]:
    """Mount points inside a folder, innermost first."""
    prefix = f"{folder}/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        places = [_unescaped(line.split()[4]) for line in file]
    return sorted((place for place in places if place.startswith(prefix)), key=len, reverse=True)


def _unescaped(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def unmount_below(folder: str | Path) -> None:
    """Takes away what is mounted in a folder (a privileged pod may have left it), so that nobody's files are removed
    through it. Raises OSError."""
    for place in mounts_below(folder):
        syscalls.umount(place)


def remove(path: str | Path, stop: Callable[[], bool] = lambda: False) -> None:
    """Removes a file or a directory with all that is in it. Absent is fine. Raises OSError for what does not go; all
    that can go has gone then. It blocks for as long as that takes, or until ``stop`` says so (InterruptedError)."""
    upper, _, name = str(path).rpartition("/")
    try:
        parent = os.open(upper or ("/" if str(path).startswith("/") else "."), _FLAGS | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_at(parent, name, stop)
    finally:
        os.close(parent)


def remove_at(parent: int, name: str, stop: Callable[[], bool] = lambda: False) -> None:
    """:func:`remove` for a name in an open directory."""
    if name in ("", ".", "..") or "/" in name:
        raise ValueError(f"not the name of a file: {name!r}")
    _Removal(parent, stop).run(name)


class _Removal:
    """Directories nested deeper than MAX_OPEN are first moved up, to the parent of the whole tree's top, and have their
    turn there. (Going back by ``..`` instead would trust that nobody moves what we are in.)"""

    def __init__(self, parent: int, stop: Callable[[], bool]) -> None:
        self.parent, self.stop = parent, stop
        self.count, self.pause = 0, threading.Event()
        self.waiting: list[str] = []
        self.moved = 0
        self.failure: OSError | None = None

    def run(self, name: str) -> None:
        self.waiting.append(name)
        while self.waiting:
            self._entry(self.parent, self.waiting.pop(), 0)
        if self.failure is not None:
            raise self.failure

    def _entry(self, parent: int, name: str, depth: int) -> None:
        self.count += 1
        if self.count % PACE == 0 and threading.current_thread() is not threading.main_thread():
            self.pause.wait(PAUSE)
        if self.stop():
            raise InterruptedError(errno.EINTR, "told to stop")
        try:
            os.unlink(name, dir_fd=parent)
            return
        except FileNotFoundError:
            return
        except IsADirectoryError:
            pass
        except OSError as error:
            if error.errno != errno.EPERM:  # which unlink of a directory gives on some file systems
                self._failed(error)
                return
        try:
            fd = syscalls.openat2(parent, name, _FLAGS, _RESOLVE)
        except OSError as error:
            self._failed(error)
            return
        try:
            self._directory(fd, depth)
        finally:
            os.close(fd)
        try:
            os.rmdir(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._failed(error)

    def _directory(self, fd: int, depth: int) -> None:
        with contextlib.suppress(OSError):
            os.fchmod(fd, 0o700)
        try:
            with os.scandir(fd) as entries:
                names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            self._failed(error)
            return
        for name, is_directory in names:
            if not is_directory or depth < MAX_OPEN:
                self._entry(fd, name, depth + 1)
            else:
                self._move_up(fd, name)

    def _move_up(self, fd: int, name: str) -> None:
        while True:
            aside = f".removing.{os.getpid()}.{fd}.{self.moved}"
            self.moved += 1
            try:
                os.rename(name, aside, src_dir_fd=fd, dst_dir_fd=self.parent)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    continue
                self._failed(error)
                return
            self.waiting.append(aside)
            return

    def _failed(self, error: OSError) -> None:
        self.failure = self.failure or error
