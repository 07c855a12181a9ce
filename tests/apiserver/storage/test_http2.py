"""What a server may send but etcd rarely does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hpack import Encoder

from apiserver.storage import http2
from apiserver.storage.grpc_channel import Channel, RpcError
from apiserver.storage.http2 import frame
from navarch.world import RealWorld

OK = [(":status", "200"), ("content-type", "application/grpc")]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


def talk(folder: Path, serve: Serve, test: Callable[[Channel], Awaitable[None]]) -> None:
    """Runs ``test`` against a server that calls ``serve`` with the number of each request, once it came whole."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(24)
            while True:
                head = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == http2.DATA and head[4] & http2.END_STREAM:
                    await serve(reader, writer, int.from_bytes(head[5:], "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        server = await asyncio.start_unix_server(connected, folder / "s")
        channel = Channel(f"unix:{folder}/s")
        async with asyncio.timeout(5):
            await test(channel)
        channel.close()
        server.close()

    RealWorld().run(main)


def test_split_and_padded_frames(tmp_path: Path) -> None:
    encoder = Encoder()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: int) -> None:
        head, tail = encoder.encode(OK), encoder.encode([("grpc-status", "0"), ("grpc-message", "")])
        message = b"\0" + (5).to_bytes(4, "big") + b"hello"
        out = frame(http2.SETTINGS, 0, 0, b"\0\x05" + (20000).to_bytes(4, "big")) + frame(http2.PING, 0, 0, b"12345678")
        out += frame(http2.HEADERS, http2.PADDED | http2.PRIORITY, stream, b"\x03" + b"\0" * 5 + head[:2] + b"\0" * 3)
        out += frame(http2.CONTINUATION, http2.END_HEADERS, stream, head[2:])
        out += frame(http2.DATA, http2.PADDED, stream, b"\x02" + message[:3] + b"\0\0")
        out += b"".join(frame(http2.DATA, 0, stream, message[n : n + 1]) for n in range(3, len(message)))
        out += frame(77, 0, stream, b"an unknown frame") + frame(http2.WINDOW_UPDATE, 0, 0, (50_005).to_bytes(4, "big"))
        out += frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, stream, tail)
        for n in range(0, len(out), 7):
            writer.write(out[n : n + 7])
            await asyncio.sleep(0)

    async def test(channel: Channel) -> None:
        for _ in range(3):
            assert await channel.unary("/a/b", b"x" * 50_000, 5, True) == b"hello"

    talk(tmp_path, serve, test)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda n: frame(http2.HEADERS, 5, n, Encoder().encode([*OK, ("grpc-status", "5"), ("grpc-message", "a%20b")])), "a b"),
        (lambda n: frame(http2.HEADERS, 5, n, Encoder().encode([(":status", "503")])), "unexpected answer"),
        (lambda n: frame(http2.HEADERS, 4, n, b"\xff\xff\xff\xff\xff"), "broke the protocol"),
        (lambda n: frame(http2.RST_STREAM, 0, n, (7).to_bytes(4, "big")), "reset the stream with code 7"),
        (lambda n: frame(http2.GOAWAY, 0, 0, bytes(8)), "going away"),
        (lambda n: b"", "no answer within"),
    ],
)  # fmt: skip
def test_errors_and_a_new_connection_after_them(tmp_path: Path, answer: Callable[[int], bytes], text: str) -> None:
    bad: list[Any] = [answer]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: int) -> None:
        if bad:
            writer.write(bad.pop()(stream))
            return
        # A new encoder for each answer: it never refers to what an earlier one put into the table.
        writer.write(frame(http2.HEADERS, 4, stream, Encoder().encode(OK)))
        writer.write(frame(http2.DATA, 0, stream, b"\0\0\0\0\0"))
        writer.write(frame(http2.HEADERS, 5, stream, Encoder().encode([("grpc-status", "0")])))

    async def test(channel: Channel) -> None:
        with pytest.raises(RpcError, match=text):
            await channel.unary("/a/b", b"", 0.2, True)
        assert await channel.unary("/a/b", b"", 2, True) == b""

    talk(tmp_path, serve, test)
