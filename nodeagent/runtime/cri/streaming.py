"""The client of a CRI runtime's streaming server: exec and attach over SPDY/3.1.

Exec and Attach answer with a URL that serves one client, once. SPDY and not WebSocket, since the WebSocket protocols that
containerd 1.6 speaks have no way to say that standard input has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

from navarch.client.spdy.connection import Connection, Stream
from nodeagent.runtime.runtime import RuntimeError_

PROTOCOL = "v4.channel.k8s.io"
TIMEOUT = 30.0  # seconds to connect and to open the streams
MAX_STATUS = 1 << 20  # bytes
AHEAD = 16  # pieces of output that wait for their reader


class StreamFailed(Exception):
    """The streaming server cannot be reached, or refuses."""

    @property
    def message(self) -> str:
        return str(self)


async def upgraded(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that speaks SPDY from now on. Raises StreamFailed."""
    parts = urlsplit(url)
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    except OSError as error:
        raise StreamFailed(f"the runtime's streaming server does not answer: {error}") from error
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        f"X-Stream-Protocol-Version: {PROTOCOL}\r\nContent-Length: 0\r\n\r\n"
    )
    try:
        writer.write(head.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        status = answer.split(b"\r\n", 1)[0].decode(errors="replace")
        if status.split()[1:2] != ["101"]:
            text = (await reader.read(4096)).decode(errors="replace").strip()
            raise StreamFailed(text or status)
    except BaseException as error:
        writer.close()
        if isinstance(error, OSError | asyncio.IncompleteReadError | asyncio.LimitOverrunError):
            raise StreamFailed(f"the runtime's streaming server broke off: {error}") from error
        raise
    return reader, writer


async def start(
    url: str, *, stdin: bool, tty: bool, once: bool = True, ended: Callable[[], Awaitable[int]] | None = None
) -> RemoteProcess:
    """Opens the streams of an exec or (with ``ended``) of an attach. Raises StreamFailed."""
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await upgraded(url)
            connection = Connection(reader, writer, client=True, keep=True)
            running = asyncio.get_running_loop().create_task(connection.run())
            try:
                kinds = ["error", *(["stdin"] if stdin else []), "stdout", "resize" if tty else "stderr"]
                streams = {kind: await connection.open({"streamtype": kind}) for kind in kinds}
            except BaseException:
                running.cancel()
                writer.close()
                raise
    except (TimeoutError, OSError) as error:
        raise StreamFailed(str(error) or "the runtime's streaming server does not answer in time") from error
    return RemoteProcess(streams, writer, running, once, ended)


class RemoteProcess:
    """A process whose streams come over a connection. ``ended`` tells a container's exit code (attach); an exec's comes as
    a Status. Without ``once`` the end of the client's input ends this attachment, and not the container's input."""

    def __init__(
        self,
        streams: dict[str, Stream],
        writer: asyncio.StreamWriter,
        running: asyncio.Task[None],
        once: bool,
        ended: Callable[[], Awaitable[int]] | None,
    ) -> None:
        self._streams, self._writer, self._running = streams, writer, running
        self._once, self._ended = once, ended
        self._detached = False
        self._status = asyncio.get_running_loop().create_task(self._read_status())

    async def write(self, data: bytes) -> None:
        stream = self._streams.get("stdin")
        if stream is not None and not self._detached:
            with contextlib.suppress(OSError):  # it stopped reading
                await stream.write(data)

    async def close_stdin(self) -> None:
        stream = self._streams.get("stdin")
        if stream is None:
            return
        with contextlib.suppress(OSError):
            if "resize" in self._streams and self._ended is None:
                await stream.write(b"\x04")  # a terminal has no other way to say that no more comes
                return
            await stream.end()
            if not self._once:
                self._detached = True
                self._writer.write_eof()  # the server reads what was sent, and hangs up

    async def read(self) -> AsyncIterator[tuple[int, bytes]]:
        outputs = {1: self._streams["stdout"]} | ({2: s} if (s := self._streams.get("stderr")) else {})
        queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(AHEAD)

        async def pump(number: int, stream: Stream) -> None:
            with contextlib.suppress(OSError):
                while data := await stream.read():
                    await queue.put((number, data))
            await queue.put((number, b""))

        loop = asyncio.get_running_loop()
        pumps = [loop.create_task(pump(number, stream)) for number, stream in outputs.items()]
        remaining = len(pumps)
        try:
            while remaining:
                number, data = await queue.get()
                if data:
                    yield number, data
                else:
                    remaining -= 1
        finally:
            for task in pumps:
                task.cancel()

    async def resize(self, width: int, height: int) -> None:
        stream = self._streams.get("resize")
        if stream is not None:
            with contextlib.suppress(OSError):
                await stream.write(json.dumps({"Width": width, "Height": height}).encode())

    async def wait(self) -> int:
        """The exit code. Raises RuntimeError_ (ExecError) when the command could not be run."""
        text = await asyncio.shield(self._status)
        if self._detached:
            return 0
        if self._ended is None or not text:
            return exit_code(text)
        return await self._ended()

    async def _read_status(self) -> bytes:
        text, stream = b"", self._streams["error"]
        with contextlib.suppress(OSError):
            while len(text) < MAX_STATUS and (data := await stream.read()):
                text += data
        return text

    async def close(self) -> None:
        self._writer.close()
        for task in (self._running, self._status):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def exit_code(status: bytes) -> int:
    """The exit code in a Status. Raises RuntimeError_ (ExecError) if there is none."""
    try:
        tree = json.loads(status)
        if tree["status"] == "Success":
            return 0
        if tree.get("reason") == "NonZeroExitCode":
            return next(int(cause["message"]) for cause in tree["details"]["causes"] if cause["reason"] == "ExitCode")
        message = str(tree.get("message", ""))
    except (ValueError, KeyError, TypeError, StopIteration):
        message = status.decode(errors="replace").strip() or "the connection to the runtime broke off"
    raise RuntimeError_("ExecError", message)
