"""The HTTP client against servers that answer in every way HTTP/1.1 allows, and some that it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from navarch.client.http1 import BUFFER
from navarch.client.kubeconfig import Config
from navarch.client.transport import HTTPSTransport, TransportError
from navarch.world import RealWorld

OK = b"HTTP/1.1 200 OK\r\n"
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


def against(answer: Answer, test: Callable[[HTTPSTransport, list[bytes]], Awaitable[None]]) -> None:
    """Runs ``test`` against a server that calls ``answer(reader, writer, n)`` for the n-th request of a connection."""

    async def main() -> None:
        seen: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                n = 0
                while head := await reader.readuntil(b"\r\n\r\n"):
                    seen.append(head)
                    await answer(reader, writer, n)
                    await writer.drain()
                    n += 1
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        transport = HTTPSTransport(Config(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/base"))
        async with asyncio.timeout(20):
            await test(transport, seen)
        await transport.close()
        server.close()

    RealWorld().run(main)


def test_bodies_of_every_shape() -> None:
    shapes = [
        OK + b"Content-Length: 3\r\nX-A: 1\r\nx-a: 2\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        OK + b"Connection: close\r\n\r\nabc",
    ]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        for byte in range(0, len(shapes[n]), 7):  # in small pieces
            writer.write(shapes[n][byte : byte + 7])
            await asyncio.sleep(0)
        if n == len(shapes) - 1:
            raise ConnectionError

    async def test(transport: HTTPSTransport, seen: list[bytes]) -> None:
        answers = [await transport.request("GET", "/a b", query=[("q", "ü&")]) for _ in shapes]
        assert [a.body for a in answers] == [b"abc", b"abc", b"abc", b"", b"abc"]
        assert answers[0].headers["x-a"] == "1, 2"
        assert seen[0].startswith(b"GET /base/a%20b?q=%C3%BC%26 HTTP/1.1\r\n")
        with pytest.raises(ValueError):
            await transport.request("GET", "/", headers={"A": "b\r\nC: d"})

    against(answer, test)


def test_a_kept_connection_that_died_is_replaced_for_reads_only() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        if n == 1:
            raise ConnectionError  # the second request of every connection finds it closed
        writer.write(OK + b"Content-Length: 0\r\n\r\n")

    async def test(transport: HTTPSTransport, seen: list[bytes]) -> None:
        for _ in range(3):
            assert (await transport.request("GET", "/")).status == 200
        with pytest.raises(TransportError):
            await transport.request("POST", "/", body=b"")
        assert len(seen) == 6  # three GETs of which two were sent twice, one POST

    against(answer, test)


def test_what_breaks_is_an_error() -> None:
    kinds = [OK + b"Content-Length: 9\r\n\r\nabc", b"SSH-2.0-x\r\n\r\n", b"", OK[:8]]

    for broken in kinds:

        async def answer(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int, broken: bytes = broken
        ) -> None:
            writer.write(broken)
            raise ConnectionError

        async def test(transport: HTTPSTransport, seen: list[bytes]) -> None:
            with pytest.raises(TransportError):
                await transport.request("GET", "/")

        against(answer, test)


def test_a_stream_is_read_as_it_comes_and_held_back() -> None:
    size = 40 * BUFFER
    sent = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        nonlocal sent
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % size)
        sent = 0
        while sent < size:
            writer.write(b"x" * BUFFER)
            await writer.drain()
            sent += BUFFER

    async def test(transport: HTTPSTransport, seen: list[bytes]) -> None:
        async with transport.stream("GET", "/") as stream:
            got = 0
            async for chunk in stream.chunks():
                if not got:
                    await asyncio.sleep(0.2)
                    assert sent < size, "the server could send everything to a reader that does not read"
                got += len(chunk)
            assert got == size
        async with transport.stream("GET", "/") as stream:
            pass  # hung up in the middle; the next request gets another connection
        assert (await transport.request("GET", "/")).status == 200

    against(answer, test)


def test_timeouts() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        await reader.read()

    async def test(transport: HTTPSTransport, seen: list[bytes]) -> None:
        with pytest.raises(TransportError, match="timed out"):
            await transport.request("GET", "/", timeout=0.05)

    against(answer, test)
