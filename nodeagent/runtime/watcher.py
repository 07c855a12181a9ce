"""Notices ends of processes, without polling: a pidfd in the event loop for each conmon."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from navarch.linux import syscalls


class Watcher:
    """Calls back, once, when a process has ended (at once if it has already)."""

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}

    def watch(self, key: str, pid: int, started: int, ended: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        fd = syscalls.open_process(pid, started)
        if fd is None:
            loop.call_soon(ended)
            return

        def readable() -> None:
            self.forget(key)
            ended()

        self._fds[key] = fd
        loop.add_reader(fd, readable)

    def forget(self, key: str) -> None:
        fd = self._fds.pop(key, None)
        if fd is not None:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)

    def close(self) -> None:
        for key in list(self._fds):
            self.forget(key)
