"""The streams of one SPDY connection, over an asyncio reader and writer.

``run`` reads until the other side is gone; run it as a task beside the work. Either side may open streams; each stream
has two directions that end on their own. A stream whose reader is behind stops ``run``, and so the other side, until it
has caught up: what is not wanted any more must be discarded.
"""

from __future__ import annotations

import asyncio
import contextlib

from navarch.client.spdy import frames
from navarch.client.spdy.frames import Data, Decoder, Encoder, GoAway, Headers, Ping, Reset, SynReply, SynStream

READ = 64 * 1024
CHUNK = 32 * 1024  # the most in one data frame that we send, so that streams take turns
AHEAD = 256 * 1024  # bytes that may wait for the reader of one stream
AHEAD_IN_ALL = 8 * 1024 * 1024  # and for those of all streams together
STREAMS = 4096  # that the other side may have open


class StreamReset(ConnectionError):
    """The other side gave the stream up, or the connection is gone."""


class Stream:
    """One stream. ``headers`` are those it was opened with, names in lower case."""

    def __init__(self, connection: Connection, number: int, headers: dict[str, str]) -> None:
        self.number, self.headers = number, headers
        self._connection = connection
        self._waiting: list[bytes] = []
        self._size = 0
        self._ended = self._discarding = self.broken = False  # what comes from the other side
        self._closed = False  # our direction
        self._news = asyncio.Event()
        self.replied = asyncio.Event()

    async def read(self) -> bytes:
        """Reads what has come, b"" once no more will. Raises StreamReset when it broke off before its end."""
        while not self._waiting and not self._ended:
            self._news.clear()
            await self._news.wait()
        if self._waiting:
            data = b"".join(self._waiting)
            self._drop()
            return data
        if self.broken:
            raise StreamReset("the stream broke off")
        return b""

    async def write(self, data: bytes) -> None:
        """Sends all of it; waits while the other side is slow. Raises StreamReset."""
        view = memoryview(data)
        for start in range(0, len(view), CHUNK):
            if self._closed or self.broken:
                raise StreamReset("the stream is closed")
            await self._connection.send(frames.data(self.number, bytes(view[start : start + CHUNK])))

    async def end(self) -> None:
        """Says that no more comes from us. Not an error if that is so already."""
        if not self._closed and not self.broken:
            self._closed = True
            await self._connection.send(frames.data(self.number, b"", True))
            self._connection.forget_finished(self)

    async def reset(self) -> None:
        """Gives the stream up in both directions."""
        if not self.broken and not (self._closed and self._ended):
            self.break_off()
            await self._connection.send(frames.reset(self.number))
        self._connection.forget(self)

    def discard(self) -> None:
        """Throws away what comes from now on."""
        self._discarding = True
        self._drop()

    def _drop(self) -> None:
        self._connection.unread -= self._size
        self._waiting, self._size = [], 0
        self._connection.room.set()

    @property
    def finished(self) -> bool:
        return self.broken or (self._closed and self._ended)

    def break_off(self) -> None:
        if not self._ended:
            self.broken = self._ended = True
        self._closed = True
        self._connection.room.set()
        self._news.set()
        self.replied.set()

    async def receive(self, data: bytes, fin: bool) -> None:
        """From the connection; waits until there is room for more."""
        connection = self._connection
        if data and not self._discarding and not self._ended:
            self._waiting.append(data)
            self._size += len(data)
            connection.unread += len(data)
        if fin:
            self._ended = True
        self._news.set()
        while self._waiting and not self.broken and (self._size > AHEAD or connection.unread > AHEAD_IN_ALL):
            connection.room.clear()
            await connection.room.wait()


class Connection:
    """``client``: we opened the connection, and give our streams odd numbers. ``keep``: what came before a reset can still
    be read (servers in Go reset their streams as soon as they have written everything)."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool, keep: bool = False
    ) -> None:
        self._keep = keep
        self._reader, self._writer = reader, writer
        self._odd = client
        self._next = 1 if client else 2
        self._last = 0  # the highest stream that the other side opened
        self._encoder, self._decoder = Encoder(), Decoder()
        self._streams: dict[int, Stream] = {}
        self._opened: asyncio.Queue[Stream | None] = asyncio.Queue()
        self._going = self.ended = False
        self.unread = 0  # bytes that wait for readers of our streams
        self.room = asyncio.Event()  # set whenever they become fewer

    async def run(self) -> None:
        """Reads until the connection ends; then every stream has ended, and ``accept`` gives None."""
        try:
            while data := await self._reader.read(READ):
                for frame in self._decoder.feed(data):
                    await self._take(frame)
        except (OSError, frames.ProtocolError):
            pass  # the streams tell
        finally:
            self.ended = True
            for stream in list(self._streams.values()):
                stream.break_off()
            self._streams.clear()
            self._opened.put_nowait(None)

    async def accept(self) -> Stream | None:
        """The next stream that the other side opens, None once the connection has ended. Answer it with ``reply``."""
        if self.ended and self._opened.empty():
            return None
        return await self._opened.get()

    async def reply(self, stream: Stream, headers: Headers | None = None) -> None:
        """Accepts a stream."""
        await self.send(self._encoder.syn_reply(stream.number, headers or {}))

    async def open(self, headers: Headers) -> Stream:
        """Opens a stream and waits until it is accepted. Raises StreamReset if it is refused."""
        if self.ended:
            raise StreamReset("the connection has ended")
        number, self._next = self._next, self._next + 2
        stream = self._streams[number] = Stream(self, number, {k.lower(): v for k, v in headers.items()})
        await self.send(self._encoder.syn_stream(number, headers))
        await stream.replied.wait()
        if stream.broken:
            raise StreamReset("the stream was refused")
        return stream

    async def send(self, data: bytes) -> None:
        # Written at once, in order; the wait is for room in the socket.
        if self._writer.is_closing():
            raise StreamReset("the connection has ended")
        self._writer.write(data)
        await self._writer.drain()

    async def go_away(self) -> None:
        """Tells the other side to open no more streams."""
        if not self._going:
            self._going = True
            with contextlib.suppress(OSError):
                await self.send(frames.goaway(self._last))

    def forget(self, stream: Stream) -> None:
        """Forgets a stream that nobody reads any more; what still comes for it is dropped."""
        stream.discard()
        self._streams.pop(stream.number, None)

    def forget_finished(self, stream: Stream) -> None:
        if stream.finished:  # though its reader may still have something to read
            self._streams.pop(stream.number, None)

    async def _take(self, frame: frames.Frame) -> None:
        match frame:
            case Data(number, data, fin):
                stream = self._streams.get(number)
                # None: one that we gave up. The other side learns of that soon.
                if stream is not None:
                    await stream.receive(data, fin)
                    if fin:
                        self.forget_finished(stream)
            case SynStream(number, headers, fin):
                if number <= self._last or (number % 2 == 1) == self._odd or number == 0:
                    raise frames.ProtocolError(f"stream {number} comes out of turn")
                self._last = number
                if self._going or len(self._streams) >= STREAMS:
                    await self.send(frames.reset(number, frames.REFUSED_STREAM))
                    return
                stream = self._streams[number] = Stream(self, number, headers)
                if fin:
                    await stream.receive(b"", True)
                self._opened.put_nowait(stream)
            case SynReply(number, _, fin):
                stream = self._streams.get(number)
                if stream is not None:
                    stream.replied.set()
                    if fin:
                        await stream.receive(b"", True)
            case Reset(number, _):
                stream = self._streams.pop(number, None)
                if stream is not None:
                    stream.break_off()
                    if not self._keep:
                        stream.discard()
            case Ping(number):
                if (number % 2 == 1) != self._odd:
                    await self.send(frames.ping(number))
            case GoAway(_):
                self._opened.put_nowait(None)
            case _:
                pass
