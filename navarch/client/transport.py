"""How a request reaches an API server: over HTTPS, or straight into an ASGI application in the same process.

Both ways give the same bytes, so everything above (client, informers, whole components) runs on either. Paths are
plain text, not percent-encoded; queries are (name, value) pairs, because ``exec`` repeats ``command``. Header names
in a :class:`Response` are lower case. Nothing here knows what an object is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from navarch.api.errors import StatusError, from_status
from navarch.client.kubeconfig import Config, memory_file

if TYPE_CHECKING:
    import aiohttp

Query = Sequence[tuple[str, str]]
Message = MutableMapping[str, Any]
ASGIApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

JSON = "application/json"
# Characters that a path segment may hold as they are (RFC 3986 pchar), and the slash between segments.
PATH_SAFE = "/:@!$&'()*+,;=~"
# A watch that is cut off without a word (a partition, a lost machine) must end some time: seconds.
DEAD_AFTER = 30
TOKEN_LIFE = 60.0
IN_FLIGHT = 256  # chunks that the application may be ahead of the reader of an in-process stream


class TransportError(Exception):
    """The server did not answer, or not to the end. Whether a write took place is unknown."""


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Stream(Protocol):
    """A response whose body is read while it arrives."""

    status: int
    headers: Mapping[str, str]

    def chunks(self) -> AsyncIterator[bytes]:
        """Pieces of the body as they come. Raises TransportError if it breaks off."""
        ...

    async def read(self) -> bytes:
        """All that is left of the body."""
        ...


class WebSocket(Protocol):
    protocol: str  # the subprotocol agreed on, "" if none

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes | None:
        """The next message, None once the other side closed."""
        ...

    async def close(self) -> None: ...


class Transport(Protocol):
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
        """One request and its whole answer. ``timeout`` in seconds. Raises TransportError."""
        ...

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[Stream]:
        """A request whose answer has no foreseeable end; leaving the context hangs up. Raises TransportError."""
        ...

    def websocket(
        self, path: str, *, query: Query = (), protocols: Sequence[str] = (), headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[WebSocket]:
        """Raises StatusError if the server refuses, TransportError if it does not answer."""
        ...

    async def close(self) -> None: ...


def error_of(status: int, body: bytes) -> StatusError:
    """The exception for an answer of 400 or more: its Status, or, if the body is something else, its text."""
    with contextlib.suppress(ValueError):
        tree = json.loads(body)
        if isinstance(tree, dict) and tree.get("kind") == "Status":
            return from_status(tree, status)
    text = body[:2048].decode("utf-8", "replace").strip()
    return from_status({"message": text or f"the server answered {status}"}, status)


def raw_target(path: str, query: Query) -> str:
    """Path and query as they stand in the request line."""
    target = urllib.parse.quote(path, safe=PATH_SAFE)
    return f"{target}?{urllib.parse.urlencode(query)}" if query else target


class InProcessTransport:
    """Calls an ASGI application directly. ``user`` travels in ``scope["navarch.user"]`` and is trusted there."""

    def __init__(self, app: ASGIApp, user: Any) -> None:
        self.app = app
        self.user = user

    def _scope(
        self,
        method: str,
        path: str,
        query: Query,
        body: bytes | None,
        content_type: str,
        accept: str,
        headers: Mapping[str, str] | None,
    ) -> Message:
        pairs = [(b"host", b"in-process"), (b"accept", accept.encode())]
        if body is not None:
            pairs += [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        pairs += [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in (headers or {}).items()]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": path,
            "raw_path": urllib.parse.quote(path, safe=PATH_SAFE).encode(),
            "query_string": urllib.parse.urlencode(query).encode(),
            "root_path": "",
            "headers": pairs,
            "client": None,
            "server": None,
            "state": {},
            "navarch.user": self.user,
        }

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
        scope = self._scope(method, path, query, body, content_type, accept, headers)
        status = 0
        answered: dict[str, str] = {}
        parts: list[bytes] = []

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answered.update(_headers(message.get("headers", ())))
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        try:
            async with asyncio.timeout(timeout):
                await self.app(scope, _receiver(body), send)
        except TimeoutError:
            raise TransportError(f"{method} {path}: no answer within {timeout} s") from None
        if not status:
            raise TransportError(f"{method} {path}: the application did not answer")
        return Response(status, answered, b"".join(parts))

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
        scope = self._scope(method, path, query, body, content_type, accept, headers)
        stream = _InProcessStream(f"{method} {path}")
        task = asyncio.ensure_future(stream.serve(self.app, scope, body))
        try:
            await stream.start()
            yield stream
        finally:
            task.cancel()
            await asyncio.wait((task,))  # not "await task": that would swallow a cancellation of our own

    def websocket(
        self, path: str, *, query: Query = (), protocols: Sequence[str] = (), headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[WebSocket]:
        raise NotImplementedError("the in-process transport has no WebSockets: use HTTPS for exec and attach")

    async def close(self) -> None:
        pass


class _InProcessStream:
    """One streaming call: the application runs in a task of its own and its chunks wait in a bounded queue."""

    def __init__(self, what: str) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._what = what
        self._queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(IN_FLIGHT)
        self._started = asyncio.Event()
        self._ended = False

    async def serve(self, app: ASGIApp, scope: Message, body: bytes | None) -> None:
        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = dict(_headers(message.get("headers", ())))
                self._started.set()
            elif message["type"] == "http.response.body" and message.get("body"):
                await self._queue.put(message["body"])

        end: Exception | None = None
        try:
            await app(scope, _receiver(body), send)
        except Exception as error:
            end = error
        self._started.set()
        await self._queue.put(end)

    async def start(self) -> None:
        await self._started.wait()
        if not self.status:
            raise TransportError(f"{self._what}: the application did not answer")

    async def chunks(self) -> AsyncIterator[bytes]:
        while not self._ended:
            item = await self._queue.get()
            if isinstance(item, bytes):
                yield item
                continue
            self._ended = True
            if item is not None:
                raise TransportError(f"{self._what}: broken off") from item

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in pairs]


def _receiver(body: bytes | None) -> Callable[[], Awaitable[Message]]:
    """An ASGI receive: the body, then silence; who hangs up cancels the application instead."""
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            await asyncio.get_running_loop().create_future()
        sent = True
        return {"type": "http.request", "body": body or b"", "more_body": False}

    return receive


class HTTPSTransport:
    """HTTP/1.1 over TLS on aiohttp, with a client certificate or a bearer token from a kubeconfig.

    Connections are kept and shared. It belongs to the event loop that first uses it; ``close`` it there.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._base = config.server.rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self._ssl: ssl.SSLContext | bool = True
        self._token = config.token
        self._token_read = float("-inf")

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            if self._base.startswith("https:"):
                self._ssl = ssl_context(self.config)
            connector = aiohttp.TCPConnector(limit=0, ssl=self._ssl, keepalive_timeout=90, socket_factory=_socket)
            none = aiohttp.ClientTimeout(total=None, sock_connect=10)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=none, auto_decompress=True, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def _arguments(
        self,
        path: str,
        query: Query,
        body: bytes | None,
        content_type: str,
        accept: str,
        headers: Mapping[str, str] | None,
    ) -> dict[str, Any]:
        import yarl

        sent = {"Accept": accept, "Accept-Encoding": "identity"}
        if body is not None:
            sent["Content-Type"] = content_type
        out: dict[str, Any] = {
            "url": yarl.URL(self._base + raw_target(path, query), encoded=True),
            "data": body,
            "headers": sent | self._authorization() | dict(headers or {}),
            "allow_redirects": False,
        }
        if self.config.tls_server_name:
            out["server_hostname"] = self.config.tls_server_name
        return out

    def _authorization(self) -> dict[str, str]:
        if self.config.token_file:
            now = asyncio.get_running_loop().time()
            if now - self._token_read > TOKEN_LIFE:
                # Projected tokens are replaced on disk long before they expire: read them again now and then.
                with open(self.config.token_file) as file:
                    self._token, self._token_read = file.read().strip(), now
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

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
        session = self._open()
        arguments = self._arguments(path, query, body, content_type, accept, headers)
        with _as_transport_error(method, path):
            async with asyncio.timeout(timeout), session.request(method, **arguments) as response:
                data = await response.read()
        if response.status == 401:
            self._token_read = float("-inf")
        return Response(response.status, {k.lower(): v for k, v in response.headers.items()}, data)

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
        session = self._open()
        arguments = self._arguments(path, query, body, content_type, accept, headers)
        with _as_transport_error(method, path):
            response = await session.request(method, read_bufsize=2**18, **arguments)
        try:
            yield _HTTPStream(response, f"{method} {path}")
        finally:
            response.close()

    @contextlib.asynccontextmanager
    async def websocket(
        self, path: str, *, query: Query = (), protocols: Sequence[str] = (), headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[WebSocket]:
        import aiohttp

        session = self._open()
        arguments = self._arguments(path, query, None, JSON, JSON, headers)
        del arguments["data"], arguments["allow_redirects"]
        arguments["headers"].pop("Accept-Encoding")
        try:
            with _as_transport_error("GET", path):
                socket = await session.ws_connect(protocols=protocols, max_msg_size=0, autoping=True, **arguments)
        except aiohttp.WSServerHandshakeError as error:
            # aiohttp throws the refusal's body away; the same request without the upgrade is refused the same way.
            answer = await self.request("GET", path, query=query, headers=headers, timeout=10)
            raise error_of(answer.status if answer.status >= 400 else error.status, answer.body) from None
        try:
            yield _HTTPWebSocket(socket)
        finally:
            await socket.close()

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()


class _HTTPStream:
    def __init__(self, response: aiohttp.ClientResponse, what: str) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = {k.lower(): v for k, v in response.headers.items()}
        self._response = response
        self._what = what

    async def chunks(self) -> AsyncIterator[bytes]:
        content = self._response.content
        while True:
            with _as_transport_error(self._what, ""):
                chunk = await content.readany()
            if not chunk:
                return
            yield chunk

    async def read(self) -> bytes:
        with _as_transport_error(self._what, ""):
            return await self._response.read()


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
def _as_transport_error(method: str, path: str) -> Any:
    import aiohttp

    try:
        yield
    except aiohttp.WSServerHandshakeError:
        raise
    except TimeoutError:
        raise TransportError(f"{method} {path}: timed out".replace("  ", " ")) from None
    except (aiohttp.ClientError, OSError, ConnectionError) as error:
        raise TransportError(f"{method} {path}: {error or type(error).__name__}".replace(" : ", ": ")) from error


def _socket(info: Any) -> socket.socket:
    """A TCP socket that notices a dead peer: unacknowledged data or keepalives for DEAD_AFTER seconds end it."""
    family, kind, proto = info[0], info[1], info[2]
    made = socket.socket(family, kind, proto)
    made.setblocking(False)
    if family in (socket.AF_INET, socket.AF_INET6):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_NODELAY", 1),
            ("TCP_KEEPIDLE", DEAD_AFTER // 2),
            ("TCP_KEEPINTVL", DEAD_AFTER // 6),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", DEAD_AFTER * 1000),
        ):
            if hasattr(socket, option):
                made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made


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
    """A transport to the cluster that a kubeconfig names."""
    if not config.server.startswith(("https://", "http://")):
        raise ValueError(f"not a server URL: {config.server!r}")
    if config.token_file:
        os.stat(config.token_file)
    return HTTPSTransport(config)
