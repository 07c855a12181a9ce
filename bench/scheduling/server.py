"""Scheduling through a real API server and etcd, with Events: from the creation of a pod to its binding in a watch.

*drain*: the scheduler is stopped (SIGSTOP) while the pods are created, so that the rate is its own; *live*: pods are
created, 16 at a time, while it runs, so that creating them shares the machine with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import msgspec

from bench.scheduling import objects
from bench.servers import Server, cpu_seconds, memory_megabytes
from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.transport import connect
from navarch.world import RealWorld

WORLD = RealWorld()
PODS = "/api/v1/namespaces/default/pods"
AT_ONCE = 16
KINDS = (
    "plain", "unschedulable-mix", "churn", "gated", "node-affinity", "daemon-set", "spread", "anti-affinity", "affinity",
    "preferred-affinity", "preemption",
)  # fmt: skip


class Result(NamedTuple):
    """Pods bound a second; milliseconds from create to bound; CPU in milliseconds a pod, by process."""

    bound: int
    rate: float
    p50: float
    p99: float
    cpu: dict[str, float]


class Bound:
    """Notes when each pod is first seen with a node, from the raw lines of a watch."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.at: dict[str, float] = {}
        self.more = asyncio.Event()

    async def follow(self, version: str) -> None:
        query = [("watch", "true"), ("resourceVersion", version), ("fieldSelector", "spec.nodeName!=")]
        rest = b""
        async with self.client.stream("GET", PODS, query=query) as stream:
            async for chunk in stream.chunks():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    name = line.split(b'"name":"', 1)[1].split(b'"', 1)[0].decode()
                    self.at.setdefault(name, time.perf_counter())
                self.more.set()

    async def wait(self, names: list[str], seconds: float) -> None:
        """Until all of them are bound, or so long."""
        missing = [n for n in names if n not in self.at]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while missing:
                    self.more.clear()
                    await self.more.wait()
                    missing = [n for n in missing if n not in self.at]


class Bench:
    """One control plane with so many plain Node objects; kinds of pods are measured one after the other."""

    def __init__(self, client: Client, server: Server, nodes: int, bound: Bound) -> None:
        self.client, self.server, self.nodes, self.bound = client, server, nodes, bound
        self._names = 0

    async def create(self, path: str, trees: list[objects.Tree]) -> dict[str, float]:
        """When each was sent."""
        bodies = [(str(t["metadata"]["name"]), msgspec.json.encode(t)) for t in reversed(trees)]
        sent: dict[str, float] = {}

        async def work() -> None:
            while bodies:
                name, body = bodies.pop()
                sent[name] = time.perf_counter()
                await self.client.request("POST", path, body=body)

        async with WORLD.task_group() as group:
            for _ in range(AT_ONCE):
                group.start(work())
        return sent

    async def add_nodes(self) -> None:
        await self.create("/api/v1/nodes", [objects.node(n) for n in range(self.nodes)])
        await self.create("/apis/scheduling.k8s.io/v1/priorityclasses", [objects.HIGH])
        while True:  # controllers untaint them, and make the service account
            nodes = (await self.client.get_json("/api/v1/nodes"))["items"]
            if not any(n["spec"].get("taints") for n in nodes):
                return
            await asyncio.sleep(1 + len(nodes) / 5000)

    def pods(self, kind: str, count: int) -> list[objects.Tree]:
        self._names += 1
        return [objects.pod(f"{kind}-{self._names}-{n}", kind, n, self.nodes) for n in range(count)]

    async def clear(self) -> None:
        """Removes all pods."""
        await self.client.request("DELETE", PODS, body=b'{"gracePeriodSeconds": 0}')
        while (await self.client.get_json(PODS, [("limit", "1")]))["items"]:
            await asyncio.sleep(0.1)

    async def quiet(self, seconds: float = 60) -> None:
        """Until no more Events are written of what was before, or so long."""
        end, before = time.perf_counter() + seconds, -1
        while (now := await self.events()) != before and time.perf_counter() < end:
            before = now
            await asyncio.sleep(1)

    def used(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self.server.pids.items() if name != "supervisor"}

    async def measure(self, kind: str, count: int, how: str, seconds: float) -> Result:
        """Creates ``count`` pods of a kind and waits, for up to so many seconds, until they are bound."""
        if kind == "preemption":
            count = min(count, objects.lows(self.nodes) // 4)
            lows = self.pods("low", objects.lows(self.nodes))
            await self.create(PODS, lows)
            await self.bound.wait([p["metadata"]["name"] for p in lows], 120)
        elif kind in ("unschedulable-mix", "gated"):
            await self.create(PODS, self.pods("unschedulable" if kind == "unschedulable-mix" else kind, count // 5))
        await self.quiet()
        trees = self.pods(kind if kind not in ("unschedulable-mix", "churn", "gated") else "plain", count)
        names = [t["metadata"]["name"] for t in trees]
        scheduler = self.server.pids["scheduler"]
        if how == "drain":
            os.kill(scheduler, signal.SIGSTOP)
            try:
                await self.create(PODS, trees)
            finally:
                os.kill(scheduler, signal.SIGCONT)
        async with WORLD.task_group() as group:
            before, began = self.used(), time.perf_counter()
            if kind == "churn":
                group.start(self.churn())
            sent = await self.create(PODS, trees) if how == "live" else dict.fromkeys(names, began)
            await self.bound.wait(names, seconds)
            after = self.used()
            group.cancel()
        times = sorted(self.bound.at[n] for n in names if n in self.bound.at)
        if not times:
            return Result(0, 0.0, 0.0, 0.0, {})
        waits = sorted(1e3 * (self.bound.at[n] - sent[n]) for n in names if n in self.bound.at)
        cpu = {name: 1e3 * (after[name] - before[name]) / len(times) for name in after}
        await self.clear()
        return Result(len(times), len(times) / (times[-1] - began), _at(waits, 50), _at(waits, 99), cpu)

    async def churn(self) -> None:
        """Every tenth of a second a node and an unschedulable pod come, and those before go."""
        n = 0
        while True:
            node = objects.node(n) | {"metadata": {"name": f"churn-{n}"}}
            await self.create("/api/v1/nodes", [node])
            await self.create(PODS, [objects.pod(f"churn-{n}", "unschedulable")])
            await asyncio.sleep(0.1)
            await self.client.request("DELETE", f"{PODS}/churn-{n}")
            await self.client.request("DELETE", f"/api/v1/nodes/churn-{n}")
            n += 1

    async def single(self, count: int = 30) -> float:
        """Milliseconds from create to bound of one pod at a time, the median."""
        waits = []
        for tree in self.pods("plain", count):
            began = time.perf_counter()
            await self.create(PODS, [tree])
            await self.bound.wait([tree["metadata"]["name"]], 10)
            waits.append((time.perf_counter() - began) * 1e3)
        return _at(sorted(waits), 50)

    async def events(self) -> int:
        found = await self.client.get_json("/api/v1/namespaces/default/events", [("limit", "1")])
        return len(found["items"]) + int(found["metadata"].get("remainingItemCount") or 0)

    def memory(self) -> dict[str, int]:
        """RSS in MB."""
        return {name: memory_megabytes(pid)[0] for name, pid in self.server.pids.items() if name != "supervisor"}


def _at(values: list[float], percent: int) -> float:
    return values[min(len(values) - 1, len(values) * percent // 100)]


@contextlib.asynccontextmanager
async def bench(server: Server, nodes: int, seconds: float) -> AsyncIterator[Bench]:
    """Fills the control plane with nodes, which may take so many seconds, and follows what is bound."""
    client = Client(connect(kubeconfig.load(server.kubeconfig)), WORLD, "bench")
    try:
        bound = Bound(client)
        made = Bench(client, server, nodes, bound)
        async with asyncio.timeout(seconds):
            await made.add_nodes()
        version = (await client.get_json(PODS))["metadata"]["resourceVersion"]
        async with WORLD.task_group() as group:
            group.start(bound.follow(version))
            yield made
            group.cancel()
    finally:
        await client.close()


def settings() -> Iterator[str]:
    """Of the control plane: nobody renews these nodes' Leases."""
    yield "controllers.node-monitor-grace-period=10h"
    yield "controllers.node-startup-grace-period=10h"
