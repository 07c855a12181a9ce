"""gRPC over HTTP/2 for a client of etcd: unary calls and streams on one connection, in the event loop.

grpc.aio costs about 90 us of CPU for every message in either direction, most of it hand-over between its thread and
the loop; etcd sends one watch message a revision, so a write would cost 200 us before any work of ours. Here a message
costs a fifth of that, there is no thread (so the process can fork), and nothing heavy is imported.
"""

from __future__ import annotations

import asyncio
import ssl

from apiserver.storage.http2 import DEADLINE_EXCEEDED, UNAVAILABLE, Connection, RpcError, Stream, header_block

__all__ = ["DEADLINE_EXCEEDED", "UNAVAILABLE", "Channel", "RpcError", "Stream"]


class Channel:
    """A server at ``unix:/path`` or ``host:port``, connected to when needed. ``tls`` is for the latter."""

    def __init__(self, endpoint: str, tls: ssl.SSLContext | None = None) -> None:
        self._path = endpoint.removeprefix("unix:") if endpoint.startswith("unix:") else ""
        self._host, _, port = endpoint.rpartition(":")
        self._host = self._host.strip("[]")
        self._port = 0 if self._path else int(port)
        self._tls = None if self._path else tls
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._authority = "localhost" if self._path else endpoint
        self._blocks: dict[tuple[str, tuple[tuple[str, str], ...]], bytes] = {}

    def _block(self, path: str, extra: tuple[tuple[str, str], ...] = ()) -> bytes:
        block = self._blocks.get((path, extra))
        if block is None:
            block = self._blocks[path, extra] = header_block(path, self._authority, self._tls is not None, extra)
        return block

    async def unary(self, path: str, message: bytes, timeout: float, wait: bool) -> bytes:
        """One request, one answer. ``wait``: for the connection, too, as long as ``timeout`` allows. Raises RpcError."""
        connection = self._connection
        try:
            async with asyncio.timeout(timeout):
                if connection is None or not connection.usable:
                    connection = await self._connected(wait)
                stream = connection.open(self._block(path), unary=True)
                future = stream.future
                assert future is not None
                try:
                    stream.send(message, end=True)
                    return await future
                finally:
                    stream.cancel()
        except TimeoutError:
            raise RpcError(DEADLINE_EXCEEDED, f"no answer within {timeout} s") from None

    async def stream(self, path: str, *headers: tuple[str, str], timeout: float = 5.0) -> Stream:
        """A stream in both directions; cancel it when done. Raises RpcError if there is no connection."""
        try:
            async with asyncio.timeout(timeout):
                return (await self._connected(False)).open(self._block(path, headers))
        except TimeoutError:
            raise RpcError(UNAVAILABLE, f"no connection within {timeout} s") from None

    async def _connected(self, wait: bool) -> Connection:
        delay = 0.01
        while True:
            async with self._connecting:
                if self._connection is not None and self._connection.usable:
                    return self._connection
                try:
                    self._connection = await self._connect()
                    return self._connection
                except (OSError, ssl.SSLError) as error:
                    if not wait:
                        raise RpcError(UNAVAILABLE, f"no connection: {error.strerror or error}") from error
            await asyncio.sleep(delay)
            delay = min(0.5, delay * 2)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self._path:
            return (await loop.create_unix_connection(Connection, self._path))[1]
        name = self._host if self._tls is not None else None
        return (await loop.create_connection(Connection, self._host, self._port, ssl=self._tls, server_hostname=name))[
            1
        ]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
