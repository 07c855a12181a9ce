"""SPDY frames, and streams over a socket."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.client.spdy import frames
from navarch.client.spdy.connection import AHEAD, Connection, StreamReset
from navarch.client.spdy.frames import Data, Decoder, Encoder, Frame
from navarch.world import RealWorld

names = st.text("abcdefghijklmnop-", min_size=1, max_size=12)
headers = st.dictionaries(names, st.text(max_size=20), max_size=5)
numbers = st.integers(1, 2**31 - 1)
some_frames = st.lists(
    st.one_of(
        st.builds(frames.SynStream, numbers, headers, st.booleans()),
        st.builds(frames.SynReply, numbers, headers, st.booleans()),
        st.builds(frames.MoreHeaders, numbers, headers, st.booleans()),
        st.builds(frames.Reset, numbers, st.integers(1, 11)),
        st.builds(Data, numbers, st.binary(max_size=300), st.booleans()),
        st.builds(frames.Ping, st.integers(0, 2**32 - 1)),
        st.builds(frames.GoAway, numbers),
    ),
    max_size=8,
)


def encode(encoder: Encoder, frame: Frame) -> bytes:
    match frame:
        case frames.SynStream(number, fields, fin):
            return encoder.syn_stream(number, fields, fin)
        case frames.SynReply(number, fields, fin):
            return encoder.syn_reply(number, fields, fin)
        case frames.MoreHeaders(number, fields, fin):
            return encoder.headers(number, fields, fin)
        case frames.Reset(number, status):
            return frames.reset(number, status)
        case Data(number, content, fin):
            return frames.data(number, content, fin)
        case frames.Ping(number):
            return frames.ping(number)
        case frames.GoAway(last):
            return frames.goaway(last)
    raise AssertionError(frame)


def joined(found: list[Frame]) -> list[Frame]:
    """Pieces of one data frame put together again."""
    out: list[Frame] = []
    whole = True
    for frame in found:
        if isinstance(frame, Data) and out and not whole:
            last = out.pop()
            assert isinstance(last, Data) and last.stream == frame.stream and not last.fin
            frame = Data(frame.stream, last.data + frame.data, frame.fin)
        out.append(frame)
        whole = not isinstance(frame, Data)
    return out


@settings(max_examples=80, deadline=None)
@given(some_frames, st.lists(st.integers(1, 40), max_size=30))
def test_frames_survive_the_wire_in_any_pieces(wanted: list[Frame], cuts: list[int]) -> None:
    encoder, decoder = Encoder(), Decoder()
    # A ping between data frames, so that pieces of one can be told from the next.
    told: list[Frame] = []
    for frame in wanted:
        told += [frame, frames.Ping(0)]
    wire = b"".join(encode(encoder, frame) for frame in told)
    found: list[Frame] = []
    for cut in cuts:
        found += decoder.feed(wire[:cut])
        wire = wire[cut:]
    found += decoder.feed(wire)
    assert joined(found) == told


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_nonsense_is_refused_cleanly(junk: bytes) -> None:
    try:
        Decoder().feed(junk)
    except frames.ProtocolError:
        pass


def test_the_dictionary_is_the_protocols() -> None:
    assert zlib.adler32(frames.DICTIONARY) == 0xE3C6A7C2
    assert Encoder().syn_reply(1, {})[12:18].hex() == "78bbe3c6a7c2"


def test_a_bomb_of_headers_is_refused() -> None:
    with pytest.raises(frames.ProtocolError, match="too large"):
        Decoder().feed(Encoder().syn_stream(1, {"x": "0" * (1 << 20)}))


def joined_by_a_socket(work: Callable[[Connection, Connection], Awaitable[None]]) -> None:
    """Runs ``work(client, server)`` on two connected ends."""
    world = RealWorld()

    async def main() -> None:
        ready: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        writers = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            ready.set_result(Connection(reader, writer, client=False))

        listener = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        writers.append(writer)
        client, server = Connection(reader, writer, client=True), await ready
        async with asyncio.timeout(20), world.task_group() as group:
            group.start(client.run())
            group.start(server.run())
            await work(client, server)
            for one in writers:
                one.close()
        listener.close()

    world.run(main)


def test_streams_both_ways() -> None:
    async def work(client: Connection, server: Connection) -> None:
        async def accept() -> None:
            stream = await server.accept()
            assert stream is not None and stream.headers == {"streamtype": "data", "port": "80"}
            await server.reply(stream)
            while data := await stream.read():
                await stream.write(data.upper())
            await stream.write(b"end")
            await stream.end()

        task = asyncio.ensure_future(accept())
        stream = await client.open({"streamType": "data", "port": "80"})
        await stream.write(b"x" * 100_000)
        await stream.end()
        received = b""
        while data := await stream.read():
            received += data
        assert received == b"X" * 100_000 + b"end"
        await task
        assert stream.finished

    joined_by_a_socket(work)


def test_a_slow_reader_stops_the_sender() -> None:
    async def work(client: Connection, server: Connection) -> None:
        async def accept() -> None:
            stream = await server.accept()
            assert stream is not None
            await server.reply(stream)
            accepted.set_result(stream)

        accepted = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(accept())
        stream = await client.open({})
        await task
        other = await accepted
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await stream.write(b"y" * 65536)
                sent += 65536

        flooding = asyncio.ensure_future(flood())
        before = -1
        while sent != before:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.1)
        assert AHEAD < sent < 64 << 20
        assert other._size < 2 * AHEAD
        flooding.cancel()
        await other.reset()  # lets go of what waits
        with pytest.raises(StreamReset):
            while await stream.read():
                pass

    joined_by_a_socket(work)


def test_a_lost_connection_ends_every_stream() -> None:
    async def work(client: Connection, server: Connection) -> None:
        async def accept() -> None:
            stream = await server.accept()
            assert stream is not None
            await server.reply(stream)

        task = asyncio.ensure_future(accept())
        stream = await client.open({})
        await task
        server._writer.close()
        with pytest.raises(StreamReset):
            await stream.read()
        with pytest.raises(ConnectionError):
            await client.open({})
        assert await client.accept() is None

    joined_by_a_socket(work)
