"""uvicorn's protocols, with the client's certificate put into the scope, and a listener without uvicorn's own server.

``scope["navarch.peer_certificate"]`` is the DER of the certificate that the client proved to own (the TLS context
verified it against the client CA), absent for a client without one. ``scope["navarch.take_over"]`` is there when the
client asks to upgrade to something else than WebSocket (SPDY/3.1): called, it gives the bare connection.
``scope["navarch.connection"]`` is the connection: ``abort`` cuts it at once (what a client that reads no more has not read is
lost), and ``when_lost`` is called once it is gone.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, runtime_checkable
from typing import Protocol as TypingProtocol

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets import http11

from apiserver.http.lean import CONNECTION, PEER, Lean, Route
from navarch.client.upgrade import keep_alive
from navarch.listening import inherited
from navarch.world import World

TAKE_OVER = "navarch.take_over"
TakeOver = Callable[[], tuple[asyncio.StreamReader, asyncio.StreamWriter]]
CORK = 16 * 1024  # bytes
BUFFER = 256 * 1024  # bytes read ahead of a connection that was taken over
HEAD_SECONDS = 32.0  # in which the head of a request must have come
HEAD_BYTES = 1 << 20
MAX_ROUTES = 64  # that a connection remembers
HEAD_END = b"\r\n\r\n"
# The head of a WebSocket request, which has passed HEAD_BYTES, is parsed a second time by websockets. Its own limit, 8 KiB a
# line, is too low: the command of an exec is in the first line.
http11.MAX_LINE_LENGTH = http11.MAX_NUM_HEADERS = HEAD_BYTES
BAD_HEAD = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def peer_certificate(transport: asyncio.BaseTransport) -> bytes | None:
    """The DER of the client's certificate of a TLS connection."""
    tls = transport.get_extra_info("ssl_object")
    return tls.getpeercert(binary_form=True) if tls is not None else None


# A head that announces a body, wants to be asked for it, or to leave HTTP: none of a GET that others are like.
_BODY = re.compile(rb"\r\n(content-length|transfer-encoding|expect|upgrade|trailer):", re.IGNORECASE).search


@runtime_checkable
class LeanApp(TypingProtocol):
    """An application that knows a short way."""

    lean: Lean


class Corked:
    """A transport that holds small writes back until the end of the loop's turn, or until more than ``CORK`` bytes wait.

    uvicorn writes the head of a reply and its body apart. Together they are one TLS record and one packet.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._soon = asyncio.get_running_loop().call_soon
        self._pieces: list[bytes] = []
        self._size = 0
        self.get_extra_info, self.is_closing = transport.get_extra_info, transport.is_closing
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading
        self.abort, self.set_protocol = transport.abort, transport.set_protocol

    def write(self, data: bytes) -> None:
        if not self._pieces:
            if len(data) > CORK:
                self._transport.write(data)
                return
            self._soon(self._flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > CORK:
            self._flush()

    def write_now(self, data: bytes) -> None:
        """Writes without waiting for more."""
        if self._pieces:
            self.write(data)
            self._flush()
        else:
            self._transport.write(data)

    def _flush(self) -> None:
        pieces, self._pieces, self._size = self._pieces, [], 0
        if pieces:
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def uncorked(self) -> asyncio.Transport:
        """The transport itself, for somebody who takes the connection over."""
        self._flush()
        return self._transport


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with the client certificate in every scope."""

    _peer: bytes | None = None
    _in_head = True
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    when_lost: Callable[[], object] | None = None
    # Of the short way (see apiserver.http.lean): the whole head of the request that is being answered, and of those that
    # were, what follows the path; the ways known to go with that.
    _between = True  # the parser is between two requests
    _head: bytes | None = None
    _rest: bytes | None = None
    _last = 0.0  # when a request went the short way

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Corked(transport))  # type: ignore[arg-type]
        self._peer = peer_certificate(transport)
        self._routes: dict[bytes, Route] = {}  # by the path of the collection
        self._lists: dict[bytes, Route] = {}  # by the whole target
        self._answer = self.app.lean.answer if isinstance(self.app, LeanApp) else None
        keep_alive(transport)
        self.abort = transport.abort
        self._head_timer = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_done()
        super().connection_lost(exc)
        if self.when_lost is not None:
            self.when_lost()

    def data_received(self, data: bytes) -> None:
        if self._between and data[:4] == b"GET " and (self.cycle is None or self.cycle.response_complete):
            rest = self._rest
            if rest is not None and data.endswith(rest) and self._go_lean(data[4 : -len(rest)]):
                return
            self._head = data
        else:
            self._head = None
        super().data_received(data)
        if self._in_head:  # seldom: a head comes in one piece
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse_head()
            elif self._head_timer is None and self._head_bytes:
                self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _go_lean(self, path: bytes) -> bool:
        """Answers a GET of ``path`` the short way, if that is known."""
        name = b""
        route = self._lists.get(path)
        if route is None:
            collection, _, name = path.rpartition(b"/")
            route = self._routes.get(collection)
        if route is None or self.flow.write_paused or self.transport.is_closing() or not name.isascii():
            return False
        assert self._answer is not None
        reply = self._answer(route, name.decode("ascii"), self.server_state.default_headers)
        if reply is None:
            self._lists.pop(path, None)  # where a list has grown, its size is not found out each time
            return False
        self._last = self.loop.time()
        self.server_state.total_requests += 1
        self.transport.write_now(reply)  # type: ignore[attr-defined]
        return True

    def learn(self, target: bytes, route: Route) -> None:
        """The request that was just answered, a GET of ``target``, went on ``route``: others may go the short way."""
        head, self._head = self._head, None
        if head is None or self._answer is None or not self.cycle.keep_alive or head.find(HEAD_END) != len(head) - 4:
            return
        line = head[: head.index(b"\r\n")]
        if line != b"GET %b HTTP/1.1" % target or _BODY(head):
            return
        rest = head[len(line) - 9 :]
        if rest != self._rest or len(self._routes) + len(self._lists) >= MAX_ROUTES:
            self._rest = rest
            self._routes.clear()
            self._lists.clear()
        if route.options is not None:
            self._lists[target] = route
        else:
            self._routes[target.rpartition(b"/")[0]] = route

    def timeout_keep_alive_handler(self) -> None:
        remaining = self._last + self.timeout_keep_alive - self.loop.time()
        if remaining > 0.001 and not self.transport.is_closing():  # what went the short way set no timer
            self.timeout_keep_alive_task = self.loop.call_later(remaining, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _refuse_head(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n")
            self.transport.close()

    def _head_done(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def handle_websocket_upgrade(self) -> None:
        self.transport = self.transport.uncorked()  # type: ignore[attr-defined]
        super().handle_websocket_upgrade()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._between = True

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._between = False
        self._in_head, self._head_bytes = True, 0
        self.scope[CONNECTION] = self  # type: ignore[literal-required]
        if self._peer is not None:
            self.scope[PEER] = self._peer  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_done()
        super().on_headers_complete()
        if self.parser.should_upgrade() and not self._should_upgrade():
            # The parser is of no use for what may follow, whether the upgrade is granted or not.
            self.cycle.keep_alive = False
            self.scope[TAKE_OVER] = self._take_over  # type: ignore[literal-required]

    def _unsupported_upgrade_warning(self) -> None:
        """It is for the application to say so."""

    def _take_over(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection as a reader and a writer; uvicorn lets go of it. Nothing was answered yet."""
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.connections.discard(self)
        self.cycle.disconnected = True  # keeps uvicorn from answering itself
        reader = asyncio.StreamReader(BUFFER)
        protocol = _Bare(reader, self.connections)
        transport = self.transport.uncorked()  # type: ignore[attr-defined]
        writer = asyncio.StreamWriter(transport, protocol, reader, self.loop)
        keep_alive(transport)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return reader, writer


class _Bare(asyncio.StreamReaderProtocol):
    """A connection that was taken over, among those that the listener ends."""

    def __init__(self, reader: asyncio.StreamReader, connections: Any) -> None:
        super().__init__(reader)
        self._all = connections
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport = transport
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self.transport is not None:
            self.transport.close()


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSocket connections (exec, port-forward), the same. Which subprotocol is spoken the application decides."""

    when_lost: Callable[[], object] | None = None  # nobody asks for it here: a client that leaves is a message

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # websockets refuses kubectl's SPDY/3.1+portforward.k8s.io: a slash may not stand in such a name.
        self.conn.process_subprotocol = lambda headers: None  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # uvicorn answers a handshake that it does not accept, but not a head that websockets cannot read: clients would wait.
        if self._is_unreadable() and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()) or BAD_HEAD)
            self.transport.close()

    def shutdown(self) -> None:
        if not self._is_unreadable():  # which is answered, and closes
            super().shutdown()

    def _is_unreadable(self) -> bool:
        return self.conn.handshake_exc is not None and not self.handshake_initiated

    async def run_asgi(self) -> None:
        keep_alive(self.transport)
        self.abort = self.transport.abort
        self.scope[CONNECTION] = self  # type: ignore[literal-required]
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
            proxy_headers=False,
            ws_ping_timeout=None,  # a client that we hold up cannot answer pings; the kernel tells who is gone
            log_config=None, access_log=False, timeout_keep_alive=120, server_header=False, h11_max_incomplete_event_size=None,
        )  # fmt: skip
        self.config.load()
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # else it tells every exec with its command
        self.state = ServerState()
        self.servers: list[asyncio.Server] = []

    async def start(self, addresses: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Binds, if whoever started us has not done so already (see :mod:`navarch.listening`); port 0 takes a free one, the
        same for all addresses. Returns what was bound. Raises OSError."""
        loop = asyncio.get_running_loop()
        open_already = inherited()
        self._set_date()
        bound: list[tuple[str, int]] = []
        for host, port in addresses:
            if port == 0 and bound:
                port = bound[0][1]
            socket = open_already.get((host, port))
            where: dict[str, Any] = {"sock": socket} if socket else {"host": host, "port": port, "reuse_address": True}
            server = await loop.create_server(
                lambda: Protocol(self.config, self.state, {}),
                **where, ssl=self.tls, backlog=1024, ssl_handshake_timeout=20 if self.tls else None,
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
