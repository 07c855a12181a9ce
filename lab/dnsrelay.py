"""Questions that the cluster's DNS does not answer, passed on to the machine's resolvers.

Nodes cannot ask a resolver that listens on the machine's loopback, and most machines have one there. So they ask here, over
TCP (proxy/dns.py does), and we ask on over UDP, then over TCP for what does not fit. /etc/resolv.conf is read again when it
has changed: a laptop comes to another network.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import struct
from pathlib import Path
from typing import cast

from navarch.world import World

log = logging.getLogger(__name__)
PATIENCE = 2.0  # seconds for one answer of one resolver
MAX_RESOLVERS = 3
IDLE_SECONDS = 30.0
TRUNCATED = 0x02  # of the third byte of a reply
SERVER_FAILURE = 2


def nameservers(text: str) -> list[str]:
    """The addresses in a resolv.conf, as many as resolvers take."""
    out = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            with contextlib.suppress(ValueError):
                out.append(str(ipaddress.ip_address(words[1].partition("%")[0])))
    return out[:MAX_RESOLVERS]


def failure(question: bytes) -> bytes:
    """SERVFAIL for a question: its header, and the question itself."""
    flags = 0x8080 | struct.unpack_from(">H", question, 2)[0] & 0x7900 | SERVER_FAILURE
    return (
        question[:2] + struct.pack(">HHHHH", flags, struct.unpack_from(">H", question, 4)[0], 0, 0, 0) + question[12:]
    )


class _Reply(asyncio.DatagramProtocol):
    def __init__(self, question: bytes) -> None:
        self.question, self.data = question, asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.DatagramTransport, transport).sendto(self.question)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data[:2] == self.question[:2] and len(data) >= 12 and not self.data.done():
            self.data.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.data.done():
            self.data.set_exception(exc)


class DNSRelay:
    def __init__(self, world: World, resolv_conf: Path, port: int = 53) -> None:
        self._world, self._path, self._port = world, resolv_conf, port
        self._cached: tuple[float, list[str]] = (-1.0, [])

    async def serve(self, host: str, port: int) -> None:
        """Serves until cancelled. Raises OSError if the port cannot be had."""
        server = await asyncio.start_server(self._connection, host, port)
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    (length,) = struct.unpack(">H", await reader.readexactly(2))
                    question = await reader.readexactly(length)
                if len(question) < 12:
                    return
                reply = await self.answer(question)
                writer.write(struct.pack(">H", len(reply)) + reply)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def answer(self, question: bytes) -> bytes:
        """The first answer of the machine's resolvers, asked in turn; SERVFAIL if none comes."""
        for server in self._resolvers():
            try:
                async with asyncio.timeout(PATIENCE):
                    reply = await self._over_udp(server, question)
                    return await self._over_tcp(server, question) if reply[2] & TRUNCATED else reply
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                log.info("resolver %s: %s", server, error or "no answer")
        return failure(question)

    def _resolvers(self) -> list[str]:
        try:
            changed = self._path.stat().st_mtime
            if changed != self._cached[0]:
                self._cached = changed, nameservers(self._path.read_text())
        except OSError as error:
            log.info("%s: %s", self._path, error.strerror)
        return self._cached[1]

    async def _over_udp(self, server: str, question: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: _Reply(question), remote_addr=(server, self._port)
        )
        try:
            return cast(bytes, await protocol.data)
        finally:
            transport.close()

    async def _over_tcp(self, server: str, question: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(server, self._port)
        try:
            writer.write(struct.pack(">H", len(question)) + question)
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            return await reader.readexactly(length)
        finally:
            writer.close()
