"""exec and attach over SPDY: a stream each for stdin, stdout, stderr, the terminal's size, and the final Status."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from navarch.client.spdy.connection import Connection, Stream
from navarch.world import World
from nodeagent.runtime.runtime import Process, RuntimeError_
from nodeagent.server.streams import exit_status, failure
from nodeagent.server.upgrade import Spdy, agree

PROTOCOLS = ("v4.channel.k8s.io",)
OPEN_TIMEOUT = 30.0  # seconds for the client to open its streams
LINGER = 5.0  # seconds for the client to hang up once it has everything


async def serve(
    request: web.Request,
    world: World,
    begin: Callable[[], Awaitable[Process]],
    command: Sequence[str],
    kinds: Sequence[str],
) -> web.StreamResponse:
    """Runs a process for the client until either ends. ``kinds``: which of stdin, stdout, stderr, resize it will open."""
    response = Spdy(request, agree(request, PROTOCOLS))
    connection = response.connection
    try:
        async with world.task_group() as group:
            reader = group.start(connection.run(), name="remote command connection")
            work = group.start(_work(world, connection, begin, command, kinds), name="remote command")
            reader.add_done_callback(lambda _: work.cancel())
            work.add_done_callback(lambda _: group.cancel())
    finally:
        await response.close()
    return response


async def _work(
    world: World,
    connection: Connection,
    begin: Callable[[], Awaitable[Process]],
    command: Sequence[str],
    kinds: Sequence[str],
) -> None:
    with contextlib.suppress(ConnectionError, TimeoutError):
        streams = await _accept(connection, {"error", *kinds})
        if streams is None:
            return
        try:
            process = await begin()
        except RuntimeError_ as error:
            await _end(connection, streams, failure(error.message))
            return
        try:
            async with world.task_group() as group:
                if "stdin" in streams:
                    group.start(_stdin(streams["stdin"], process), name="remote command input")
                if "resize" in streams:
                    group.start(_resize(streams["resize"], process), name="remote command size")
                output = group.start(_output(streams, process), name="remote command output")
                try:
                    code = await process.wait()
                    await output  # everything that it said comes before its end
                    status = exit_status(code, command)
                except RuntimeError_ as error:
                    status = failure(error.message)
                group.cancel()
            await _end(connection, streams, status)
        finally:
            await process.close()


async def _accept(connection: Connection, kinds: set[str]) -> dict[str, Stream] | None:
    """The streams by their type; None if the client left. Raises TimeoutError."""
    streams: dict[str, Stream] = {}
    async with asyncio.timeout(OPEN_TIMEOUT):
        while not kinds <= streams.keys():
            stream = await connection.accept()
            if stream is None:
                return None
            kind = stream.headers.get("streamtype", "")
            if kind not in kinds or kind in streams:
                await stream.reset()
                continue
            await connection.reply(stream)
            streams[kind] = stream
    return streams


async def _end(connection: Connection, streams: dict[str, Stream], status: dict[str, object]) -> None:
    """Tells how it ended, and waits for the client to hang up: cut off earlier, it might miss something."""
    for kind in ("stdout", "stderr"):
        if kind in streams:
            await streams[kind].end()
    await streams["error"].write(json.dumps(status).encode())
    for stream in streams.values():
        stream.discard()
        await stream.end()
    await connection.go_away()
    async with asyncio.timeout(LINGER):
        while not connection.ended:
            await connection.accept()


async def _stdin(stream: Stream, process: Process) -> None:
    with contextlib.suppress(RuntimeError_, OSError):
        while data := await stream.read():
            await process.write(data)
        await process.close_stdin()


async def _resize(stream: Stream, process: Process) -> None:
    """Sizes come as JSON objects one after the other, cut anywhere."""
    decoder, text = json.JSONDecoder(), ""
    with contextlib.suppress(RuntimeError_, OSError):
        while data := await stream.read():
            text = (text + data.decode("utf-8", "replace")).lstrip()
            while text:
                try:
                    size, used = decoder.raw_decode(text)
                except ValueError:
                    break
                text = text[used:].lstrip()
                if isinstance(size, dict):
                    await process.resize(int(size.get("Width", 0)), int(size.get("Height", 0)))
            if len(text) > 1024:
                return


async def _output(streams: dict[str, Stream], process: Process) -> None:
    with contextlib.suppress(ConnectionError):
        async for number, data in process.read():
            # With a terminal there is only stdout.
            stream = streams.get("stderr" if number == 2 and "resize" not in streams else "stdout")
            if stream is not None:
                await stream.write(data)
