"""The frames of SPDY/3.1, both ways, without I/O.

Header blocks are compressed with one zlib stream a direction, primed with a dictionary that the protocol fixes. Data
frames are handed on piece by piece as they arrive, so a frame of 16 MiB needs no buffer of that size.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN = 1
VERSION = 3
PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL, INTERNAL_ERROR = 1, 2, 3, 5, 6

CONTROL_LIMIT = 64 * 1024  # bytes of a control frame; Kubernetes' are below 1 KiB
HEADERS_LIMIT = 256 * 1024  # bytes of its headers once unpacked
MAX_DATA = (1 << 24) - 1

# The dictionary: words with their lengths, as they stand in a header block, then what values often hold.
_NAMES = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_WORDS = [*_NAMES.split(), "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack(">I", len(w)) + w.encode() for w in _WORDS) + _TAIL.encode()

Headers = Mapping[str, str]


class ProtocolError(Exception):
    """The other side does not speak SPDY/3.1."""


class SynStream(NamedTuple):
    stream: int
    headers: dict[str, str]
    fin: bool


class SynReply(NamedTuple):
    stream: int
    headers: dict[str, str]
    fin: bool


class MoreHeaders(NamedTuple):
    stream: int
    headers: dict[str, str]
    fin: bool


class Reset(NamedTuple):
    stream: int
    status: int


class Data(NamedTuple):
    """A piece of a data frame. ``fin`` with the last piece of a frame that ends its direction of the stream."""

    stream: int
    data: bytes
    fin: bool


class Ping(NamedTuple):
    number: int


class GoAway(NamedTuple):
    last: int


class Ignored(NamedTuple):
    """SETTINGS and WINDOW_UPDATE."""

    type: int


Frame = SynStream | SynReply | MoreHeaders | Reset | Data | Ping | GoAway | Ignored


def _control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HHI", 0x8000 | VERSION, kind, flags << 24 | len(payload)) + payload


class Encoder:
    """Frames to bytes. One a connection: what it compresses depends on what it compressed before."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zdict=DICTIONARY)

    def _block(self, headers: Headers) -> bytes:
        parts = [struct.pack(">I", len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                parts.append(struct.pack(">I", len(text)) + text)
        return self._zlib.compress(b"".join(parts)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)

    def syn_stream(self, stream: int, headers: Headers, fin: bool = False) -> bytes:
        payload = struct.pack(">IIBB", stream, 0, 0, 0) + self._block(headers)
        return _control(SYN_STREAM, payload, FIN if fin else 0)

    def syn_reply(self, stream: int, headers: Headers, fin: bool = False) -> bytes:
        return _control(SYN_REPLY, struct.pack(">I", stream) + self._block(headers), FIN if fin else 0)

    def headers(self, stream: int, headers: Headers, fin: bool = False) -> bytes:
        return _control(HEADERS, struct.pack(">I", stream) + self._block(headers), FIN if fin else 0)


def reset(stream: int, status: int = CANCEL) -> bytes:
    return _control(RST_STREAM, struct.pack(">II", stream, status))


def ping(number: int) -> bytes:
    return _control(PING, struct.pack(">I", number))


def goaway(last: int, status: int = 0) -> bytes:
    return _control(GOAWAY, struct.pack(">II", last, status))


def data(stream: int, content: bytes, fin: bool = False) -> bytes:
    """One data frame; ``content`` at most MAX_DATA bytes."""
    return struct.pack(">II", stream, (FIN if fin else 0) << 24 | len(content)) + content


class Decoder:
    """Bytes to frames, in whatever pieces they come. Raises ProtocolError; it is of no use after that."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)
        self._buffer = bytearray()
        self._stream = self._remaining = 0  # of the data frame that is arriving
        self._fin = False

    def feed(self, received: bytes) -> list[Frame]:
        buffer, frames = self._buffer, list[Frame]()
        buffer += received
        at, end = 0, len(buffer)
        while at < end:
            if self._remaining:
                piece = bytes(buffer[at : at + self._remaining])
                at += len(piece)
                self._remaining -= len(piece)
                frames.append(Data(self._stream, piece, self._fin and not self._remaining))
                continue
            if end - at < 8:
                break
            first, second = struct.unpack_from(">II", buffer, at)
            flags, length = second >> 24, second & 0xFFFFFF
            if first & 0x80000000:
                if first >> 16 & 0x7FFF != VERSION:
                    raise ProtocolError(f"version {first >> 16 & 0x7FFF} of SPDY")
                if length > CONTROL_LIMIT:
                    raise ProtocolError(f"a control frame of {length} bytes")
                if end - at < 8 + length:
                    break
                frames.append(self._control(first & 0xFFFF, flags, bytes(buffer[at + 8 : at + 8 + length])))
                at += 8 + length
                continue
            at += 8
            self._stream, self._remaining, self._fin = first, length, bool(flags & FIN)
            if not length:
                frames.append(Data(first, b"", self._fin))
        del buffer[:at]
        return frames

    def _control(self, kind: int, flags: int, payload: bytes) -> Frame:
        fin = bool(flags & FIN)
        try:
            match kind:
                case 1:
                    return SynStream(_number(payload), self._headers(payload[10:]), fin)
                case 2:
                    return SynReply(_number(payload), self._headers(payload[4:]), fin)
                case 3:
                    return Reset(_number(payload), _number(payload, 4))
                case 6:
                    return Ping(struct.unpack_from(">I", payload)[0])
                case 7:
                    return GoAway(_number(payload))
                case 8:
                    return MoreHeaders(_number(payload), self._headers(payload[4:]), fin)
                case 4 | 9:
                    return Ignored(kind)
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise ProtocolError(f"frame of type {kind}: {error}") from None
        raise ProtocolError(f"frame of unknown type {kind}")

    def _headers(self, block: bytes) -> dict[str, str]:
        plain = self._zlib.decompress(block, HEADERS_LIMIT)
        if self._zlib.unconsumed_tail:
            raise ProtocolError("the headers are too large")
        (count,) = struct.unpack_from(">I", plain)
        at, out = 4, dict[str, str]()
        for _ in range(count):
            texts = []
            for _ in range(2):
                (length,) = struct.unpack_from(">I", plain, at)
                at += 4
                if at + length > len(plain):
                    raise ProtocolError("a header is longer than its block")
                texts.append(plain[at : at + length].decode())
                at += length
            out[texts[0].lower()] = texts[1]
        return out


def _number(payload: bytes, at: int = 0) -> int:
    return int(struct.unpack_from(">I", payload, at)[0]) & 0x7FFFFFFF
