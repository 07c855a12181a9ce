"""A client that costs little, so that what is measured is the server: HTTP/1.1 with kept connections, written by hand.

Knows nothing of navarch: it speaks to any Kubernetes-compatible API server.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import resource
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import yaml

from bench.servers import cpu_seconds

_LENGTH = re.compile(rb"content-length: *(\d+)")
JSON = "application/json"


class Connection(asyncio.Protocol):
    """One connection, one request at a time. A ``stream`` gets the raw bytes of a reply without end."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.stream: Callable[[bytes], None] | None = None
        self.closed = False
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._status = 0  # of the reply that has begun
        self._need = -1  # bytes of its body that are still to come; -1 for chunks
        self._chunks: list[bytes] = []
        self.whole = True  # else only the ends of a large body are kept, which costs less than to put it together

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("closed"))

    def send(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Status and body, once they are there."""
        self._answer = asyncio.get_running_loop().create_future()
        self._status, self._chunks = 0, []
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        if self.stream is not None and self._status:
            self.stream(data)
            return
        if self._status and self._need > 0:
            self._take(data)
            return
        buffer = self._buffer
        buffer += data
        if not self._status:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(buffer[:end]).lower()
            del buffer[: end + 4]
            self._status = int(head[9:12])
            length = _LENGTH.search(head)
            self._need = int(length[1]) if length else -1 if b"transfer-encoding: chunked" in head else 0
            if self.stream is not None:
                rest = bytes(buffer)
                buffer.clear()
                self._done(b"")
                if rest:
                    self.stream(rest)
                return
        if self._need < 0:
            self._take_chunks(buffer)
        else:
            data = bytes(buffer)
            buffer.clear()
            self._take(data)

    def _take(self, data: bytes) -> None:
        self._need -= len(data)
        self._chunks.append(data)
        if not self.whole and len(self._chunks) > 2:
            del self._chunks[1]
        if self._need <= 0:
            self._done(b"".join(self._chunks))

    def _take_chunks(self, buffer: bytearray) -> None:
        at = 0
        while (line := buffer.find(b"\r\n", at)) >= 0:
            size = int(bytes(buffer[at:line]).split(b";")[0], 16)
            if len(buffer) < line + 4 + size:
                break
            self._chunks.append(bytes(buffer[line + 2 : line + 2 + size]))
            at = line + 4 + size
            if not size:
                del buffer[:at]
                self._done(b"".join(self._chunks))
                return
        del buffer[:at]

    def _done(self, body: bytes) -> None:
        assert self._answer is not None
        self._answer.set_result((self._status, body))

    def close(self) -> None:
        self.stream = None
        self.transport.close()


class Target:
    """Where the server is, and who asks: a kubeconfig's current context, with a client certificate or a token."""

    def __init__(self, kubeconfig: Path) -> None:
        self._folder = kubeconfig.parent
        config = yaml.safe_load(kubeconfig.read_text())
        context = _named(config["contexts"], config["current-context"], "context")
        cluster, user = (
            _named(config["clusters"], context["cluster"], "cluster"),
            _named(config["users"], context["user"], "user"),
        )
        self._url = urlsplit(cluster["server"])
        self._token = user.get("token", "")
        self._tls: ssl.SSLContext | None = None
        if self._url.scheme == "https":
            self._tls = ssl.create_default_context(cafile=self._file(cluster, "certificate-authority"))
            certificate = self._file(user, "client-certificate")
            if certificate:
                self._tls.load_cert_chain(certificate, self._file(user, "client-key"))
        self._one: Connection | None = None

    def _file(self, entry: dict[str, str], key: str) -> str | None:
        if data := entry.get(key + "-data"):
            number, name = tempfile.mkstemp()
            os.write(number, base64.b64decode(data))
            os.close(number)
            return name
        return str(self._folder / entry[key]) if entry.get(key) else None

    async def connect(self) -> Connection:
        port = self._url.port or (443 if self._tls else 80)
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, self._url.hostname, port, ssl=self._tls
        )
        return connection

    def request(self, method: str, path: str, body: Any = None, content_type: str = JSON) -> bytes:
        """The bytes of a request."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._url.netloc}\r\nAccept: {JSON}\r\nUser-Agent: bench\r\n"
        if self._token:
            head += f"Authorization: Bearer {self._token}\r\n"
        if body is None:
            return head.encode() + b"\r\n"
        data = orjson.dumps(body)
        return f"{head}Content-Type: {content_type}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data

    async def ask(self, method: str, path: str, body: Any = None, content_type: str = JSON) -> tuple[int, Any]:
        """One request by the way, on a connection kept for that: status and tree."""
        if self._one is None or self._one.closed:
            self._one = await self.connect()
        status, data = await self._one.send(self.request(method, path, body, content_type))
        return status, orjson.loads(data) if data[:1] == b"{" else data


def _named(entries: list[dict[str, Any]], name: str, field: str) -> Any:
    return next(entry for entry in entries if entry["name"] == name)[field]


class Meter:
    """Elapsed time and CPU time of the server's processes while its ``with`` lasts; ``calls`` is set by who uses it."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self.wall = self.client = 0.0
        self.cpu: dict[str, float] = {}
        self.calls = 1
        self.latencies: list[float] = []

    def __enter__(self) -> Meter:
        self._before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        self._client, self._began = _own_cpu(), time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall, self.client = time.perf_counter() - self._began, _own_cpu() - self._client
        self.cpu = {name: cpu_seconds(pid) - self._before[name] for name, pid in self._pids.items()}

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.wall

    def each(self, process: str) -> float:
        """CPU milliseconds of a process a call."""
        return 1000 * self.cpu.get(process, 0.0) / self.calls


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def pump(target: Target, pids: dict[str, int], requests: Iterable[bytes], at_once: int) -> Meter:
    """Sends all requests over ``at_once`` connections. Raises RuntimeError for an answer of 300 or more."""
    connections = [await target.connect() for _ in range(at_once)]
    todo, meter = iter(requests), Meter(pids)

    async def work(connection: Connection) -> None:
        for request in todo:
            began = time.perf_counter()
            status, body = await connection.send(request)
            meter.latencies.append(time.perf_counter() - began)
            if status >= 300:
                raise RuntimeError(f"{request[:100]!r}: {status} {body[:300]!r}")

    with meter:
        await asyncio.gather(*(work(connection) for connection in connections))
    meter.calls = len(meter.latencies)
    for connection in connections:
        connection.close()
    return meter
