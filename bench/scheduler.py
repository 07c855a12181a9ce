"""How fast pods are scheduled, in the cycle alone and through a real API server and etcd, and whether that is enough.

    python -m bench.scheduler                      everything, as one table with goals (about ten minutes on two cores)
    python -m bench.scheduler cycle  [--nodes 100 1000 5000 15000] [--pods N] [--kind plain ...]
    python -m bench.scheduler server [--nodes 100 1000 5000 15000] [--pods N] [--kind plain ...] [--store etcd|sqlite]

``cycle`` counts CPU time of one process; see bench/scheduling/cycle.py. ``server`` measures rates, create-to-bound times and
the CPU of each process apart; see bench/scheduling/server.py. Goals: in the cycle alone ten times, and through an API server
once, the rates that upstream's own CI demands of kube-scheduler at 5,000 nodes; and 2, 4 and 10 times what kube-scheduler 1.20
did on the machine of docs/performance.md with 100, 1,000 and 5,000 nodes, never below 1,000 at 5,000.
"""

from __future__ import annotations

import argparse
import asyncio

from bench.scheduling import cycle
from bench.scheduling import server as through
from bench.servers import plane
from navarch.api.errors import StatusError
from navarch.client.wire import TransportError
from navarch.world import calm_gc

FLOORS = {  # pods a second, scheduler_perf's thresholds at 5,000 nodes
    "plain": 680, "preemption": 570, "unschedulable-mix": 590, "churn": 710, "daemon-set": 1100, "anti-affinity": 60,
    "affinity": 35, "preferred-affinity": 90, "node-affinity": 220,
}  # fmt: skip
FLOOR_NODES = {"daemon-set": 15000}  # where the floor is for another number of nodes than 5,000
PEER = {100: 2 * 420, 1000: 4 * 243, 5000: max(10 * 108, 1000)}
SECONDS = 20.0  # that any one measurement may take
MOST_SECONDS = 180.0  # the same, with what is before and after it


def verdict(rate: float, goal: float) -> str:
    return f"{goal:8.0f}  {'met' if rate >= goal else 'missed'}" if goal else "       -"


def cycles(nodes: list[int], pods: int, kinds: list[str], goals: bool = False) -> None:
    print(f"{'the cycle alone':28}{'nodes':>7}{'us a pod':>10}{'pods/s':>9}{'goal':>8}")
    for kind in kinds:
        for count in [FLOOR_NODES.get(kind, 5000)] if goals else nodes:
            rate, placed = cycle.measure(count, pods, kind, SECONDS)
            at_floor = count == FLOOR_NODES.get(kind, 5000)
            goal = verdict(rate, 10 * FLOORS.get(kind, 0) if at_floor else 0)
            micro = 1e6 / rate if rate else 0.0
            print(f"{kind:28}{count:7}{micro:10.1f}{rate:9.0f}{goal}   {placed} placed", flush=True)


def servers(nodes: list[int], pods: int, kinds: list[str], store: str, goals: bool = False) -> None:
    print(f"\n{'through API server and ' + store:28}{'nodes':>7}{'bound/s':>9}{'goal':>8}")
    for count in nodes:
        some = (["plain", "daemon-set"] if count == 15000 else ["plain"]) if goals and count != 5000 else kinds
        with plane(store, list(through.settings())) as server:

            async def run(count: int = count, some: list[str] = some) -> None:
                async with through.bench(server, count) as bench:
                    for kind in some:
                        for how in ("live", "drain") if kind == "plain" or not goals else ("drain",):
                            try:
                                async with asyncio.timeout(MOST_SECONDS):
                                    await one(bench, kind, pods, how, count)
                            except (TimeoutError, StatusError, TransportError) as error:
                                print(f"{kind + ', ' + how:28}{count:7}   not measured: {error!r}", flush=True)
                    p50 = await bench.single()
                    memory = "  ".join(f"{n} {mb}" for n, mb in bench.memory().items())
                    said = "met" if p50 <= 4 else "missed"
                    print(f"{'one pod at a time, p50 ms':28}{count:7}{p50:9.1f}{4:8}  {said}", flush=True)
                    print(f"    {await bench.events()} Events; RSS in MB: {memory}", flush=True)

            through.WORLD.run(run)


async def one(bench: through.Bench, kind: str, pods: int, how: str, count: int) -> None:
    """One line of the table."""
    found = await bench.measure(kind, pods, how, SECONDS)
    floor = FLOORS.get(kind, 0) if how == "drain" and count == FLOOR_NODES.get(kind, 5000) else 0
    goal = PEER.get(count, 0) if kind == "plain" and how == "live" else floor
    cpu = "  ".join(f"{n} {ms:.2f}" for n, ms in found.cpu.items())
    late = f"p50 {found.p50:.0f} p99 {found.p99:.0f} ms; " if how == "live" else ""
    line = f"{kind + ', ' + how:28}{count:7}{found.rate:9.0f}{verdict(found.rate, goal)}"
    print(f"{line}   {found.bound} bound; {late}CPU ms/pod: {cpu}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scheduler", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("goals", "cycle", "server"), nargs="?", default="goals")
    parser.add_argument("--nodes", type=int, nargs="+")
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--kind", nargs="+")
    parser.add_argument("--store", choices=("etcd", "sqlite"), default="etcd")
    options = parser.parse_args()
    calm_gc()
    goals = options.what == "goals"
    if options.what != "server":
        cycles(options.nodes or [100, 1000, 5000, 15000], options.pods, options.kind or list(cycle.KINDS), goals)
    if options.what != "cycle":
        kinds = options.kind or (list(through.KINDS) if goals else ["plain"])
        servers(options.nodes or [100, 1000, 5000, *([15000] if goals else [])], options.pods, kinds, options.store, goals)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
