"""Requests that turn their connection into something else (SPDY/3.1): one connection each, handed to the caller."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from navarch.client.wire import TransportError, error_of

HEAD_LIMIT = 64 * 1024
BUFFER = 256 * 1024
CONNECT_TIMEOUT = 30.0
ERROR_LIMIT = 1 << 20


class Upgraded(NamedTuple):
    """A connection after ``101 Switching Protocols``. Header names are lower case."""

    headers: Mapping[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@contextlib.asynccontextmanager
async def upgraded(
    host: str, port: int, context: ssl.SSLContext | None, server_name: str, request: bytes
) -> AsyncIterator[Upgraded]:
    """Sends the request and gives the connection; leaving the context closes it.

    Raises StatusError if the server answers anything but 101, TransportError if it does not answer.
    """
    writer: asyncio.StreamWriter | None = None
    try:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                name = (server_name or host) if context else None
                reader, writer = await asyncio.open_connection(
                    host, port, ssl=context, server_hostname=name, limit=BUFFER
                )
                keep_alive(writer.transport)
                writer.write(request)
                status, headers = _head(await reader.readuntil(b"\r\n\r\n"))
                if status != 101:
                    raise error_of(status, await _body(reader, headers))
        except TimeoutError:
            raise TransportError(f"connect to {host}:{port}: timed out") from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise TransportError(f"connect to {host}:{port}: {error or type(error).__name__}") from error
        yield Upgraded(headers, reader, writer)
    finally:
        if writer is not None:
            await hang_up(writer)


async def hang_up(writer: asyncio.StreamWriter, patience: float = 30.0) -> None:
    """Closes a connection once the peer has taken what was sent, or, if that takes longer than ``patience``, anyhow."""
    writer.close()
    try:
        async with asyncio.timeout(patience):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        pass
    finally:
        writer.transport.abort()  # does nothing to a connection that is closed


def keep_alive(transport: asyncio.BaseTransport | None) -> None:
    """Has the kernel find out that the peer is gone without a word: about a minute after it last answered.

    Pings of the protocol's own are no good for that: a peer whose reading is held up by us cannot see them.
    """
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None:
        return
    with contextlib.suppress(OSError, AttributeError):  # not TCP
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies until the end of what is read, or until nobody takes it any more."""
    with contextlib.suppress(OSError):
        while data := await reader.read(BUFFER):
            writer.write(data)
            await writer.drain()


def _head(raw: bytes) -> tuple[int, dict[str, str]]:
    lines = raw.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1."):
        raise ValueError(f"not an HTTP answer: {lines[0]!r}")
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return int(parts[1]), headers


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    """The body of a refusal, as far as it comes."""
    length = headers.get("content-length", "")
    if length.isdigit():
        with contextlib.suppress(asyncio.IncompleteReadError):
            return await reader.readexactly(min(int(length), ERROR_LIMIT))
    return b"" if headers.get("transfer-encoding") else await reader.read(ERROR_LIMIT)
