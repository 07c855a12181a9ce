"""uvicorn's protocols, with the client's certificate put into the scope, and a listener without uvicorn's own server.

``scope["navarch.peer_certificate"]`` is the DER of the certificate that the client proved to own (the TLS context
verified it against the client CA), absent for a client without one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from navarch.world import World

PEER = "navarch.peer_certificate"


def peer_certificate(transport: asyncio.BaseTransport) -> bytes | None:
    """The DER of the client's certificate of a TLS connection."""
    tls = transport.get_extra_info("ssl_object")
    return tls.getpeercert(binary_form=True) if tls is not None else None


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with the client certificate in every scope."""

    _peer: bytes | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = peer_certificate(transport)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._peer is not None:
            self.scope[PEER] = self._peer  # type: ignore[literal-required]


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSocket connections (exec), the same."""

    async def run_asgi(self) -> None:
        peer = peer_certificate(self.transport)
        if peer is not None:
            self.scope[PEER] = peer  # type: ignore[literal-required]
        await super().run_asgi()


class Listener:
    """Serves an ASGI app on some addresses until it is closed.

    uvicorn's own Server wants to own the process (signals, one address, the clock); we only want its protocols.
    """

    def __init__(self, world: World, app: Callable[..., Any], tls: ssl.SSLContext | None) -> None:
        self.world = world
        self.tls = tls
        self.config = Config(
            app, http=Protocol, ws=WebSocketProtocol, ws_max_size=32 * 1024 * 1024, lifespan="off", interface="asgi3",
            log_config=None, access_log=False, timeout_keep_alive=120, server_header=False, h11_max_incomplete_event_size=None,
        )  # fmt: skip
        self.config.load()
        self.state = ServerState()
        self.servers: list[asyncio.Server] = []

    async def start(self, addresses: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Binds; port 0 takes a free one, the same for all addresses. Returns what was bound. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._set_date()
        bound: list[tuple[str, int]] = []
        for host, port in addresses:
            if port == 0 and bound:
                port = bound[0][1]
            server = await loop.create_server(
                lambda: Protocol(self.config, self.state, {}),
                host, port, ssl=self.tls, backlog=1024, reuse_address=True,
                ssl_handshake_timeout=20 if self.tls else None,
            )  # fmt: skip
            self.servers.append(server)
            bound.append((host, server.sockets[0].getsockname()[1]))
        return bound

    async def run(self) -> None:
        """Keeps the Date header right; ends by cancellation."""
        while True:
            await self.world.sleep(1 - self.world.now() % 1)
            self._set_date()

    def _set_date(self) -> None:
        self.state.default_headers = [(b"date", formatdate(self.world.now(), usegmt=True).encode())]

    async def close(self, grace: float) -> None:
        """Takes no new connections, lets running requests end for ``grace`` seconds, then cuts them off."""
        for server in self.servers:
            server.close()
        for connection in list(self.state.connections):
            connection.shutdown()
        until = self.world.monotonic() + grace
        while (self.state.tasks or self.state.connections) and self.world.monotonic() < until:
            await self.world.sleep(0.02)
        for task in list(self.state.tasks):
            task.cancel()
        if self.state.tasks:
            await asyncio.wait(list(self.state.tasks), timeout=1)
        for connection in list(self.state.connections):
            transport = connection.transport
            if transport is not None:
                transport.abort() if hasattr(transport, "abort") else transport.close()
