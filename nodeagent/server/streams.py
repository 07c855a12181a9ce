"""exec and attach over WebSocket: the remote command protocol, versions v4 and v5.

Every message begins with its channel: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 terminal size; in v5 also
255, which closes the channel that its second byte names.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from typing import Any

from aiohttp import WSMsgType, web

from navarch.client.upgrade import keep_alive
from navarch.world import World
from nodeagent.runtime.runtime import Process, RuntimeError_

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
CHUNK = 32 * 1024
LAST_INPUT = 5.0  # seconds for a command to do with its input what it does, once the client has hung up


def exit_status(code: int, command: Sequence[str]) -> dict[str, Any]:
    """The Status that tells how the command ended."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failure(message: str) -> dict[str, Any]:
    return {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}


async def serve(
    request: web.Request, world: World, process: Process, command: Sequence[str], *, stdin: bool, tty: bool
) -> web.WebSocketResponse:
    """Connects a process to the client until the process ends or the client goes away."""
    socket = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=0)
    try:
        await socket.prepare(request)
        keep_alive(request.transport)
        # Tells the client that the streams are there, before the process says anything.
        await socket.send_bytes(bytes([STDOUT]))
        async with world.task_group() as group:
            reader = group.start(_until_gone(socket, process, stdin, tty), name="remote command input")
            output = group.start(_to_client(socket, process, tty), name="remote command output")
            ended = group.start(_finish(socket, process, command, output), name="remote command end")
            ended.add_done_callback(lambda _: group.cancel())
            reader.add_done_callback(lambda _: group.cancel())
    finally:
        await process.close()
        if socket.prepared and not socket.closed:
            await socket.close()
    return socket


async def _finish(socket: web.WebSocketResponse, process: Process, command: Sequence[str], output: Any) -> None:
    with contextlib.suppress(ConnectionError):
        try:
            code = await process.wait()
            await output  # everything that it said comes before its end
            status = exit_status(code, command)
        except RuntimeError_ as error:
            status = failure(error.message)
        await socket.send_bytes(bytes([ERROR]) + json.dumps(status).encode())
        await socket.close()


async def _to_client(socket: web.WebSocketResponse, process: Process, tty: bool) -> None:
    with contextlib.suppress(ConnectionError):
        async for stream, data in process.read():
            channel = STDOUT if tty else stream
            for start in range(0, len(data), CHUNK):
                await socket.send_bytes(bytes([channel]) + data[start : start + CHUNK])


async def _until_gone(socket: web.WebSocketResponse, process: Process, stdin: bool, tty: bool) -> None:
    """Reads what the client says until it hangs up. v4 has no other way to say that no more input comes: Ansible's copy
    sends a tar archive and is gone, and ``tar`` shall still get it all."""
    await _from_client(socket, process, stdin)
    if stdin and not tty:
        with contextlib.suppress(RuntimeError_, OSError, TimeoutError):
            await process.close_stdin()
            async with asyncio.timeout(LAST_INPUT):
                await process.wait()


async def _from_client(socket: web.WebSocketResponse, process: Process, stdin: bool) -> None:
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            data = message.data.encode()
        elif message.type == WSMsgType.BINARY:
            data = message.data
        else:
            continue
        if not data:
            continue
        channel, content = data[0], data[1:]
        with contextlib.suppress(RuntimeError_, OSError):
            if channel == STDIN and stdin and content:
                await process.write(content)
            elif channel == RESIZE and content:
                size = json.loads(content)
                await process.resize(int(size.get("Width", 0)), int(size.get("Height", 0)))
            elif channel == CLOSE and content[:1] == bytes([STDIN]) and stdin:
                await process.close_stdin()
