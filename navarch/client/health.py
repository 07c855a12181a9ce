"""A component's /healthz, /livez, /readyz and /metrics, on a loopback address or a unix socket.

A handful of GET pages of a few kilobytes: HTTP/1.1 with ``Connection: close`` on asyncio's streams, and no library that
would cost every component megabytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

log = logging.getLogger(__name__)

Address = tuple[str, int] | str
Page = tuple[int, str, bytes]
"""(status, content type, body)"""
Handler = Callable[[str], Page]
"""Called with the query string."""

Gate = Callable[[str, Mapping[str, str]], Awaitable[tuple[int, str]]]
"""(path, headers by lower-case names) -> 200 if the page may be given, else the status and why."""

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
TEXT = "text/plain; charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8"
REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip
MAX_HEAD = 16 * 1024  # bytes of a request's head
PATIENCE = 10.0  # seconds that a client has to ask


def parse_address(text: str) -> Address:
    """``127.0.0.1:PORT`` as (host, port), or a socket's path. Raises ValueError for addresses others could reach."""
    if "/" in text:
        return text.removeprefix("unix:")
    host, _, port = text.rpartition(":")
    if host not in LOOPBACK or not port.isdigit():
        raise ValueError(f"{text!r} is neither a loopback HOST:PORT nor the path of a socket")
    return host.strip("[]"), int(port)


def text_page(text: str, status: int = 200) -> Page:
    return status, TEXT, text.encode()


def health_pages(ready: Callable[[], str], metrics: Callable[[], bytes] | None = None) -> dict[str, Handler]:
    """The usual pages. ``ready`` says what is missing, "" when nothing is."""

    def alive(query: str) -> Page:
        return text_page("ok")

    def readiness(query: str) -> Page:
        missing = ready()
        return text_page(missing, 500) if missing else text_page("ok")

    pages: dict[str, Handler] = {"/healthz": alive, "/livez": alive, "/readyz": readiness}
    if metrics is not None:
        pages["/metrics"] = lambda query: (200, METRICS, metrics())
    return pages


@contextlib.asynccontextmanager
async def serving(pages: Mapping[str, Handler], address: Address, gate: Gate | None = None) -> AsyncIterator[Address]:
    """Serves while the context lasts; gives the address, with the port that port 0 became. ``gate`` is asked before a page
    is given to a client that came over TCP; who can open the socket's file may read all."""
    guarded = None if isinstance(address, str) else gate

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *rest = head.split("\r\n")
                refused = await _refused(guarded, first, rest) if guarded else None
                status, kind, body = refused or _answer(pages, first)
                reason = REASONS.get(status, "")
                writer.write(
                    f"HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    if isinstance(address, str):
        server = await asyncio.start_unix_server(client, address, limit=MAX_HEAD)
    else:
        server = await asyncio.start_server(client, *address, limit=MAX_HEAD)
        address = server.sockets[0].getsockname()[:2]
    async with server:
        yield address


async def _refused(gate: Gate, request_line: str, lines: Sequence[str]) -> Page | None:
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    path = request_line.partition(" ")[2].partition(" ")[0].partition("?")[0]
    status, why = await gate(path, headers)
    return None if status == 200 else text_page(why, status)


def _answer(pages: Mapping[str, Handler], request_line: str) -> Page:
    parts = request_line.split(" ")
    if len(parts) != 3:
        return text_page("bad request", 400)
    method, target, _ = parts
    path, _, query = target.partition("?")
    handler = pages.get(path)
    if handler is None:
        return text_page("404 page not found", 404)
    if method != "GET":
        return text_page("only GET is allowed", 405)
    try:
        return handler(query)
    except Exception as error:
        log.exception("%s", path)
        return text_page(f"{type(error).__name__}: {error}", 500)
