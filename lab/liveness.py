"""Whether a component answers: the supervisor's side of :mod:`navarch.liveness`.

A process that is there may still do nothing: its event loop is blocked, or somebody stopped it. So each component is asked
every few seconds. One that does not answer is named in `navarch status` after a while, and killed and started again after a
longer one.

What counts is time in which the component could have answered. Time in which it waited for a processor does not, nor time in
which the supervisor itself did not run: on a machine that is overloaded, or was suspended, nobody is killed for being late.
"""

from __future__ import annotations

import contextlib
import errno
import re
import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from lab.forking import short_path

PERIOD = 2.5  # seconds between two questions
SILENT = 4.5  # seconds without an answer after which it shows
DEAD = 20.0  # after which the component is killed
BOOT = 60.0  # the same for one that has not answered yet since its start
ANSWER_BYTES = 4096
CONNECT_SECONDS = 0.2  # to a port of this machine
MAX_REASON = 300  # characters
STACK = (" ", "\t", "+", "~", "^", "Traceback", "Thread 0x", "Current thread 0x", "Fatal Python error")
GROUP_BAR = re.compile(r" *\| ")  # before the lines of an exception in a group


@dataclass
class Pulse:
    """One component's answers. ``path`` is its unix socket, or HOST:PORT of this machine; ``health`` is a path of HTTP for
    what is not ours."""

    path: str
    health: str = ""
    answered: bool = False  # ever
    silence: float = 0.0  # seconds for which it could have answered and did not
    silent_since: float = 0.0  # Unix time of the first question without an answer, 0 if all were answered
    complaint: str = ""  # what it says itself to be wrong
    _connection: socket.socket | None = field(default=None, repr=False)
    _waited: float = 0.0  # for a processor, so far

    def ask(self, pid: int, passed: float) -> None:
        """One more question; ``passed`` seconds went by since the last one."""
        waited = processor_wait(pid)
        if self.silent_since:
            self.read()
        if self.silent_since:
            self.silence += max(0.0, passed - max(0.0, waited - self._waited))
        self._waited = waited
        if not self.silent_since:
            self.silent_since = time.time()
            self.silence = 0.0
            self._send()
        elif self._connection is None:  # it did not listen yet
            self._send()

    def _send(self) -> None:
        question = f"GET {self.health} HTTP/1.1\r\nHost: lab\r\n\r\n".encode() if self.health else b"?"
        for _ in range(2):  # a connection that the other side has closed is made anew
            try:
                if self._connection is None:
                    self._connection = self._connected()
                self._connection.send(question)
                return
            except OSError:
                self.close()

    def _connected(self) -> socket.socket:
        if not self.path.startswith("/"):
            host, _, port = self.path.rpartition(":")
            out = socket.create_connection((host, int(port)), CONNECT_SECONDS)  # the kernel answers, not the component
            out.setblocking(False)
            return out
        out = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            out.setblocking(False)
            with short_path(Path(self.path)) as path:
                out.connect(path)
        except OSError:
            out.close()
            raise
        return out

    def read(self) -> None:
        """Takes an answer, if there is one."""
        if self._connection is None:
            return
        try:
            data = self._connection.recv(ANSWER_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        if self.health:
            body = data.partition(b"\r\n\r\n")[2].decode(errors="replace").strip()
            self.complaint = "" if b" 200 " in data.partition(b"\r\n")[0] else body or "not healthy"
        self.answered = True
        self.silent_since = self.silence = 0.0

    def wait(self, seconds: float) -> None:
        """Waits for the answer, at most so long."""
        if self._connection is not None:
            select.select([self._connection], [], [], seconds)
            self.read()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def shows(self) -> bool:
        """Whether the silence is long enough to be told."""
        return self.silence >= SILENT

    @property
    def dead(self) -> bool:
        return self.silence >= (DEAD if self.answered else BOOT)


def processor_wait(pid: int) -> float:
    """Seconds that the process was ready to run and had no processor, since its start; 0 if the kernel does not say."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def stopped(pid: int) -> bool:
    """Whether somebody stopped the process with a signal."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in ("T", "t")
    return False


def last_lines(log: str, count: int = 20, since: int = 0) -> list[str]:
    """The end of a log, from byte ``since`` on."""
    try:
        with open(log, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(since, size - 16384))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError as error:
        return [] if error.errno == errno.ENOENT else [f"(no log: {error.strerror})"]


def tail_of(file: Path, count: int) -> list[str]:
    """The last lines of a log, at most ``count``, with their ends."""
    lines: deque[str] = deque(maxlen=count)
    with file.open(errors="replace") as text:
        lines.extend(text)
    return list(lines)


def reason(lines: list[str]) -> str:
    """The line of a log that best says why its writer ended: the last that is no part of a stack, "" if there is none."""
    for line in reversed(lines):
        if line.startswith("panic: ") or '"level":"fatal"' in line or '"level":"panic"' in line:  # of programs in Go
            return line.removeprefix("panic: ")[:MAX_REASON]
    for line in reversed(lines):
        bar = GROUP_BAR.match(line)
        text = line[bar.end() :] if bar else line
        if text.strip() and not text.startswith(STACK):
            return text.strip()[:MAX_REASON]
    return lines[-1].strip()[:MAX_REASON] if lines else ""
