"""Bytes and inodes that directory trees take on disk: trees that strangers fill while they are measured.

A tree is walked by open directories, never through a symlink and never onto another file system. :class:`Meter` bounds
the cost: a tree that took a second to walk is not walked again for half a minute, so however much containers write,
measuring takes at most a thirtieth of a core.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from navarch.linux import syscalls

MAX_PATH = 2000  # bytes of a path below an open directory; what lies deeper is opened from there (PATH_MAX is 4096)
MAX_ANCHORS = 200  # of those: what lies deeper still is not counted
PACE, PAUSE = 256, 0.001  # entries between two pauses of a thread, and their length in seconds
REST = 30.0  # a walk's duration times this passes before the next one of the same tree
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV


class DiskUse(NamedTuple):
    """Bytes of blocks, and inodes."""

    bytes: int = 0
    inodes: int = 0

    @staticmethod
    def total(parts: Iterable[DiskUse]) -> DiskUse:
        listed = list(parts)
        return DiskUse(sum(p.bytes for p in listed), sum(p.inodes for p in listed))


def measure(path: str, stop: Callable[[], bool] = lambda: False) -> DiskUse:
    """The usage of a tree; nothing if it is not there. It blocks, until ``stop`` says so (then it has part of it)."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return DiskUse()
    walk = _Walk(fd, stop)
    try:
        walk.below(fd, 0)
    finally:
        os.close(fd)
    return DiskUse(walk.blocks * 512, walk.inodes)


def measure_tmpfs(path: str) -> DiskUse:
    """The usage of the file system at a mount point, without a walk; nothing if none is mounted there."""
    if not os.path.ismount(path):
        return DiskUse()
    try:
        stat = os.statvfs(path)
    except OSError:
        return DiskUse()
    return DiskUse((stat.f_blocks - stat.f_bfree) * stat.f_frsize, stat.f_files - stat.f_ffree)


class _Walk:
    def __init__(self, fd: int, stop: Callable[[], bool]) -> None:
        top = os.fstat(fd)
        self.stop, self.device = stop, top.st_dev
        self.blocks, self.inodes = top.st_blocks, 1
        self.links: set[int] = set()
        self.pause = threading.Event()

    def below(self, anchor: int, depth: int) -> None:
        """Counts what is below an open directory."""
        waiting = ["."]
        while waiting and not self.stop():
            relative = waiting.pop()
            try:
                fd = syscalls.openat2(anchor, relative, _FLAGS, _RESOLVE)
            except OSError:
                continue  # removed meanwhile, replaced by a link, or another file system
            try:
                if len(relative) < MAX_PATH:
                    waiting.extend(f"{relative}/{name}" for name in self._entries(fd))
                elif depth < MAX_ANCHORS:
                    self.below(fd, depth + 1)
            finally:
                os.close(fd)

    def _entries(self, fd: int) -> list[str]:
        """Counts the entries of one directory; the names of those that are directories."""
        directories = []
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if self._count(entry):
                        directories.append(entry.name)
        except OSError:
            pass
        return directories

    def _count(self, entry: os.DirEntry[str]) -> bool:
        try:
            stat = entry.stat(follow_symlinks=False)
        except OSError:
            return False
        is_directory = entry.is_dir(follow_symlinks=False)
        if stat.st_dev != self.device or (not is_directory and stat.st_nlink > 1 and stat.st_ino in self.links):
            return False
        if not is_directory and stat.st_nlink > 1:
            self.links.add(stat.st_ino)
        self.blocks += stat.st_blocks
        self.inodes += 1
        if self.inodes % PACE == 0 and threading.current_thread() is not threading.main_thread():
            self.pause.wait(PAUSE)
        return is_directory


class Meter:
    """Remembers what trees took, and walks them again when that is old. ``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float], walk: Callable[[str, Callable[[], bool]], DiskUse] = measure) -> None:
        self._clock, self._walk = clock, walk
        self._last: dict[str, tuple[DiskUse, float, float]] = {}  # path -> usage, time of the walk, its duration
        self._lock = threading.Lock()

    def of(self, paths: Iterable[str], max_age: float, stop: Callable[[], bool] = lambda: False) -> dict[str, DiskUse]:
        """The usage of each tree, at most ``max_age`` seconds old unless walking it costs too much. It blocks."""
        with self._lock:  # one walk at a time, whoever asks
            return {path: self._one(path, max_age, stop) for path in paths}

    def _one(self, path: str, max_age: float, stop: Callable[[], bool]) -> DiskUse:
        began = self._clock()
        if (last := self._last.get(path)) is not None and began - last[1] < max(max_age, last[2] * REST):
            return last[0]
        if stop():
            return last[0] if last else DiskUse()
        usage = self._walk(path, stop)
        self._last[path] = usage, began, self._clock() - began
        return usage

    def keep(self, paths: Iterable[str]) -> None:
        """Forgets all other trees."""
        remaining = set(paths)
        with self._lock:
            self._last = {path: last for path, last in self._last.items() if path in remaining}
