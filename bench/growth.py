"""Growth: CPU of the API server an operation, with 100 to 100,000 objects and 10 to 1,000 watchers.

    python -m bench.growth [--store memory|sqlite|etcd] [--sizes 100,1000,...] [--watchers 10,100,...]

A flat column is what is wanted. Operations go to one namespace of 100 pods; the others are in namespaces of 1,000 each.
``event``: for each of 20 watchers of that namespace; the second table has it for other numbers of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
from collections.abc import Callable, Iterator

import uvloop

from bench.apiserver import AT_ONCE, STRATEGIC, Bench, StreamCounter, pod
from bench.servers import Server, apiserver, cpu_seconds, memory_megabytes
from bench.wire import Connection, Target, pump

FEW = 100  # pods of the namespace that is asked about
BLOCK = 1000  # pods of each other namespace
ROUNDS = 5
WATCHERS = 20  # of the first table


class Growth:
    def __init__(self, server: Server) -> None:
        self.server, self.pid, self.target = server, server.pids["apiserver"], Target(server.kubeconfig)
        self.bench = Bench(self.target, server.pids, 1, set())
        self.total = self.changes = 0
        self.path = ""

    async def begin(self) -> None:
        self.path = await self.bench.namespace("few", 0)
        await self._pump(self.target.request("POST", self.path, pod(f"p{n:06d}")) for n in range(FEW))
        self.total = FEW

    async def fill(self, size: int) -> None:
        """Makes pods in other namespaces until there are ``size`` in all."""
        while self.total < size:
            path, count = await self.bench.namespace(f"other-{self.total}", 0), min(BLOCK, size - self.total)
            await self._pump(self.target.request("POST", path, pod(f"p{n:06d}")) for n in range(count))
            self.total += count

    async def _pump(self, requests: Iterator[bytes]) -> float:
        """CPU microseconds of the server a request."""
        return 1000 * (await pump(self.target, self.server.pids, requests, AT_ONCE)).each("apiserver")

    async def cost(self, requests: Callable[[], list[bytes]]) -> float:
        """CPU microseconds a request: the median of some rounds."""
        return statistics.median([await self._pump(iter(requests())) for _ in range(ROUNDS)])

    def gets(self) -> list[bytes]:
        return [self.target.request("GET", f"{self.path}/p{n % FEW:06d}") for n in range(1000)]

    def lists(self, query: str = "") -> list[bytes]:
        return [self.target.request("GET", self.path + query)] * 50

    def pages(self) -> list[bytes]:
        return [self.target.request("GET", "/api/v1/pods?limit=100")] * 50

    def selections(self) -> list[bytes]:
        return [self.target.request("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnowhere")] * 50

    def patches(self) -> list[bytes]:
        self.changes += FEW
        body = {"metadata": {"labels": {"r": f"r{self.changes}"}}}
        return [self.target.request("PATCH", f"{self.path}/p{n:06d}", body, STRATEGIC) for n in range(FEW)]

    async def creates(self) -> float:
        """A create, of pods that are deleted again."""
        results = []
        for _ in range(ROUNDS):
            results.append(
                await self._pump(self.target.request("POST", self.path, pod(f"q{n:06d}")) for n in range(200))
            )
            await self._pump(
                self.target.request("DELETE", f"{self.path}/q{n:06d}", {"gracePeriodSeconds": 0}) for n in range(200)
            )
        return statistics.median(results)

    async def events(self, watchers: int) -> float:
        """A watch event for each of so many watchers: what patches cost more with them than without."""
        requests = [request for _ in range(ROUNDS) for request in self.patches()]
        alone = await self._pump(iter(requests))
        _, listing = await self.target.ask("GET", f"{self.path}?limit=1")
        query = f"{self.path}?watch=1&resourceVersion={listing['metadata']['resourceVersion']}"
        connections: list[Connection] = []
        missing, done = watchers, asyncio.Event()

        def finished() -> None:
            nonlocal missing
            missing -= 1
            if not missing:
                done.set()

        for _ in range(watchers):
            connection = await self.target.connect()
            connection.stream = StreamCounter(b'"MODIFIED"', ROUNDS * FEW, finished)
            await connection.send(self.target.request("GET", query))
            connections.append(connection)
        requests = [request for _ in range(ROUNDS) for request in self.patches()]
        # What is sent after the last answer counts, too; the handshakes of the pump's own connections do not.
        spent = await self._pump(iter(requests))
        rest = cpu_seconds(self.pid)
        async with asyncio.timeout(120):
            await done.wait()
        spent += 1e6 * (cpu_seconds(self.pid) - rest) / len(requests) - alone
        for connection in connections:
            connection.close()
        return spent / watchers


async def run(server: Server, sizes: list[int], watchers: list[int]) -> None:
    growth = Growth(server)
    await growth.begin()
    await growth.creates()  # all code has run once
    print("| pods | create | get | patch | list of 100 | page of 100 of all | list of a node's | event | PSS, MB |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for size in sizes:
        await growth.fill(size)
        row = [await growth.creates()]
        for requests in (growth.gets, growth.patches, growth.lists, growth.pages, growth.selections):
            row.append(await growth.cost(requests))
        row.append(await growth.events(WATCHERS))
        text = " | ".join(f"{value:,.0f}" for value in row)
        print(f"| {size:,} | {text} | {memory_megabytes(growth.pid)[0]} |", flush=True)
    print("\n| watchers | event, us for each |\n|---|---|", flush=True)
    for count in watchers:
        print(f"| {count:,} | {await growth.events(count):.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", default="memory", choices=("etcd", "sqlite", "memory"))
    parser.add_argument("--sizes", default="100,1000,10000,100000")
    parser.add_argument("--watchers", default="10,100,1000")
    options = parser.parse_args()
    sizes, watchers = ([int(word) for word in text.split(",") if word] for text in (options.sizes, options.watchers))
    uvloop.install()
    with apiserver(options.store) as server:
        print(f"{os.uname().machine}, {options.store} store, microseconds of the server's CPU an operation")
        asyncio.run(run(server, sizes, watchers))


if __name__ == "__main__":
    main()
