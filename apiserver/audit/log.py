"""Where audit events go: a file of JSON lines that is turned over when it gets large, as kube-apiserver's log backend.

Events gather in memory and a thread writes them. If it does not keep up, the request that adds one too many writes
them itself: nothing is lost, and memory stays bounded.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

from navarch.world import World

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
DAY = 86400.0
MEGABYTE = 1 << 20


class AuditLog:
    """``path`` "-" is standard output. ``age`` in days, ``size`` in MiB, ``backups`` a number of files; 0: no limit
    (``size`` 0: 100 MiB, as upstream's)."""

    def __init__(self, world: World, path: str, age: int = 0, backups: int = 0, size: int = 0) -> None:
        self.world, self.path = world, path
        self.age, self.backups, self.size = age, backups, (size or 100) * MEGABYTE
        self._waiting: deque[bytes] = deque()
        self._some = asyncio.Event()
        self._lock = threading.Lock()
        self._file: int | None = None
        self._length = 0
        if path != "-":
            self._open()

    def add(self, line: bytes) -> None:
        """One event, without its line's end."""
        self._waiting.append(line)
        self._some.set()
        if len(self._waiting) > MAX_WAITING:
            self._write_waiting()

    @property
    def waiting(self) -> int:
        """Events that nobody has begun to write."""
        return len(self._waiting)

    async def run(self) -> None:
        """Writes until cancelled, then what is left."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._some.wait()
                self._some.clear()
                await loop.run_in_executor(None, self._write_waiting)
        finally:
            self._write_waiting()
            self.close()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write_waiting(self) -> None:
        """Writes all events that wait, in any thread. Trouble with the file is logged, and does not stop the server.

        The thread takes the events itself, under the lock: if run() is cancelled before the thread starts, its job never
        runs, and events that had been handed over to it would be lost.
        """
        with self._lock:
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            try:
                if self.path == "-":
                    for line in lines:
                        sys.stdout.buffer.write(line + b"\n")
                    sys.stdout.buffer.flush()
                    return
                for at in range(0, len(lines), 256):
                    data = b"\n".join([*lines[at : at + 256], b""])
                    if self._length and self._length + len(data) > self.size:
                        self._rotate()
                    if self._file is None:
                        self._open()
                    assert self._file is not None
                    view = memoryview(data)
                    while view:
                        view = view[os.write(self._file, view) :]
                    self._length += len(data)
            except OSError as error:
                log.error("cannot write the audit log %s: %s; %d events are lost", self.path, error, len(lines))

    def _open(self) -> None:
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._length = os.fstat(self._file).st_size

    def _rotate(self) -> None:
        """The file gets the time into its name, and a new one begins; old ones go."""
        self.close()
        path, now = Path(self.path), self.world.now()
        at = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]
        path.rename(path.with_name(f"{path.stem}-{at}{path.suffix}"))
        self._open()
        old_files = sorted(path.parent.glob(f"{path.stem}-????-??-??T*{path.suffix}"), reverse=True)
        for number, old in enumerate(old_files):
            too_many = self.backups and number >= self.backups
            if too_many or (self.age and old.stat().st_mtime < now - self.age * DAY):
                old.unlink(missing_ok=True)
