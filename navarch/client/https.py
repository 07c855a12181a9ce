"""The transport over HTTPS, with a client certificate or a bearer token from a kubeconfig."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from navarch.client.http1 import Broken, Connection, Exchange, Pool
from navarch.client.kubeconfig import Config, memory_file
from navarch.client.wire import (
    JSON,
    Query,
    Response,
    Stream,
    TransportError,
    WebSocket,
    error_of,
    raw_target,
)

if TYPE_CHECKING:
    import aiohttp

    from navarch.client.upgrade import Upgraded

TOKEN_LIFE = 60.0
AT_ONCE = 32  # requests; a thousand at a time would each pay for a connection, and wait no less
SAFE_TO_REPEAT = ("GET",)
# A WebSocket handshake whose outcome we do not mean to use; its key protects nothing.
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "bmF2YXJjaCByZWZ1c2VkIQ==",
}


class HTTPSTransport:
    """HTTP/1.1 over TLS. Connections are kept and shared.

    It belongs to the event loop that first uses it; ``close`` it there. An ``http:`` server works too, for tests.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        url = urllib.parse.urlsplit(config.server)
        if url.scheme not in ("https", "http") or not url.hostname:
            raise ValueError(f"not a server URL: {config.server!r}")
        self._url = url
        self._prefix = url.path.rstrip("/")
        self._pool: Pool | None = None
        self._room = asyncio.Semaphore(AT_ONCE)  # streams do not count
        self._context: ssl.SSLContext | None = None
        self._websockets: aiohttp.ClientSession | None = None
        self._token = config.token
        self._token_read = float("-inf")

    @property
    def authority(self) -> str:
        """HOST:PORT of the server."""
        return self._url.netloc

    def _connections(self) -> Pool:
        if self._pool is None:
            secure = self._url.scheme == "https"
            if secure and self._context is None:
                self._context = ssl_context(self.config)
            port = self._url.port or (443 if secure else 80)
            host = self._url.hostname or ""
            self._pool = Pool(host, port, self._context, self.config.tls_server_name)
        return self._pool

    def _authorization(self) -> str:
        if self.config.token_file:
            now = asyncio.get_running_loop().time()
            if now - self._token_read > TOKEN_LIFE:
                # Projected tokens are replaced on disk long before they expire: read them again now and then.
                with open(self.config.token_file) as file:
                    self._token, self._token_read = file.read().strip(), now
        return f"Bearer {self._token}" if self._token else ""

    def _encode(
        self,
        method: str,
        path: str,
        query: Query,
        body: bytes | None,
        content_type: str,
        accept: str,
        headers: Mapping[str, str] | None,
    ) -> bytes:
        """The request as it goes out."""
        lines = [f"{method} {self._prefix}{raw_target(path, query)} HTTP/1.1", f"Host: {self._url.netloc}"]
        lines.append(f"Accept: {accept}")
        if body is not None:
            lines.append(f"Content-Type: {content_type}")
            lines.append(f"Content-Length: {len(body)}")
        if token := self._authorization():
            lines.append(f"Authorization: {token}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        head = "\r\n".join(lines)
        if head.count("\n") != len(lines) - 1:
            raise ValueError("a line break in a header")
        return head.encode("latin-1") + b"\r\n\r\n" + (body or b"")

    async def _begin(
        self, pool: Pool, method: str, request: bytes, stream: bool
    ) -> tuple[Connection, Exchange, bytes]:
        """Sends a request and waits for its head (``stream``) or all of its answer.

        A kept connection may die just as we use it. A request that may be repeated then is, once.
        """
        while True:
            connection = await pool.get()
            try:
                exchange = connection.send(request)
                if stream:
                    await exchange.head()
                    return connection, exchange, b""
                return connection, exchange, await exchange.whole()
            except Broken as error:
                connection.abort()
                if error.begun or not connection.used or method not in SAFE_TO_REPEAT:
                    raise
            except BaseException:
                connection.abort()
                raise

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Response:
        request = self._encode(method, path, query, body, content_type, accept, headers)
        pool = self._connections()
        with _as_transport_error(method, path):
            async with asyncio.timeout(timeout), self._room:
                connection, exchange, data = await self._begin(pool, method, request, False)
                pool.put(connection)
        if exchange.status == 401:
            self._token_read = float("-inf")
        return Response(exchange.status, exchange.headers, data)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Stream]:
        request = self._encode(method, path, query, body, content_type, accept, headers)
        pool = self._connections()
        with _as_transport_error(method, path):
            connection, exchange, _ = await self._begin(pool, method, request, True)
        try:
            yield _HTTPStream(exchange, method, path)
        finally:
            pool.put(connection)

    @contextlib.asynccontextmanager
    async def websocket(
        self, path: str, *, query: Query = (), protocols: Sequence[str] = (), headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[WebSocket]:
        # Only exec and port-forward need WebSockets: few processes ever pay for this import.
        import aiohttp
        import yarl

        self._connections()  # makes the TLS context
        if self._websockets is None:
            trust: Any = self._context if self._context is not None else False
            self._websockets = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=trust))
        server = f"{self._url.scheme}://{self._url.netloc}{self._prefix}"
        url = yarl.URL(server + raw_target(path, query), encoded=True)
        sent = dict(headers or {})
        if token := self._authorization():
            sent["Authorization"] = token
        options: dict[str, Any] = {"headers": sent}
        if self.config.tls_server_name:
            options["server_hostname"] = self.config.tls_server_name
        try:
            with _as_transport_error("GET", path):
                socket = await self._websockets.ws_connect(url, protocols=protocols, max_msg_size=0, **options)
        except aiohttp.WSServerHandshakeError as error:
            # aiohttp throws the refusal's body away; the same handshake once more is refused the same way, or, if a
            # refusal there has no body, the same request without one.
            handshake = HANDSHAKE | dict(headers or {})
            if protocols:
                handshake["Sec-WebSocket-Protocol"] = ", ".join(protocols)
            answer = await self.request("GET", path, query=query, headers=handshake, timeout=10)
            if not answer.body:
                answer = await self.request("GET", path, query=query, headers=headers, timeout=10)
            raise error_of(answer.status if answer.status >= 400 else error.status, answer.body) from None
        except aiohttp.ClientError as error:
            raise TransportError(f"GET {path}: {error}") from error
        try:
            yield _HTTPWebSocket(socket)
        finally:
            await socket.close()

    def upgrade(
        self, method: str, path: str, *, protocol: str, query: Query = (), headers: Mapping[str, str] | None = None
    ) -> contextlib.AbstractAsyncContextManager[Upgraded]:
        """A request that makes its connection one of another ``protocol`` (SPDY/3.1); see :func:`upgraded`."""
        from navarch.client.upgrade import upgraded

        host, port, context = self.endpoint()
        sent = {**(headers or {}), "Connection": "Upgrade", "Upgrade": protocol}
        request = self._encode(method, path, query, None if method == "GET" else b"", JSON, "*/*", sent)
        return upgraded(host, port, context, self.config.tls_server_name, request)

    def endpoint(self) -> tuple[str, int, ssl.SSLContext | None]:
        """Where the server is, and how it is spoken to: None without TLS."""
        self._connections()  # makes the TLS context
        return self._url.hostname or "", self._url.port or (443 if self._context else 80), self._context

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.close()
        if self._websockets is not None:
            session, self._websockets = self._websockets, None
            await session.close()


class _HTTPStream:
    def __init__(self, exchange: Exchange, method: str, path: str) -> None:
        self.status = exchange.status
        self.headers: Mapping[str, str] = exchange.headers
        self._exchange = exchange
        self._what = method, path

    async def chunks(self) -> AsyncIterator[bytes]:
        with _as_transport_error(*self._what):
            async for chunk in self._exchange.chunks():
                yield chunk

    async def read(self) -> bytes:
        with _as_transport_error(*self._what):
            return await self._exchange.whole()


class _HTTPWebSocket:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.protocol = socket.protocol or ""

    async def send(self, data: bytes) -> None:
        with _as_transport_error("websocket", ""):
            await self._socket.send_bytes(data)

    async def receive(self) -> bytes | None:
        import aiohttp

        message = await self._socket.receive()
        if message.type == aiohttp.WSMsgType.BINARY:
            return cast(bytes, message.data)
        if message.type == aiohttp.WSMsgType.TEXT:
            return cast(str, message.data).encode()
        if message.type == aiohttp.WSMsgType.ERROR:
            raise TransportError(f"websocket: {message.data}")
        return None

    async def close(self) -> None:
        await self._socket.close()


@contextlib.contextmanager
def _as_transport_error(method: str, path: str) -> Iterator[None]:
    what = f"{method} {path}".strip()
    try:
        yield
    except TimeoutError:
        raise TransportError(f"{what}: timed out") from None
    except OSError as error:
        raise TransportError(f"{what}: {error or type(error).__name__}") from error


def ssl_context(config: Config) -> ssl.SSLContext:
    """TLS as the kubeconfig asks for it: trust its CA alone, show its client certificate."""
    context = ssl.create_default_context(cadata=config.ca.decode() if config.ca else None)
    if config.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.client_certificate and config.client_key:
        # The ssl module reads certificates from paths only; the key never touches a disk.
        with memory_file(config.client_certificate) as certificate, memory_file(config.client_key) as key:
            context.load_cert_chain(certificate, key)
    return context


def connect(config: Config) -> HTTPSTransport:
    """A transport to the cluster that a kubeconfig names. Raises ValueError, OSError."""
    if config.token_file:
        os.stat(config.token_file)
    return HTTPSTransport(config)
