"""port-forward: connections to a pod's localhost, over SPDY (a pair of streams a connection) or plain WebSocket channels.

SPDY: the client opens an error stream and a data stream with the same request id for every connection it wants. Plain
WebSocket (the Python client): a data and an error channel for every port named in the query, one connection each.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable

from aiohttp import WSMsgType, web

from navarch.client.spdy.connection import Connection, Stream, StreamReset
from navarch.client.upgrade import hang_up, keep_alive
from navarch.world import World
from nodeagent.runtime.runtime import RuntimeError_
from nodeagent.server.upgrade import Spdy, agree

PROTOCOLS = ("portforward.k8s.io",)
CHANNELS = ("v4.channel.k8s.io",)
CHUNK = 32 * 1024
MAX_PORTS = 64

Connect = Callable[[int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def serve(request: web.Request, world: World, connect: Connect) -> web.StreamResponse:
    """Serves connections until the client hangs up."""
    response = Spdy(request, agree(request, PROTOCOLS))
    try:
        async with world.task_group() as group:
            reader = group.start(response.connection.run(), name="port-forward connection")
            reader.add_done_callback(lambda _: group.cancel())
            pairs: dict[str, dict[str, Stream]] = {}
            while (stream := await response.connection.accept()) is not None:
                pair = await _pair(response.connection, pairs, stream)
                if pair is not None:
                    group.start(_forward(response.connection, world, connect, pair), name="port-forward")
            # The client opens no more; what is open goes on until it hangs up.
    finally:
        await response.close()
    return response


async def _pair(
    connection: Connection, pairs: dict[str, dict[str, Stream]], stream: Stream
) -> dict[str, Stream] | None:
    """Puts a new stream to its other half; gives the pair once it is whole."""
    kind, port = stream.headers.get("streamtype", ""), stream.headers.get("port", "")
    number = stream.headers.get("requestid", "")
    if kind not in ("error", "data") or not port.isdigit() or not 0 < int(port) < 65536:
        await stream.reset()
        return None
    if not number:  # very old clients: the error stream comes first, the data stream next
        number = f"#{stream.number if kind == 'error' else stream.number - 2}"
    pair = pairs.setdefault(number, {})
    if kind in pair:
        await stream.reset()
        return None
    await connection.reply(stream)
    pair[kind] = stream
    return pairs.pop(number) if len(pair) == 2 else None


async def _forward(connection: Connection, world: World, connect: Connect, pair: dict[str, Stream]) -> None:
    data, error = pair["data"], pair["error"]
    port = int(data.headers["port"])
    try:
        reader, writer = await connect(port)
    except RuntimeError_ as failed:
        with contextlib.suppress(ConnectionError):
            await error.write(f"error forwarding port {port} to pod: {failed.message}".encode())
    else:
        try:
            async with world.task_group() as group:
                up = group.start(_up(data, writer), name="port-forward up")
                down = group.start(_down(reader, data), name="port-forward down")
                # A client that half-closes still gets the answer; a pod that closes, or a reset, ends it all.
                up.add_done_callback(lambda t: None if t.cancelled() or t.exception() or t.result() else group.cancel())
                down.add_done_callback(lambda _: group.cancel())
        finally:
            await hang_up(writer, 1.0)
    for stream in (data, error):
        stream.discard()
        with contextlib.suppress(ConnectionError):
            await stream.end()
        connection.forget(stream)


async def _up(stream: Stream, writer: asyncio.StreamWriter) -> bool:
    """Client to pod. True if it came to a proper end."""
    try:
        while data := await stream.read():
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        return True
    except StreamReset:
        return False
    except OSError:
        stream.discard()
        return True  # the pod takes no more, but may still answer


async def _down(reader: asyncio.StreamReader, stream: Stream) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            await stream.write(data)


# Plain WebSocket


def channel_ports(values: list[str]) -> list[int]:
    """The ports of a query, ``ports=80&ports=81`` or ``ports=80,81``. Raises HTTPBadRequest."""
    texts = [text for value in values for text in value.split(",")]
    if not texts or len(texts) > MAX_PORTS:
        raise web.HTTPBadRequest(text='query parameter "ports" is required')
    for text in texts:
        if not text.isdigit() or not 0 < int(text) < 65536:
            raise web.HTTPBadRequest(text=f'unable to parse "{text}" as a port')
    return [int(text) for text in texts]


async def serve_channels(request: web.Request, world: World, connect: Connect) -> web.StreamResponse:
    """Channel 2i carries the data of port i, 2i+1 its error; each first says its port, in two bytes."""
    ports = channel_ports(request.query.getall("ports", []))
    socket = web.WebSocketResponse(protocols=CHANNELS, max_msg_size=0)
    await socket.prepare(request)
    keep_alive(request.transport)
    writers: dict[int, asyncio.StreamWriter] = {}
    try:
        with contextlib.suppress(ConnectionError):
            for channel in range(2 * len(ports)):
                await socket.send_bytes(bytes([channel]) + struct.pack("<H", ports[channel // 2]))
            async with world.task_group() as group:
                readers = []
                for index, port in enumerate(ports):
                    try:
                        reader, writers[2 * index] = await connect(port)
                    except RuntimeError_ as failed:
                        text = f"error forwarding port {port} to pod: {failed.message}"
                        await socket.send_bytes(bytes([2 * index + 1]) + text.encode())
                    else:
                        readers.append(group.start(_channel_down(reader, socket, 2 * index), name="port-forward down"))
                up = group.start(_channels_up(socket, writers), name="port-forward up")
                up.add_done_callback(lambda _: group.cancel())
                if readers:
                    await asyncio.wait(readers)
                group.cancel()
    finally:
        for writer in writers.values():
            await hang_up(writer, 1.0)
        if not socket.closed:
            await socket.close()
    return socket


async def _channels_up(socket: web.WebSocketResponse, writers: dict[int, asyncio.StreamWriter]) -> None:
    async for message in socket:
        if message.type != WSMsgType.BINARY or not message.data:
            continue
        writer = writers.get(message.data[0])
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.write(message.data[1:])
                await writer.drain()


async def _channel_down(reader: asyncio.StreamReader, socket: web.WebSocketResponse, channel: int) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            await socket.send_bytes(bytes([channel]) + data)
