"""Two versions of the API server beside each other, in alternation: what is noise for one is noise for the other.

    python -m bench.compare OLD [NEW] [--store memory|sqlite|etcd] [--rounds N] [--at-once N] [--only create;get;...]

OLD and NEW are commits of this repository, or folders with a checkout; NEW is this checkout if it is left out. Both servers
run at once, each on a store of its own; every round asks the one, then the other, in turns. Prints CPU of the server
an operation (from the kernel's nanoseconds), the median time to an answer, and as ratio the median over the rounds of new
to old: read that. A version beside itself gives 0.97 to 1.03 for CPU on a busy machine with 15 rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import uvloop

from bench.apiserver import APPLY, AT_ONCE, MERGE, STRATEGIC, Bench, pod
from bench.servers import ROOT, Server, apiserver
from bench.wire import Target, pump

# How many of each are asked in a round.
COUNTS = {
    "create": 300, "create, one at a time": 100, "get": 1500, "get, one at a time": 500, "patch": 300, "status": 300,
    "apply": 300, "event": 300, "lease": 300, "list": 20, "page of 10": 500, "delete": 300,
}  # fmt: skip
ALONE = ", one at a time"
ANSWER = "time to the answer"
NAMESPACE = "/api/v1/namespaces/compare"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/compare/leases"
MANY = 64  # leases
FIRST = 1000  # pods that are there before anything is measured


class Side:
    """One of the two servers, and the requests for it."""

    def __init__(self, server: Server) -> None:
        self.server, self.target = server, Target(server.kubeconfig)
        self.pods, self.changes, self.path = 0, 0, ""

    async def begin(self) -> None:
        self.path = await Bench(self.target, self.server.pids, 1, set()).namespace("compare", 0)
        await pump(self.target, self.server.pids, self.requests("make leases", MANY), 1)
        await pump(self.target, self.server.pids, self.requests("create", FIRST), AT_ONCE)

    def requests(self, what: str, count: int) -> Iterator[bytes]:
        ask, names = self.target.request, [f"{self.path}/p{n * 7 % max(1, self.pods):06d}" for n in range(count)]
        first, self.changes = self.changes, self.changes + count
        match what:
            case "create":
                first, self.pods = self.pods, self.pods + count
                return iter([ask("POST", self.path, pod(f"p{n:06d}")) for n in range(first, self.pods)])
            case "get":
                return iter([ask("GET", name) for name in names])
            case "list":
                return iter([ask("GET", self.path)] * count)
            case "page of 10":
                return iter([ask("GET", f"{self.path}?limit=10")] * count)
            case "patch":
                bodies = ({"metadata": {"labels": {"r": f"s{first + n}"}}} for n in range(count))
                return iter([ask("PATCH", n, body, STRATEGIC) for n, body in zip(names, bodies, strict=True)])
            case "status":
                bodies = ({"status": {"phase": "Running", "message": f"m{first + n}"}} for n in range(count))
                return iter([ask("PATCH", f"{n}/status", body, STRATEGIC) for n, body in zip(names, bodies, strict=True)])
            case "apply":
                head = {"apiVersion": "v1", "kind": "Pod"}
                return iter([
                    ask("PATCH", f"{name}?fieldManager=bench&force=true",
                        head | {"metadata": {"name": name.rpartition("/")[2], "labels": {"a": f"a{first + n}"}}}, APPLY)
                    for n, name in enumerate(names)
                ])  # fmt: skip
            case "event":
                return iter([ask("POST", f"{NAMESPACE}/events", event(f"e{first + n}")) for n in range(count)])
            case "make leases":
                return iter([ask("POST", LEASES, {"metadata": {"name": f"l{n}"}, "spec": {}}) for n in range(count)])
            case "lease":
                bodies = ({"spec": {"renewTime": f"2026-01-01T00:00:00.{first + n:06d}Z"}} for n in range(count))
                return iter([ask("PATCH", f"{LEASES}/l{n % MANY}", body, MERGE) for n, body in enumerate(bodies)])
            case "delete":
                last, self.pods = self.pods, self.pods - count
                paths = [f"{self.path}/p{n:06d}" for n in range(self.pods, last)]
                return iter([ask("DELETE", path, {"gracePeriodSeconds": 0}) for path in paths])
        raise ValueError(what)

    async def measure(self, what: str, at_once: int) -> dict[str, float]:
        """CPU microseconds of each process an operation, and those until the answer."""
        count, at_once = COUNTS[what], 1 if what.endswith(ALONE) else at_once
        requests = self.requests(what.removesuffix(ALONE), count)
        meter = await pump(self.target, self.server.pids, requests, at_once)
        cpu = {name: 1000 * meter.each(name) for name in self.server.pids}
        return cpu | {ANSWER: 1e6 * statistics.median(meter.latencies)}


def event(name: str) -> dict[str, object]:
    pod = {"kind": "Pod", "namespace": "compare", "name": "p000000", "apiVersion": "v1"}
    return {
        "metadata": {"name": name, "namespace": "compare"}, "involvedObject": pod, "reason": "Scheduled", "type": "Normal",
        "message": "Successfully assigned compare/p000000 to node-1", "source": {"component": "bench"}, "count": 1,
    }  # fmt: skip


async def run(servers: list[Server], rounds: int, at_once: int, only: list[str]) -> None:
    sides = [Side(server) for server in servers]
    for side in sides:
        await side.begin()
    print("| | process | old, us | new, us | new / old |\n|---|---|---|---|---|", flush=True)
    for what in only or COUNTS:
        results: list[list[dict[str, float]]] = [[], []]
        for n in range(rounds):
            for which in (0, 1) if n % 2 else (1, 0):
                results[which].append(await sides[which].measure(what, at_once))
        for process in [*servers[0].pids, ANSWER]:
            old, new = ([result[process] for result in side] for side in results)
            if (middle := statistics.median(old)) < 5:  # no work for it
                continue
            ratio = statistics.median(b / a for a, b in zip(old, new, strict=True))
            print(f"| {what} | {process} | {middle:.1f} | {statistics.median(new):.1f} | {ratio:.2f} |", flush=True)


def checkout(version: str, stack: ExitStack) -> Path:
    """The folder of a version; of a commit a temporary one."""
    if Path(version).is_dir():
        return Path(version).resolve()
    packed = subprocess.run(["git", "archive", version], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed, check=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old")
    parser.add_argument("new", nargs="?", default=str(ROOT))
    parser.add_argument("--store", default="etcd", choices=("etcd", "sqlite", "memory"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="connections")
    parser.add_argument("--only", default="", help=f"of {'; '.join(COUNTS)} (divided by ;)")
    options = parser.parse_args()
    only = [word.strip() for word in options.only.split(";") if word.strip()]
    if unknown := [word for word in only if word not in COUNTS]:
        parser.error(f"--only: {', '.join(unknown)}: use {'; '.join(COUNTS)}")
    uvloop.install()
    with ExitStack() as stack:
        folders = [checkout(version, stack) for version in (options.old, options.new)]
        servers = [stack.enter_context(apiserver(options.store, folder)) for folder in folders]
        asyncio.run(run(servers, options.rounds, options.at_once, only))


if __name__ == "__main__":
    main()
