"""Forwarding a request to another server: body and answer streamed, upgrades and WebSockets included."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from urllib.parse import quote, urlsplit

import aiohttp
import yarl
from aiohttp import WSMsgType
from aiohttp.abc import AbstractResolver

from apiserver.http import relay
from apiserver.http.htmllinks import rewrite_links
from apiserver.http.proxytargets import Target
from apiserver.wire.asgi import Disconnected, Headers, Request
from apiserver.wire.dialing import dial_error
from navarch.api.errors import ServiceUnavailable
from navarch.client.transport import TransportError
from navarch.client.upgrade import upgraded
from navarch.world import World

CONNECT_TIMEOUT = 30.0
HTML_LIMIT = 4 << 20  # bytes of a document whose links are rewritten
MESSAGE_LIMIT = 32 << 20  # bytes of a WebSocket message, which is passed on as a whole
# Of one connection only, or meant for the API server: not passed on.
_HOP = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings".split()
)  # fmt: skip
_CORS = (
    b"access-control-allow-credentials", b"access-control-allow-headers", b"access-control-allow-methods",
    b"access-control-allow-origin",
)  # fmt: skip
_OURS = (b"authorization", b"content-length", b"expect")
_WHO = (b"impersonate-", b"x-remote-")  # who the user is: only we say so

Extra = Sequence[tuple[str, str]]


class Forwarder:
    """Keeps its connections; :meth:`close` ends them."""

    def __init__(self, world: World, resolver: Callable[[], AbstractResolver] | None = None) -> None:
        """``resolver``: makes what turns host names into addresses."""
        self._world, self._resolver = world, resolver
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def forward(self, request: Request, target: Target, line: str, *, base: str = "", extra: Extra = ()) -> None:
        """Sends the request on to ``target`` under ``line`` (path and query), with ``extra`` headers, and its answer back.

        ``base``: our path before the backend's: redirects within the backend stay below it. Raises ServiceUnavailable.
        """
        if request.scope["type"] == "websocket":
            await self._websocket(request, target, line, extra)
        elif relay.upgrade_of(request):
            await self._upgrade(request, target, line, extra)
        else:
            await self._http(request, target, line, base, extra)

    def client(self) -> aiohttp.ClientSession:
        """The session of all requests; without decoding, and without headers of its own."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, resolver=self._resolver() if self._resolver else None),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._session

    @staticmethod
    def _headers(request: Request, extra: Extra) -> list[tuple[str, str]]:
        """The headers that the backend gets: not who the user is to us, nor those of this connection alone."""
        named = {t.strip().lower().encode() for t in request.header(b"connection").split(",")}
        own = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in request.scope["headers"]
            if name not in _HOP and name not in named and name not in _OURS and not name.startswith(_WHO)
        ]
        # Quoted again: line ends in the path would begin headers of the client's own, X-Remote-Group among them.
        uri = quote(request.path, safe="/:@!$&'()*+,;=~")
        return [*own, *extra, ("X-Forwarded-Uri", uri), ("X-Forwarded-Host", request.header(b"host"))]

    # Plain requests

    async def _http(self, request: Request, target: Target, line: str, base: str, extra: Extra) -> None:
        url = yarl.URL(f"{target.scheme}://{target.authority}{line}", encoded=True)
        sent = asyncio.Event()  # the request's body is read: from now on ``receive`` tells of the client's end
        lengths = request.header(b"content-length"), request.header(b"transfer-encoding")
        headers = self._headers(request, extra)
        body: AsyncIterator[bytes] | None = None
        if lengths[0] not in ("", "0") or lengths[1]:
            body = _body(request, sent)
            if lengths[0]:
                headers.append(("Content-Length", lengths[0]))
        else:
            sent.set()

        async def exchange() -> None:
            try:
                async with self.client().request(
                    request.method, url, headers=headers, data=body, allow_redirects=False,
                    ssl=target.tls or False, server_hostname=target.server_name or None,
                ) as answer:  # fmt: skip
                    await self._answer(request, base, target, answer)
            except aiohttp.ClientError as error:
                # Once the answer has begun, the client sees it break off.
                text = f"error trying to reach service: {_reason(error, target)}"
                failures.append(Disconnected() if request.started else ServiceUnavailable(text))
            except Disconnected as error:
                failures.append(error)

        async def until_gone() -> None:
            await sent.wait()
            await request.disconnected()

        failures: list[Exception] = []
        await relay.until_either(self._world, exchange(), until_gone())
        if failures or not request.started:
            raise failures[0] if failures else Disconnected()

    async def _answer(self, request: Request, base: str, target: Target, answer: aiohttp.ClientResponse) -> None:
        headers: Headers = []
        for name, value in answer.raw_headers:
            lower = name.lower()
            if lower in _HOP or lower == b"date":  # we tell our own
                continue
            if base and lower in _CORS:  # the proxy's origin is ours: a backend cannot open it to others
                continue
            if lower == b"location" and base:
                value = self._location(request, base, target, value.decode("latin-1")).encode("latin-1")
            headers.append((lower, value))
        whole: bytes | None = None
        rest: AsyncIterator[bytes] = answer.content.iter_any()
        if base and request.method != "HEAD" and b"location" not in dict(headers) and answer.content_type == "text/html":
            whole, headers = await self._html(request, base, target, answer, headers)
        request.started, request.status = True, answer.status
        await request.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if request.method != "HEAD":
            await request.send({"type": "http.response.body", "body": b"", "more_body": True})
            if whole is not None:
                await request.write(whole)
            async for chunk in rest:
                await request.write(chunk)
        await request.end_stream()

    async def _html(
        self, request: Request, base: str, target: Target, answer: aiohttp.ClientResponse, headers: Headers
    ) -> tuple[bytes | None, Headers]:
        """The document with its links below the proxy's own path, and the headers that go with it. What is larger than
        ``HTML_LIMIT``, or packed otherwise than with gzip, stays as it is: then only its beginning is returned."""
        encoding = (answer.headers.get("Content-Encoding") or "").lower()
        if encoding not in ("", "identity", "gzip"):
            return None, headers
        parts, size = [], 0
        async for chunk in answer.content.iter_any():
            parts.append(chunk)
            size += len(chunk)
            if size > HTML_LIMIT:
                return b"".join(parts), headers
        data = b"".join(parts)

        def rewritten() -> bytes:
            text = (gzip.decompress(data) if encoding == "gzip" else data).decode("latin-1")
            text = rewrite_links(text, lambda address: self._location(request, base, target, address))
            body = text.encode("latin-1", "xmlcharrefreplace")
            return gzip.compress(body, 6, mtime=0) if encoding == "gzip" else body

        try:
            body = await request.offload(4 * size, rewritten)
        except (OSError, EOFError, zlib.error):  # it is not what it says
            return data, headers
        others = [(name, value) for name, value in headers if name != b"content-length"]
        return body, [*others, (b"content-length", b"%d" % len(body))]

    @staticmethod
    def _location(request: Request, base: str, target: Target, location: str) -> str:
        """A redirect or a link within the backend stays below the proxy's own path."""
        try:
            parts = urlsplit(location)
        except ValueError:
            return location
        if (
            parts.netloc and parts.netloc not in (target.authority, request.header(b"host"))
        ) or not parts.path.startswith("/"):
            return location
        below = parts.path if parts.path.startswith(base) else base + parts.path
        return below + (f"?{parts.query}" if parts.query else "") + (f"#{parts.fragment}" if parts.fragment else "")

    # Upgrades

    async def _upgrade(self, request: Request, target: Target, line: str, extra: Extra) -> None:
        """Any protocol but WebSocket: bytes to bytes."""
        protocol = request.header(b"upgrade")
        lines = [f"{request.method} {line} HTTP/1.1", "Connection: Upgrade", f"Upgrade: {protocol}"]
        lines += [f"{name}: {value}" for name, value in self._headers(request, extra)]
        if request.method != "GET":
            lines.append("Content-Length: 0")
        # What the client sent is latin-1 here, byte for byte; a user's name may have any character.
        head = b"\r\n".join(_bytes(text) for text in [*lines, "", ""])
        try:
            async with upgraded(target.host, target.port, target.tls, target.server_name, head) as other:
                await relay.bytes_to_bytes(self._world, request, other, protocol)
        except TransportError as error:
            raise ServiceUnavailable(f"error trying to reach service: {_reason(error, target)}") from None

    async def _websocket(self, request: Request, target: Target, line: str, extra: Extra) -> None:
        scheme = "wss" if target.tls else "ws"
        url = yarl.URL(f"{scheme}://{target.authority}{line}", encoded=True)
        headers = [(n, v) for n, v in self._headers(request, extra) if not n.lower().startswith("sec-websocket-")]
        offered = request.scope.get("subprotocols") or []
        try:
            socket = await self.client().ws_connect(
                url, protocols=offered, headers=headers, max_msg_size=MESSAGE_LIMIT, ssl=target.tls or False,
                server_hostname=target.server_name or None,
            )  # fmt: skip
        except aiohttp.ClientError as error:
            raise ServiceUnavailable(f"error trying to reach service: {_reason(error, target)}") from None
        try:
            await _messages(self._world, request, socket)
        finally:
            await socket.close()


async def _messages(world: World, request: Request, other: aiohttp.ClientWebSocketResponse) -> None:
    """WebSocket to WebSocket, text and binary."""

    async def down() -> None:
        with suppress(OSError):
            async for message in other:
                if message.type == WSMsgType.TEXT:
                    await request.send({"type": "websocket.send", "text": message.data})
                elif message.type == WSMsgType.BINARY:
                    await request.send({"type": "websocket.send", "bytes": message.data})

    async def up() -> None:
        with suppress(OSError):
            while (message := await request.receive())["type"] == "websocket.receive":
                if message.get("text") is not None:
                    await other.send_str(message["text"])
                else:
                    await other.send_bytes(message["bytes"])

    await relay.accepted(world, request, other.protocol or "", down(), up())


async def _body(request: Request, sent: asyncio.Event) -> AsyncIterator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            sent.set()
            return


def _bytes(line: str) -> bytes:
    try:
        return line.encode("latin-1")
    except UnicodeEncodeError:
        return line.encode()


def _reason(error: Exception, target: Target) -> str:
    """The failure in the words of Go's dialer."""
    return dial_error(error, target.authority)
