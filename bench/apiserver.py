"""Rates and CPU time of an API server: every verb, lists, watches. For any Kubernetes-compatible server.

    python -m bench.apiserver [--only create,get,...] [--scale N] [--store etcd|sqlite]
    python -m bench.apiserver --kubeconfig FILE --pid apiserver=PID --pid etcd=PID ...

The first form starts a control plane of its own (API server, store, controllers, scheduler; no nodes) and takes it down
again; it takes two to three minutes. Prints the table of docs/performance.md: rate, CPU milliseconds of API server and
store an operation, Kubernetes' figures on the same kind of machine (see there), the goal, and whether it is met.
``--scale`` multiplies the number of operations. Read CPU first: it is what noise moves least. ``work`` at the end is the
time that a fixed piece of computation takes meanwhile: if it differs much between runs, so do all figures.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop

from bench.servers import memory_megabytes, plane
from bench.wire import Connection, Meter, Target, pump

STRATEGIC, MERGE = "application/strategic-merge-patch+json", "application/merge-patch+json"
JSON_PATCH, APPLY = "application/json-patch+json", "application/apply-patch+yaml"
AT_ONCE = 16
PODS, FEW, MANY = 10_000, 1_000, 10_000

# Kubernetes 1.20.2 on the same kind of machine, quiet: operations a second, CPU ms of the API server an operation.
KUBERNETES = {
    "create": (1170, 1.0), "create, one at a time": (440, 1.0), "get": (4800, 0.24), "get, one at a time": (1180, 0.24),
    "patch, strategic": (800, 1.7), "patch, merge": (770, 1.7), "patch, JSON": (800, 1.7), "server-side apply": (745, 1.7),
    "patch of status": (899, 1.7), "delete, no grace": (690, 1.0),
}  # fmt: skip
# Goals of lists and watches: milliseconds of Kubernetes, milliseconds wanted.
TIMES = {
    "list 1,000, consistent": (39, 7.8), "list 1,000, cached": (28, 5.6), "list 10,000, consistent": (523, 52),
    "list 10,000, cached": (253, 51),
    "list 10,000, pages of 500": (388, 78), "watch: 100 watchers, 1,000 creates": (2100, 1000),
}  # fmt: skip
_CONTINUE = re.compile(rb'"continue": *"([^"]+)"')
WRITE_CPU = 0.35  # ms of the API server


def pod(name: str) -> dict[str, Any]:
    container = {
        "name": "main", "image": "registry.k8s.io/pause:3.2", "imagePullPolicy": "IfNotPresent", "command": ["/pause"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
    }  # fmt: skip
    metadata = {"name": name, "labels": {"app": "bench", "tier": "backend"}, "annotations": {"bench/text": "x" * 300}}
    spec = {"schedulerName": "none", "terminationGracePeriodSeconds": 30, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


class Bench:
    """One server, measured. Rows are printed as they are known."""

    def __init__(self, target: Target, pids: dict[str, int], scale: float, only: set[str]) -> None:
        self.target, self.pids, self.scale, self.only = target, pids, scale, only

    def wanted(self, what: str) -> bool:
        return not self.only or what in self.only

    def count(self, operations: int) -> int:
        return max(AT_ONCE, int(operations * self.scale))

    async def namespace(self, name: str, patience: int = 100) -> str:
        """Makes it, and returns the path of its pods once pods can be made. Controllers make its account, or nobody does
        within ``patience`` tenths of a second."""
        await self.target.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        for _ in range(patience):
            if (await self.target.ask("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default"))[0] == 200:
                break
            await asyncio.sleep(0.1)
        else:  # no controllers: then nobody else makes it
            await self.target.ask(
                "POST", f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}}
            )
        return f"/api/v1/namespaces/{name}/pods"

    def creates(self, path: str, first: int, last: int) -> Iterator[bytes]:
        return (self.target.request("POST", path, pod(f"p{n:06d}")) for n in range(first, last))

    async def rate(self, what: str, requests: Iterator[bytes], at_once: int = AT_ONCE, write: bool = True) -> None:
        meter = await pump(self.target, self.pids, requests, at_once)
        rate, cpu = KUBERNETES[what]
        share = 2 if write else 3
        mine = meter.each("apiserver")
        verdict = f"rate {_verdict(meter.rate >= 2 * rate)}, CPU {_verdict(mine <= cpu / share)}"
        if write:
            verdict += f", {WRITE_CPU} ms {_verdict(mine <= WRITE_CPU)}"
        stores = sum(meter.each(name) for name in self.pids if name == "etcd")
        costs = f"{mine:.3f} + {stores:.3f}"
        goal = f"twice the rate, {'half' if write else 'a third of'} the CPU"
        print(f"| {what} | {meter.rate:,.0f} | {costs} | {rate:,} | {cpu} | {goal} | {verdict} |", flush=True)

    def time(self, what: str, milliseconds: float, meter: Meter) -> None:
        theirs, goal = TIMES[what]
        cpu = 1000 * meter.cpu["apiserver"] / meter.calls
        verdict = _verdict(milliseconds <= goal)
        print(f"| {what} | {milliseconds:.1f} ms | {cpu:.1f} ms | {theirs} ms | {goal} ms | {verdict} |", flush=True)

    async def verbs(self) -> None:
        few, many = await self.namespace("bench-few"), await self.namespace("bench-many")
        await pump(self.target, self.pids, self.creates(many, 900_000, 900_300), AT_ONCE)  # all code has run once
        print(
            "| | rate a second | CPU ms, API server + etcd | Kubernetes: rate | CPU | goal | |\n|---|---|---|---|---|---|---|"
        )
        await self.rate("create, one at a time", self.creates(few, 0, FEW), 1)
        await self.rate("create", self.creates(many, 0, PODS))
        if self.wanted("get"):
            get = self.target.request
            names = (f"{many}/p{n * 7 % PODS:06d}" for n in range(self.count(10_000)))
            await self.rate("get, one at a time", (get("GET", f"{many}/p{n:06d}") for n in range(2000)), 1, write=False)
            await self.rate("get", (get("GET", name) for name in names), write=False)
        if self.wanted("patch"):
            await self.patches(many)
        print()
        if self.wanted("list"):
            await self.lists(few, many)
        if self.wanted("delete"):
            options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
            names = (f"{many}/p{n:06d}" for n in range(self.count(3000)))
            await self.rate("delete, no grace", (self.target.request("DELETE", name, options) for name in names))

    async def patches(self, path: str) -> None:
        def apply(n: int) -> Any:
            return {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"p{n % PODS:06d}", "labels": {"a": f"a{n}"}},
            }

        kinds: list[tuple[str, str, str, Callable[[int], Any]]] = [
            ("patch, strategic", STRATEGIC, "", lambda n: {"metadata": {"labels": {"r": f"s{n}"}}}),
            ("patch, merge", MERGE, "", lambda n: {"metadata": {"labels": {"r": f"m{n}"}}}),
            (
                "patch, JSON",
                JSON_PATCH,
                "",
                lambda n: [{"op": "replace", "path": "/metadata/labels/app", "value": f"j{n}"}],
            ),
            ("server-side apply", APPLY, "?fieldManager=bench&force=true", apply),
            ("patch of status", STRATEGIC, "/status", lambda n: {"status": {"phase": "Running", "message": f"m{n}"}}),
        ]
        for what, content_type, behind, body in kinds:
            requests = (
                self.target.request("PATCH", f"{path}/p{n % PODS:06d}{behind}", body(n), content_type)
                for n in range(self.count(3000))
            )
            await self.rate(what, requests)

    async def lists(self, few: str, many: str) -> None:
        print("| | time | CPU | Kubernetes | goal | |\n|---|---|---|---|---|---|", flush=True)
        for size, path, times in ((FEW, few, 10), (MANY, many, 7)):
            for how, query in (("consistent", ""), ("cached", "?resourceVersion=0")):
                spent: list[float] = []
                connection = await self.target.connect()
                connection.whole = False
                with Meter(self.pids) as meter:
                    for _ in range(times):
                        began = time.perf_counter()
                        status, _ = await connection.send(self.target.request("GET", path + query))
                        spent.append(time.perf_counter() - began)
                        assert status == 200
                meter.calls = times
                connection.close()
                self.time(f"list {size:,}, {how}", 1000 * statistics.median(spent), meter)
        with Meter(self.pids) as meter:
            token, connection = b"", await self.target.connect()
            connection.whole = False
            while True:
                path = f"{many}?limit=500" + (f"&continue={token.decode()}" if token else "")
                status, page = await connection.send(self.target.request("GET", path))
                assert status == 200
                found = _CONTINUE.search(page[:1000] + page[-1000:])  # the metadata of a list is at one end of it
                if found is None:
                    break
                token = found[1]
            connection.close()
        self.time("list 10,000, pages of 500", 1000 * meter.wall, meter)

    async def watch(self) -> None:
        """100 watchers of a namespace, 1,000 creates in it, until all have all."""
        watchers, events = 100, 1000
        path = await self.namespace("bench-watch")
        _, listed = await self.target.ask("GET", f"{path}?limit=1")
        query = f"{path}?watch=1&resourceVersion={listed['metadata']['resourceVersion']}"
        left, done = watchers, asyncio.Event()

        def finished() -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set()

        connections: list[Connection] = []
        for _ in range(watchers):
            connection = await self.target.connect()
            connection.stream = StreamCounter(b'"ADDED"', events, finished)
            await connection.send(self.target.request("GET", query))
            connections.append(connection)
        with Meter(self.pids) as meter:
            await pump(self.target, self.pids, self.creates(path, 0, events), AT_ONCE)
            async with asyncio.timeout(120):
                await done.wait()
        self.time("watch: 100 watchers, 1,000 creates", 1000 * meter.wall, meter)
        for connection in connections:
            connection.close()


class StreamCounter:
    """Counts a word in a stream, and says when it came often enough."""

    def __init__(self, word: bytes, wanted: int, done: Callable[[], None]) -> None:
        self.word, self.wanted, self.done = word, wanted, done
        self.tail = b""

    def __call__(self, data: bytes) -> None:
        text = self.tail + data
        before, self.wanted = self.wanted, self.wanted - text.count(self.word)
        self.tail = text[-(len(self.word) - 1) :]
        if before > 0 >= self.wanted:
            self.done()


def _verdict(reached: bool) -> str:
    return "met" if reached else "missed"


def _work() -> float:
    """Milliseconds of a fixed computation, the best of some."""
    best = 1e9
    for _ in range(20):
        began = time.perf_counter()
        sum(n * n for n in range(20_000))
        best = min(best, time.perf_counter() - began)
    return 1000 * best


async def run(bench: Bench) -> None:
    before = _work()
    await bench.verbs()
    if bench.wanted("watch"):
        await bench.watch()
    for name, pid in bench.pids.items():
        pss, rss = memory_megabytes(pid)
        print(f"{name}: PSS {pss} MB, RSS {rss} MB")
    print(f"work: {before:.2f} ms before, {_work():.2f} ms after")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.apiserver", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kubeconfig", type=Path, help="an existing server's; else one is started")
    parser.add_argument(
        "--pid", action="append", default=[], metavar="NAME=PID", help="its processes, for CPU and memory"
    )
    parser.add_argument("--store", default="etcd", choices=("etcd", "sqlite"))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default="", help="of get, patch, list, delete, watch; creates always run")
    options = parser.parse_args()
    only = {word for word in options.only.split(",") if word}
    uvloop.install()
    if options.kubeconfig:
        pids = {name: int(pid) for name, _, pid in (word.partition("=") for word in options.pid)}
        asyncio.run(run(Bench(Target(options.kubeconfig), pids, options.scale, only)))
        return
    with plane(options.store) as server:
        asyncio.run(run(Bench(Target(server.kubeconfig), server.pids, options.scale, only)))


if __name__ == "__main__":
    main()
