"""exec and port-forward of the agent's server, over SPDY and WebSocket channels, as its clients see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from navarch.api.errors import StatusError
from navarch.client.kubeconfig import Config
from navarch.client.spdy.connection import Connection
from navarch.client.transport import HTTPSTransport
from navarch.world import RealWorld
from nodeagent.runtime.runtime import RuntimeError_
from nodeagent.server import portforward, remotecommand

WORLD = RealWorld()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Echo:
    """A process that says back what it is told, and ends with code 4 when its input ends."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.sizes: list[tuple[int, int]] = []
        self.ended, self.closed = asyncio.Event(), False

    async def write(self, data: bytes) -> None:
        self.queue.put_nowait(data)

    async def close_stdin(self) -> None:
        self.queue.put_nowait(b"")

    async def read(self) -> AsyncIterator[tuple[int, bytes]]:
        while data := await self.queue.get():
            yield (2 if data.startswith(b"!") else 1), data
        self.ended.set()

    async def resize(self, width: int, height: int) -> None:
        self.sizes.append((width, height))

    async def wait(self) -> int:
        await self.ended.wait()
        return 4

    async def close(self) -> None:
        self.closed = True


def serving(handler: Handler, test: Callable[[HTTPSTransport], Awaitable[None]]) -> None:
    """Runs ``test`` against a server with one handler; everything must have ended when it is over."""

    async def main() -> None:
        app = web.Application()
        app.router.add_route("*", "/", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        transport = HTTPSTransport(Config(server=f"http://127.0.0.1:{runner.addresses[0][1]}"))
        before = asyncio.all_tasks()
        try:
            async with asyncio.timeout(20):
                await test(transport)
                # No task outlives its connection.
                while {t for t in asyncio.all_tasks() - before if t.get_name() != "keep" and _ours(t)}:
                    await asyncio.sleep(0.01)
        finally:
            await transport.close()
            await runner.cleanup()

    WORLD.run(main)


def _ours(task: asyncio.Task[object]) -> bool:
    return task.get_name().startswith(("remote command", "port-forward"))


VERSION = "X-Stream-Protocol-Version"


def test_exec_over_spdy() -> None:
    process = Echo()

    async def handler(request: web.Request) -> web.StreamResponse:
        async def begin() -> Echo:
            return process

        return await remotecommand.serve(request, WORLD, begin, ["x"], ["stdin", "stdout", "stderr"])

    async def test(transport: HTTPSTransport) -> None:
        with pytest.raises(StatusError, match="unable to negotiate protocol"):
            async with transport.upgrade("POST", "/", protocol="SPDY/3.1", headers={VERSION: "v9"}):
                pass
        offers = {VERSION: "v5.channel.k8s.io,v4.channel.k8s.io, v3.channel.k8s.io"}
        async with (
            transport.upgrade("POST", "/", protocol="SPDY/3.1", headers=offers) as up,
            WORLD.task_group() as group,
        ):
            assert up.headers["x-stream-protocol-version"] == "v4.channel.k8s.io"
            connection = Connection(up.reader, up.writer, client=True)
            running = group.start(connection.run())
            error, stdin, out, err = [
                await connection.open({"streamType": kind}) for kind in ("error", "stdin", "stdout", "stderr")
            ]
            await error.end()
            await stdin.write(b"hello")
            assert await out.read() == b"hello"
            await stdin.write(b"!oops")
            assert await err.read() == b"!oops"
            await stdin.end()
            assert await out.read() == b"" and await err.read() == b""
            status = json.loads(await error.read())
            assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "4"}]
            assert await error.read() == b""
            up.writer.close()
            await running

    serving(handler, test)
    assert process.closed


def test_a_terminal_over_spdy_and_a_client_that_vanishes() -> None:
    process = Echo()

    async def handler(request: web.Request) -> web.StreamResponse:
        async def begin() -> Echo:
            return process

        return await remotecommand.serve(request, WORLD, begin, ["x"], ["stdin", "stdout", "resize"])

    async def test(transport: HTTPSTransport) -> None:
        offers = {VERSION: "v4.channel.k8s.io"}
        async with (
            transport.upgrade("POST", "/", protocol="SPDY/3.1", headers=offers) as up,
            WORLD.task_group() as group,
        ):
            connection = Connection(up.reader, up.writer, client=True)
            running = group.start(connection.run())
            _, stdin, out, resize = [
                await connection.open({"streamType": kind}) for kind in ("error", "stdin", "stdout", "resize")
            ]
            await resize.write(b'{"Width":80,"Height":24}\n{"Width":100,')
            await resize.write(b'"Height":30}\n')
            await stdin.write(b"x")
            assert await out.read() == b"x"
            while len(process.sizes) < 2:
                await asyncio.sleep(0.01)
            assert process.sizes == [(80, 24), (100, 30)]
            up.writer.close()
            await running
        while not process.closed:
            await asyncio.sleep(0.01)

    serving(handler, test)


async def pod(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What listens in the pod: answers once the client has said all."""
    said = await reader.read()
    writer.write(said.upper())
    writer.close()


async def forwarding(handle: Callable[..., Awaitable[web.StreamResponse]], request: web.Request) -> web.StreamResponse:
    listener = await asyncio.start_server(pod, "127.0.0.1", 0)

    async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if port != 80:
            raise RuntimeError_("PortForwardError", "connection refused")
        return await asyncio.open_connection(*listener.sockets[0].getsockname())

    try:
        return await handle(request, WORLD, connect)
    finally:
        listener.close()


def test_port_forward_over_spdy() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await forwarding(portforward.serve, request)

    async def test(transport: HTTPSTransport) -> None:
        offers = {VERSION: "portforward.k8s.io"}
        async with (
            transport.upgrade("POST", "/", protocol="SPDY/3.1", headers=offers) as up,
            WORLD.task_group() as group,
        ):
            connection = Connection(up.reader, up.writer, client=True)
            running = group.start(connection.run())

            async def one(number: int, port: int, text: bytes) -> tuple[bytes, bytes]:
                about = {"port": str(port), "requestID": str(number)}
                error = await connection.open({"streamType": "error", **about})
                await error.end()
                data = await connection.open({"streamType": "data", **about})
                await data.write(text)
                await data.end()  # half closed: the answer still comes
                said = b""
                while piece := await data.read():
                    said += piece
                wrong = await error.read()
                return said, wrong

            big = b"z" * 500_000
            first, second, third = await asyncio.gather(one(0, 80, b"one"), one(1, 80, big), one(2, 81, b""))
            assert first == (b"ONE", b"") and second == (big.upper(), b"")
            assert third[0] == b"" and b"error forwarding port 81" in third[1]
            assert not connection._streams, "both sides are done with every stream"
            up.writer.close()
            await running

    serving(handler, test)


def test_port_forward_over_channels() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await forwarding(portforward.serve_channels, request)

    async def test(transport: HTTPSTransport) -> None:
        url = transport.config.server
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{url}/?ports=81,80", protocols=portforward.CHANNELS) as socket:
                heads = [await socket.receive_bytes() for _ in range(4)]
                assert heads == [b"\x00\x51\x00", b"\x01\x51\x00", b"\x02\x50\x00", b"\x03\x50\x00"]
                assert (await socket.receive_bytes()).startswith(b"\x01error forwarding port 81")
                await socket.send_bytes(b"\x02hello")
            async with session.get(f"{url}/?ports=0") as refused:
                assert refused.status == 400

    serving(handler, test)
