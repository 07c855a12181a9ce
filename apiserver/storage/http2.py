"""The client's side of HTTP/2, as much as gRPC to a well-behaved server needs: one connection and its streams.

Flow control in both directions, header compression as far as the server uses it (hpack), pings, GOAWAY. Messages are
gRPC's: five bytes of head, then the message, never compressed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast
from urllib.parse import unquote

from hpack import Decoder, HPACKError

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
CANCEL = 8  # error code in RST_STREAM
WINDOW = 2**31 - 1
LAST_STREAM = 2**31 - 1001  # ids run out: then a new connection

CANCELLED, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE = 1, 4, 13, 14  # gRPC status codes


class RpcError(Exception):
    """A call failed. ``code`` is the gRPC status."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return b"%b%c%c%b%b" % (len(payload).to_bytes(3, "big"), kind, flags, stream.to_bytes(4, "big"), payload)


def literal(text: bytes) -> bytes:
    """A string of a header block, not Huffman coded."""
    assert len(text) < 127
    return bytes([len(text)]) + text


def header_block(path: str, authority: str, tls: bool, extra: tuple[tuple[str, str], ...] = ()) -> bytes:
    """The request headers, without use of the dynamic table: so they are the same bytes every time."""
    out = b"\x83" + (b"\x87" if tls else b"\x86")  # :method POST, :scheme
    out += b"\x04" + literal(path.encode()) + b"\x01" + literal(authority.encode())  # :path, :authority
    for name, value in (("content-type", "application/grpc"), ("te", "trailers"), *extra):
        out += b"\x00" + literal(name.encode()) + literal(value.encode())
    return out


class Stream:
    """One call. ``unary`` ones resolve ``future`` with the only message; others collect messages to be received."""

    def __init__(self, connection: Connection, number: int, window: int, unary: bool) -> None:
        self.connection, self.number, self.window = connection, number, window
        self.unsent = b""  # what the server's windows do not allow yet
        self.ending = False  # the last of ``unsent`` ends our side
        self.future: asyncio.Future[bytes] | None = connection.loop.create_future() if unary else None
        self.messages: deque[bytes] = deque()
        self.error: RpcError | None = None
        self.ended = False
        self.received = 0  # bytes since the last window update
        self._parts: list[bytes] = []
        self._size = 0
        self._need = 0  # size of the message being collected, with its head; 0: not known yet
        self._waiting: asyncio.Future[None] | None = None

    def send(self, message: bytes, end: bool = False) -> None:
        """Sends one message."""
        if self.ended:
            raise self.error or RpcError(UNAVAILABLE, "the stream has ended")
        self.connection.send(self, b"\0" + len(message).to_bytes(4, "big") + message, end)

    async def receive(self) -> bytes | None:
        """The next message; None when the server ended the stream. Raises RpcError."""
        while not self.messages:
            if self.ended:
                if self.error is not None:
                    raise self.error
                return None
            self._waiting = self.connection.loop.create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return self.messages.popleft()

    def cancel(self) -> None:
        """Ends the call; nothing more is received."""
        if not self.ended:
            self.connection.forget(self)
            if self.future is not None:
                self.future.cancel()
            self.finish(RpcError(CANCELLED, "cancelled"))

    def data(self, payload: bytes) -> None:
        parts = self._parts
        parts.append(payload)
        self._size += len(payload)
        while self._size >= (self._need or 5):
            joined = parts[0] if len(parts) == 1 else b"".join(parts)
            if not self._need:
                self._need = 5 + int.from_bytes(joined[1:5], "big")
            if self._size < self._need:
                parts[:] = [joined]
                return
            self.messages.append(joined[5 : self._need])
            rest = joined[self._need :]
            parts[:] = [rest] if rest else []
            self._size, self._need = len(rest), 0
            self._wake()

    def finish(self, error: RpcError | None) -> None:
        """The call is over, well if ``error`` is None."""
        self.ended, self.error = True, error
        future = self.future
        if future is not None and not future.done():
            if error is None and not self.messages:
                error = RpcError(INTERNAL, "no message")
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(self.messages[0])
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Connection(asyncio.Protocol):
    """One HTTP/2 connection and its streams."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.usable = True  # takes new calls
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._window = 65535  # what we may send in all
        self._stream_window = 65535  # what we may send on a new stream
        self._max_frame = 16384
        self._blocked: dict[Stream, None] = {}
        self._out: list[bytes] = []
        self._buffer = b""
        self._received = 0
        self._decoder = Decoder()
        self._blocks: dict[bytes, dict[str, str]] = {}  # blocks of indexed fields only, while the table is the same
        self._block: tuple[int, int, bytes] | None = None  # stream, flags and start of a header block being continued
        self._timer: asyncio.TimerHandle | None = None
        self._pinged = False
        self._lost: RpcError | None = None

    # Calls

    def open(self, block: bytes, unary: bool = False) -> Stream:
        """A new stream with these request headers."""
        number = self._next
        self._next += 2
        if number > LAST_STREAM:
            self.usable = False
        stream = self._streams[number] = Stream(self, number, self._stream_window, unary)
        self._write(frame(HEADERS, END_HEADERS, number, block))
        return stream

    def send(self, stream: Stream, data: bytes, end: bool) -> None:
        if not stream.unsent and len(data) <= min(self._window, stream.window, self._max_frame):
            self._window -= len(data)
            stream.window -= len(data)
            self._write(frame(DATA, END_STREAM if end else 0, stream.number, data))
            return
        stream.unsent += data
        stream.ending = end
        self._blocked[stream] = None
        self._pump()

    def _pump(self) -> None:
        """Sends of the waiting data as much as the windows allow."""
        for stream in list(self._blocked):
            while stream.unsent and (size := min(self._window, stream.window, self._max_frame)) > 0:
                part, stream.unsent = stream.unsent[:size], stream.unsent[size:]
                self._window -= len(part)
                stream.window -= len(part)
                last = stream.ending and not stream.unsent
                self._write(frame(DATA, END_STREAM if last else 0, stream.number, part))
            if not stream.unsent:
                del self._blocked[stream]

    def forget(self, stream: Stream) -> None:
        """Our side gives the stream up."""
        if self._streams.pop(stream.number, None) is not None:
            self._blocked.pop(stream, None)
            self._write(frame(RST_STREAM, 0, stream.number, CANCEL.to_bytes(4, "big")))
            self._close_if_done()

    def _write(self, data: bytes) -> None:
        # All that is written in one step of the loop goes out in one system call.
        if not self._out:
            self.loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(b"".join(out))

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def _close_if_done(self) -> None:
        if not self.usable and not self._streams:
            self.close()

    # The connection's life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        settings = b"\0\x02" + (0).to_bytes(4, "big") + b"\0\x04" + WINDOW.to_bytes(4, "big")
        self._write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings))
        self._write(frame(WINDOW_UPDATE, 0, 0, (WINDOW - 65535).to_bytes(4, "big")))
        self._timer = self.loop.call_later(10, self._keep_alive)

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        lost = self._lost or RpcError(UNAVAILABLE, f"the connection was lost{f': {error}' if error else ''}")
        streams, self._streams = self._streams, {}
        self._blocked.clear()
        for stream in streams.values():
            stream.finish(lost)

    def _keep_alive(self) -> None:
        """A ping every 10 s while calls run (etcd refuses more than one in 5 s); no answer until the next: it is dead."""
        if self._pinged:
            self._fail("no answer to a ping")
            return
        if self._streams:
            self._pinged = True
            self._write(frame(PING, 0, 0, b"navarch\0"))
        self._timer = self.loop.call_later(10, self._keep_alive)

    def _fail(self, why: str) -> None:
        self._lost = RpcError(UNAVAILABLE, why)
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    # Receiving

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        at, end = 0, len(buffer)
        while end - at >= 9:
            behind = at + 9 + int.from_bytes(buffer[at : at + 3], "big")
            if behind > end:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            number = int.from_bytes(buffer[at + 5 : at + 9], "big") & 0x7FFFFFFF
            try:
                self._frame(kind, flags, number, buffer[at + 9 : behind])
            except (HPACKError, ValueError, IndexError) as error:
                self._fail(f"etcd broke the protocol: {error}")
                return
            at = behind
        self._buffer = buffer[at:]

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == DATA:
            self._data(flags, number, payload)
        elif kind == HEADERS:
            if flags & PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if flags & PRIORITY:
                payload = payload[5:]
            self._headers(flags, number, payload)
        elif kind == CONTINUATION and self._block is not None:
            number, first, start = self._block
            self._headers(first | flags & END_HEADERS, number, start + payload)
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(payload, "big") & 0x7FFFFFFF
            if number == 0:
                self._window += more
            elif stream := self._streams.get(number):
                stream.window += more
            if self._blocked:
                self._pump()
        elif kind == PING:
            if flags & ACK:
                self._pinged = False
            else:
                self._write(frame(PING, ACK, 0, payload))
        elif kind == SETTINGS and not flags & ACK:
            self._settings(payload)
        elif kind == RST_STREAM:
            code = int.from_bytes(payload, "big")
            self._end(number, RpcError(UNAVAILABLE, f"etcd reset the stream with code {code}"))
        elif kind == GOAWAY:
            self._go_away(int.from_bytes(payload[:4], "big") & 0x7FFFFFFF)

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._received += size
        if self._received > WINDOW // 2:
            self._write(frame(WINDOW_UPDATE, 0, 0, self._received.to_bytes(4, "big")))
            self._received = 0
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.received += size
        if stream.received > WINDOW // 2:
            self._write(frame(WINDOW_UPDATE, 0, number, stream.received.to_bytes(4, "big")))
            stream.received = 0
        if flags & PADDED:
            payload = payload[1 : size - payload[0]]
        stream.data(payload)
        if flags & END_STREAM:
            self._end(number, RpcError(INTERNAL, "no trailers"))

    def _headers(self, flags: int, number: int, block: bytes) -> None:
        if not flags & END_HEADERS:
            self._block = number, flags, block
            return
        self._block = None
        headers = self._decode(block)
        status = headers.get("grpc-status")
        if status is not None:
            text = unquote(headers.get("grpc-message", ""))
            self._end(number, None if status == "0" else RpcError(int(status), text))
        elif headers.get(":status") != "200" or flags & END_STREAM:
            self._end(number, RpcError(UNAVAILABLE, f"unexpected answer: {headers}"))

    def _decode(self, block: bytes) -> dict[str, str]:
        """The header fields. Blocks that only refer to the table are remembered until the table changes."""
        cached = self._blocks.get(block)
        if cached is not None:
            return cached
        headers = {str(name): str(value) for name, value in self._decoder.decode(block)}
        if block and min(block) >= 0x80:
            self._blocks[block] = headers
        else:
            self._blocks.clear()
        return headers

    def _settings(self, payload: bytes) -> None:
        for at in range(0, len(payload) - 5, 6):
            name = int.from_bytes(payload[at : at + 2], "big")
            value = int.from_bytes(payload[at + 2 : at + 6], "big")
            if name == 4:  # initial window of streams; those that are open change with it
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
            elif name == 5:
                self._max_frame = value
        self._write(frame(SETTINGS, ACK, 0))
        self._pump()

    def _go_away(self, last: int) -> None:
        """The server takes no more calls; those above ``last`` were not looked at."""
        self.usable = False
        for number in [number for number in self._streams if number > last]:
            self._end(number, RpcError(UNAVAILABLE, "etcd is going away"))
        self._close_if_done()

    def _end(self, number: int, error: RpcError | None) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            self._blocked.pop(stream, None)
            stream.finish(error)
            self._close_if_done()
