"""Requests over HTTP to a service of a real lab, made by a process of their own from inside the nodes' networks.

The process stays in the machine's namespaces; each connection is made in the network namespace of a node, of which one after
another has its turn, as clients in pods would be anywhere. So every node's proxy is asked, with what it knows at that moment. A
node that is off or cut off sends nothing. Requests begin when the shape of the load says, however slow answers are.

The first line on standard input is the order (``Order``); further ones are ``{"inits": {node: pid}}``, from now on these nodes,
or ``{"rate": text}``. Each second a line comes back, ``{"t": monotonic time, "values": {...}}``, as lab/experiments/load.py
samples them: requests that were answered, or failed, in this second. The process ends when its input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from lab.experiments import load as loads
from navarch.linux.syscalls import CLONE_NEWNET, setns
from navarch.world import RealWorld, TaskGroup, World, chance

MAX_HEAD = 1 << 16  # bytes
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Order(msgspec.Struct):
    """``address``: of the service. ``seconds``: 0 is until the end. ``clients``: so many, each of which keeps its connection
    until a request on it fails; 0: a new one for each request. ``node``: the only one to send from; "": all in turn."""

    address: str
    port: int
    rate: str
    timeout: float
    seed: str
    inits: dict[str, int]
    path: str = "/"
    seconds: float = 0.0
    clients: int = 0
    retries: int = 0
    backoff: float = 0.0
    node: str = ""


class Nodes:
    """The network namespaces from which requests are made, in turn. None: from here."""

    def __init__(self, inits: dict[str, int]) -> None:
        self._own = os.open("/proc/self/ns/net", os.O_RDONLY) if inits else -1
        self._turn = 0
        self._files: dict[str, int] = {}
        self.inits: dict[str, int] = {}
        self.anywhere = not inits
        self.change(inits)

    def change(self, inits: dict[str, int]) -> None:
        for name in [n for n, pid in self.inits.items() if inits.get(n) != pid]:
            os.close(self._files.pop(name))
        for name, pid in inits.items():
            if name not in self._files:
                self._files[name] = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        self.inits = dict(inits)

    def next(self) -> str:
        """The name of the node whose turn it is; "" if there is none."""
        names = list(self._files)
        self._turn += 1
        return names[self._turn % len(names)] if names else ""

    def has(self, node: str) -> bool:
        return self.anywhere or node in self._files

    def socket(self, node: str) -> socket.socket:
        """A TCP socket of the node's. Raises OSError if there is no such node."""
        if self.anywhere:
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if not self.has(node):
            raise OSError("no node to send from")
        with self._inside(node):
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    @contextlib.contextmanager
    def _inside(self, node: str) -> Iterator[None]:
        setns(self._files[node], CLONE_NEWNET)
        try:
            yield
        finally:
            setns(self._own, CLONE_NEWNET)


class HTTPLoad:
    """One load. ``answers`` are the latencies of the requests that ended since the last sample, tries and waits between them
    included; None: it failed."""

    def __init__(self, order: Order, nodes: Nodes, world: World) -> None:
        self.order, self.nodes, self.world = order, nodes, world
        self.answers: list[float | None] = []
        self.retries = 0
        self.chance = chance(order.seed)
        self.change(order.rate)
        self._connections: dict[int, tuple[str, Streams]] = {}  # by client that keeps one: of which node

    def change(self, rate: str) -> None:
        """From now on: another rate, or a shape that begins now."""
        self.shape, self.began = loads.rate(rate), self.world.monotonic()
        self.due = self.began + self.chance.expovariate(self.shape.peak)

    async def run(self, group: TaskGroup) -> None:
        """Begins requests until the load is over."""
        world, end = self.world, self.world.monotonic() + (self.order.seconds or math.inf)
        while self.due < end:
            await world.sleep(min(0.5, max(0.0, self.due - world.monotonic())))
            if (due := self.due) > world.monotonic():
                continue  # not yet, or the rate was changed meanwhile
            shape, draw = self.shape, self.chance
            self.due += draw.expovariate(shape.peak)
            if (part := shape.at(due - self.began) / shape.peak) < 1.0 and draw.random() >= part:
                continue  # of more requests than there are, so many are left out that the rate is right
            client = draw.randrange(self.order.clients) if self.order.clients else None
            group.start(self._request(client))

    def sample(self) -> Mapping[str, float]:
        """The record of the time since the last one."""
        answers, retries = self.answers, self.retries
        self.answers, self.retries = [], 0
        return loads.sample(answers, retries)

    async def _request(self, client: int | None) -> None:
        began = self.world.monotonic()
        for number in range(self.order.retries + 1):
            if number:
                await self.world.sleep(self.order.backoff)
                self.retries += 1
            try:
                async with asyncio.timeout(self.order.timeout):
                    if await self._exchange(client):
                        self.answers.append(self.world.monotonic() - began)
                        return
            except (OSError, TimeoutError, EOFError, ValueError):
                pass  # this try failed
        self.answers.append(None)

    async def _exchange(self, client: int | None) -> bool:
        """One request and its answer: whether the status is below 400. Raises OSError, EOFError, ValueError."""
        node, streams = await self._connection(client)
        reader, writer = streams
        keep = False
        try:
            order = self.order
            wish = "close" if client is None else "keep-alive"
            writer.write(f"GET {order.path} HTTP/1.1\r\nHost: {order.address}\r\nConnection: {wish}\r\n\r\n".encode())
            status, length, closes = read_head(await reader.readuntil(b"\r\n\r\n"))
            if length is None:
                await reader.read()  # to the end of the connection
            else:
                await reader.readexactly(length)
            keep = client is not None and length is not None and not closes
            return status < 400
        finally:
            if keep and client is not None and client not in self._connections:
                self._connections[client] = node, streams
            else:
                writer.close()

    async def _connection(self, client: int | None) -> tuple[str, Streams]:
        """The one that a client has kept and does not use just now, else a new one."""
        if client is not None and client in self._connections:
            node, streams = self._connections.pop(client)
            if self.nodes.has(node) and not streams[0].at_eof():
                return node, streams
            streams[1].close()
        node = self.order.node or self.nodes.next()
        return node, await self._connect(node)

    async def _connect(self, node: str) -> Streams:
        one = self.nodes.socket(node)
        try:
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, (self.order.address, self.order.port))
            return await asyncio.open_connection(sock=one, limit=MAX_HEAD)
        except BaseException:
            one.close()
            raise


def read_head(head: bytes) -> tuple[int, int | None, bool]:
    """Status, length of the body (None: up to the end of the connection), and whether the server closes. Raises ValueError."""
    lines = head.decode("latin-1").lower().split("\r\n")
    words = lines[0].split()
    if len(words) < 2 or not words[0].startswith("http/1") or not words[1].isdigit():
        raise ValueError(f"no HTTP: {lines[0][:60]!r}")
    fields = dict(line.partition(":")[::2] for line in lines[1:] if line)
    length = fields.get("content-length", "").strip()
    return int(words[1]), int(length) if length else None, "close" in fields.get("connection", "")


async def serve(world: World) -> None:
    loop = asyncio.get_running_loop()
    requests = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    order = msgspec.json.decode(await requests.readline(), type=Order)
    load = HTTPLoad(order, Nodes(order.inits), world)

    async def orders() -> None:
        while line := await requests.readline():
            news = json.loads(line)
            if "rate" in news:
                load.change(news["rate"])
            else:
                load.nodes.change(news["inits"])
        group.cancel()

    async def samples() -> None:
        due = world.monotonic()
        while True:
            due += loads.STEP
            await world.sleep(max(0.0, due - world.monotonic()))
            tell({"t": world.monotonic(), "values": load.sample()})

    async with world.task_group() as group:
        group.start(orders())
        group.start(samples())
        group.start(load.run(group))


def tell(line: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    world = RealWorld(brief=True)
    world.run(lambda: serve(world))
