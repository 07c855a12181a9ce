"""Processes in containers with their streams: exec (crun exec, under us) and attach (through conmon's socket)."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from nodeagent.runtime.conmon import tidy

CHUNK = 32768


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _resolve, future)
    try:
        await future
    finally:
        loop.remove_reader(fd)


async def _write_all(fd: int, data: bytes) -> None:
    """Writes to a non-blocking descriptor."""
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            future: asyncio.Future[None] = loop.create_future()
            loop.add_writer(fd, _resolve, future)
            try:
                await future
            finally:
                loop.remove_writer(fd)


class _Streams:
    """Reads several descriptors at once, as (stream number, data)."""

    def __init__(self, sources: dict[int, int]) -> None:
        self._sources = sources  # descriptor -> stream number

    async def read(self) -> AsyncIterator[tuple[int, bytes]]:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        for fd in self._sources:
            loop.add_reader(fd, ready.set)
        open_ = dict(self._sources)
        try:
            while open_:
                progress = False
                for fd, number in list(open_.items()):
                    try:
                        data = os.read(fd, CHUNK)
                    except BlockingIOError:
                        continue
                    except OSError:  # EIO: the terminal's other end is gone
                        data = b""
                    progress = True
                    if data:
                        yield number, data
                    else:
                        loop.remove_reader(fd)
                        del open_[fd]
                if not progress:
                    ready.clear()
                    await ready.wait()
        finally:
            for fd in open_:
                loop.remove_reader(fd)


class ExecProcess:
    """An exec. ``kill`` ends what it started, if the caller loses interest before it ends; ``exit_code`` makes the
    container's exit code of the OCI runtime's.
    """

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        master: int | None,
        kill: Callable[[], None],
        exit_code: Callable[[int], int],
    ) -> None:
        self._child, self._master, self._kill, self._exit_code = child, master, kill, exit_code
        self._pidfd = os.pidfd_open(child.pid)
        self._code: int | None = None
        self._closed = False
        # With a terminal stderr has only the OCI runtime's own complaints.
        sources = {child.stderr.fileno(): 2} if child.stderr is not None else {}
        if master is not None:
            self._stdin: int | None = master
            sources[master] = 1
        else:
            assert child.stdout is not None
            self._stdin = child.stdin.fileno() if child.stdin else None
            sources[child.stdout.fileno()] = 1
        for fd in (*sources, *([self._stdin] if self._stdin is not None else [])):
            os.set_blocking(fd, False)
        self._streams = _Streams(sources)

    async def write(self, data: bytes) -> None:
        if self._stdin is not None:
            with contextlib.suppress(OSError):  # it stopped reading
                await _write_all(self._stdin, data)

    async def close_stdin(self) -> None:
        if self._master is not None:
            await self.write(b"\x04")  # a terminal has no other way to say that no more comes
        elif self._child.stdin is not None and self._stdin is not None:
            self._stdin = None
            self._child.stdin.close()

    def read(self) -> AsyncIterator[tuple[int, bytes]]:
        return self._streams.read()

    async def resize(self, width: int, height: int) -> None:
        if self._master is not None:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def wait(self) -> int:
        if self._code is None:
            await _readable(self._pidfd)
            code = self._child.wait()
            self._code = 128 - code if code < 0 else self._exit_code(code)
        return self._code

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._code is None and self._child.poll() is None:
            self._kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await self.wait()
            if self._child.poll() is None:
                self._child.kill()
                await self.wait()
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            if stream is not None:
                stream.close()
        if self._master is not None:
            os.close(self._master)
        os.close(self._pidfd)


class AttachProcess:
    """A running container's streams. ``exit_code`` is awaited for ``wait``.

    ``once``: the end of the client's input is the end of the container's (stdinOnce, without a terminal). Otherwise the
    container's input stays open for the next client, and this attachment ends there, with success.
    """

    def __init__(
        self,
        connection: socket.socket,
        control: Path,
        stdin: bool,
        exit_code: Callable[[], Awaitable[int]],
        once: bool = False,
    ) -> None:
        self._socket, self._control, self._stdin, self._exit_code = connection, control, stdin, exit_code
        self._once, self._detached = once, asyncio.Event()
        connection.setblocking(False)

    async def write(self, data: bytes) -> None:
        if self._stdin:
            for start in range(0, len(data), 8192):  # conmon's buffer
                with contextlib.suppress(OSError):
                    await _write_all(self._socket.fileno(), data[start : start + 8192])

    async def close_stdin(self) -> None:
        if self._stdin:
            self._stdin = False
            with contextlib.suppress(OSError):
                # What conmon has sent until now can still be read.
                self._socket.shutdown(socket.SHUT_WR if self._once else socket.SHUT_RDWR)
            if not self._once:
                self._detached.set()

    async def read(self) -> AsyncIterator[tuple[int, bytes]]:
        while True:
            try:
                data = self._socket.recv(CHUNK)
            except BlockingIOError:
                await _readable(self._socket.fileno())
                continue
            except OSError:
                return
            if not data:
                return
            # conmon's own numbers: 2 is stdout, 3 is stderr
            if len(data) > 1 and data[0] in (2, 3):
                yield data[0] - 1, data[1:]

    async def resize(self, width: int, height: int) -> None:
        control(self._control, f"1 {height} {width}\n")

    async def wait(self) -> int:
        ends = [asyncio.ensure_future(self._exit_code()), asyncio.ensure_future(self._detached.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return ends[0].result() if ends[0].done() else 0
        finally:
            for end in ends:
                end.cancel()

    async def close(self) -> None:
        self._socket.close()


def control(fifo: Path, message: str) -> None:
    """Tells a conmon something. OSError (ENXIO) when it is gone."""
    fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, message.encode())
    finally:
        os.close(fd)


def connect(path: Path) -> socket.socket:
    """Connects to conmon's attach socket. Its path may be longer than an address can be: go by way of its directory."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{path.name}")
        return connection
    except OSError:
        connection.close()
        raise
    finally:
        os.close(directory)


def receive_terminal(listener: socket.socket, child: subprocess.Popen[bytes], timeout: float = 30.0) -> int:
    """The terminal's master side that the OCI runtime sends over its console socket. Blocks.

    Raises OSError with the runtime's message when it ends without having sent one.
    """
    pidfd = os.pidfd_open(child.pid)
    try:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(timeout * 1000)]
    finally:
        os.close(pidfd)
    if listener.fileno() not in ready:
        message = child.stderr.read(4096).decode(errors="replace") if ready and child.stderr else "no terminal came"
        raise OSError(tidy(message))
    peer, _ = listener.accept()
    with peer:
        peer.settimeout(timeout)
        _, fds, _, _ = socket.recv_fds(peer, 4096, 1)
    if not fds:
        raise OSError("the runtime sent no terminal")
    os.set_inheritable(fds[0], False)
    return fds[0]
