"""Container logs: files of lines ``TIME STREAM P|F TEXT`` as CRI writes them, read, filtered and followed."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from navarch.api.times import parse_time
from navarch.linux import syscalls
from navarch.world import World

BLOCK = 64 * 1024
MAX_LINE = 1 << 20  # of a log file
_LOG_CHANGES = syscalls.IN_MODIFY | syscalls.IN_CREATE | syscalls.IN_MOVED_TO | syscalls.IN_MOVE_SELF


class BadOption(ValueError):
    """A log option that cannot be; the message is for the client."""


@dataclass(frozen=True)
class Options:
    """PodLogOptions. ``since`` in Unix seconds."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: float | None = None
    limit: int | None = None
    stream: str = ""  # "stdout" or "stderr", empty for both

    @staticmethod
    def parse(query: Mapping[str, str], now: float) -> Options:
        """From the query parameters of a request. Raises BadOption."""

        def flag(name: str) -> bool:
            return query.get(name, "").lower() in ("1", "true", "t")

        def number(name: str, least: int) -> int | None:
            text = query.get(name)
            if not text:
                return None
            if not text.lstrip("-").isdigit() or int(text) < least:
                raise BadOption(f'Invalid value: "{text}": {name} must be greater than or equal to {least}')
            return int(text)

        since = None
        if (seconds := number("sinceSeconds", 1)) is not None:
            since = now - seconds
        if text := query.get("sinceTime"):
            if since is not None:
                raise BadOption("at most one of `sinceTime` or `sinceSeconds` may be specified")
            try:
                since = parse_time(text)
            except ValueError:
                raise BadOption(f'Invalid value: "{text}": sinceTime is not a time') from None
        stream = query.get("stream", "")
        return Options(
            follow=flag("follow"),
            previous=flag("previous"),
            timestamps=flag("timestamps"),
            tail=number("tailLines", 0),
            since=since,
            limit=number("limitBytes", 1),
            stream=stream.lower() if stream in ("Stdout", "Stderr") else "",
        )


class Renderer:
    """Renders for a client the lines of a log file, one after the other.

    A long line of a container is in several lines of the file, of which all but the last are tagged P (partial): its
    time stamp belongs to its beginning alone.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._begins = True  # whether the next line begins a line of the container's

    def __call__(self, line: bytes) -> bytes:
        """Empty if it is filtered out."""
        options = self._options
        stamp, _, rest = line.partition(b" ")
        stream, _, rest = rest.partition(b" ")
        tag, _, text = rest.partition(b" ")
        if tag not in (b"P", b"F") and not tag.startswith((b"P:", b"F:")):
            return b""
        if options.stream and stream.decode(errors="replace") != options.stream:
            return b""
        if options.since is not None and _seconds(stamp) < options.since:
            return b""
        partial = tag.startswith(b"P")
        whole = text.removesuffix(b"\n") + (b"" if partial else b"\n")
        if options.timestamps and self._begins:
            whole = stamp.replace(b"+00:00", b"Z") + b" " + whole
        self._begins = not partial
        return whole


def _seconds(stamp: bytes) -> float:
    text = stamp.decode(errors="replace")
    whole, dot, rest = text.partition(".")
    if dot:  # nanoseconds: more digits than datetime reads
        digits = len(rest) - len(rest.lstrip("0123456789"))
        text = f"{whole}.{rest[: min(digits, 6)]}{rest[digits:]}"
    try:
        return parse_time(text)
    except ValueError:
        return 0.0


def open_log(path: str) -> int:
    """Opens ``.../POD/CONTAINER/N.log``. Raises OSError if one of these is a symlink: a pod that has the folder of logs
    mounted could make us read any file of the node for it."""
    file = Path(path)
    root = file.parents[2]
    return syscalls.open_plain(root, str(file.relative_to(root)), os.O_RDONLY | os.O_NONBLOCK)


def tail_offset(fd: int, lines: int) -> int:
    """Where the last ``lines`` lines of a file begin."""
    end = os.fstat(fd).st_size
    if lines <= 0:
        return end
    if end == 0:
        return 0
    position = end
    missing = lines + 1 if os.pread(fd, 1, end - 1) == b"\n" else lines  # the newline that ends the last line
    while position > 0:
        start = max(0, position - BLOCK)
        block = os.pread(fd, position - start, start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            missing -= 1
            if missing == 0:
                return start + at + 1
        position = start
    return 0


def tail(path: str, lines: int, size: int) -> str:
    """The last words in a log: at most so many lines and bytes of text. It blocks."""
    try:
        fd = open_log(path)
    except OSError:
        return ""
    try:
        offset = tail_offset(fd, lines)
        data = os.pread(fd, 1 << 20, offset)
    finally:
        os.close(fd)
    text = b"".join(map(Renderer(Options()), data.splitlines(keepends=True)))
    return text[-size:].decode(errors="replace")


class Watcher:
    """Wakes up when a file in one folder is written, made or moved (inotify)."""

    def __init__(self, folder: str) -> None:
        self._fd = syscalls.inotify(folder, _LOG_CHANGES)
        self.changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 65536)
        self.changed.set()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)


async def read(
    world: World, path: str, options: Options, ended: asyncio.Event | None = None
) -> AsyncIterator[bytes]:
    """The log at ``path`` in pieces. With follow: until ``ended`` is set and everything is read.

    A log that is rotated while it is followed goes on in the new file. The file is read off the event loop.
    """
    remaining, render = options.limit, Renderer(options)
    async for lines in _lines(world, path, options, ended):
        out = b"".join(map(render, lines))
        if remaining is not None:
            out = out[:remaining]
            remaining -= len(out)
        if out:
            yield out
        if remaining == 0:
            return


async def _lines(
    world: World, path: str, options: Options, ended: asyncio.Event | None
) -> AsyncIterator[list[bytes]]:
    watcher = Watcher(os.path.dirname(path)) if options.follow and ended is not None else None
    waiting: list[asyncio.Task[bool]] = []
    fd = -1
    try:
        fd = await world.blocking(_open_at, path, options.tail)
        rest = b""
        while True:
            over = ended is None or ended.is_set()  # before reading: what was written until then is read below
            if watcher is not None:
                watcher.changed.clear()
            while block := await world.blocking(os.read, fd, BLOCK):
                *lines, rest = (rest + block).split(b"\n")
                yield [line + b"\n" for line in lines]
                rest = rest if len(rest) < MAX_LINE else b""  # which no container runtime has written
            if watcher is None or ended is None:
                break
            if (fresh := await world.blocking(_replaced, path, fd)) is not None:
                os.close(fd)
                fd, rest = fresh, b""
                continue
            if over:
                break
            waiting = [asyncio.ensure_future(watcher.changed.wait()), asyncio.ensure_future(ended.wait())]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
        if rest:
            yield [rest]
    finally:
        for task in waiting:
            task.cancel()
        if fd >= 0:
            os.close(fd)
        if watcher is not None:
            watcher.close()


def _open_at(path: str, tail: int | None) -> int:
    """The log, at the beginning of its last ``tail`` lines."""
    fd = open_log(path)
    if tail is not None:
        os.lseek(fd, tail_offset(fd, tail), os.SEEK_SET)
    return fd


def _replaced(path: str, fd: int) -> int | None:
    """A new file under the log's name, opened, if there is one."""
    try:
        if os.stat(path).st_ino == os.fstat(fd).st_ino:
            return None
        return open_log(path)
    except FileNotFoundError:
        return None
