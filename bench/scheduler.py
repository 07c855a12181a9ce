"""How fast pods are scheduled, in the cycle alone and through a real API server and etcd, and whether that is enough.

    python -m bench.scheduler goals  [--minutes 20]   every goal, as two tables (about fifteen minutes on two cores)
    python -m bench.scheduler cycle  [--nodes 100 1000 5000 15000] [--pods N] [--kind plain ...]
    python -m bench.scheduler server [--nodes 100 1000 5000 15000] [--pods N] [--kind plain ...] [--store etcd|sqlite]

``cycle`` counts CPU time of one process; see bench/scheduling/cycle.py. ``server`` measures rates, create-to-bound times and
the CPU of each process apart; see bench/scheduling/server.py. Goals: in the cycle alone ten times, and through an API server
once, the rates that upstream's own CI demands of kube-scheduler at 5,000 nodes; and 2, 4 and 10 times what kube-scheduler 1.20
did on the machine of docs/performance.md with 100, 1,000 and 5,000 nodes, never below 1,000 at 5,000.

No wait is without a bound: what fails or takes too long is told in its row, and the next one is measured. After
``--minutes`` nothing new is begun.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence

from bench.scheduling import cycle
from bench.scheduling import server as through
from bench.servers import Server, plane
from navarch.world import calm_gc

FLOORS = {  # pods a second, scheduler_perf's thresholds at 5,000 nodes
    "plain": 680, "preemption": 570, "unschedulable-mix": 590, "churn": 710, "daemon-set": 1100, "anti-affinity": 60,
    "affinity": 35, "preferred-affinity": 90, "node-affinity": 220,
}  # fmt: skip
FLOOR_NODES = {"daemon-set": 15000}  # where the floor is for another number of nodes than 5,000
PEER = {100: 2 * 420, 1000: 4 * 243, 5000: max(10 * 108, 1000)}
SECONDS = 20.0  # that any one measurement may take, once its pods are there
BEGIN, MEASURE = 240.0, 120.0  # seconds for the nodes of a control plane to be there, and for a measurement in all
HOWS = ("drain", "live")


def verdict(rate: float, goal: float) -> str:
    return f"{goal:,.0f} | {'met' if rate >= goal else 'missed'} |" if goal else " | |"


def cycles(nodes: Sequence[int], pods: int, kinds: Sequence[str], until: float, goals: bool = False) -> None:
    print("\n| the cycle alone | nodes | us a pod | pods/s | placed | goal | |\n|---|---|---|---|---|---|---|")
    for kind in kinds:
        for count in [FLOOR_NODES.get(kind, 5000)] if goals else nodes:
            if time.monotonic() > until:
                print(f"| {kind} | {count:,} | no time left | | | | |")
                continue
            rate, placed = cycle.measure(count, pods, kind, SECONDS)
            at_floor = count == FLOOR_NODES.get(kind, 5000)
            goal = verdict(rate, 10 * FLOORS.get(kind, 0) if at_floor else 0)
            micro = 1e6 / rate if rate else 0.0
            print(f"| {kind} | {count:,} | {micro:.0f} | {rate:,.0f} | {placed:,} | {goal}", flush=True)


Wanted = Sequence[tuple[str, str]]
"""Measurements on one control plane: kinds of pods, and "drain" or "live"."""


def servers(nodes: Mapping[int, Wanted], pods: int, store: str, until: float) -> None:
    where = f"through API server and {store}"
    print(f"\n| {where} | nodes | bound/s | create to bound, p50 / p99 ms | CPU, ms a pod | bound | goal | |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for count, wanted in nodes.items():
        if time.monotonic() > until:
            print(f"| all | {count:,} | no time left | | | | | |", flush=True)
            continue
        try:
            with plane(store, list(through.settings()), seconds=BEGIN) as server:
                through.WORLD.run(
                    lambda server=server, count=count, wanted=wanted: on_plane(server, count, wanted, pods, until)
                )
        except (Exception, SystemExit) as error:
            print(f"| all | {count:,} | failed: {told(error)} | | | | | |", flush=True)


async def on_plane(server: Server, count: int, wanted: Wanted, pods: int, until: float) -> None:
    async with through.bench(server, count, BEGIN) as bench:
        for kind, how in wanted:
            if time.monotonic() > until:
                print(f"| {kind}, {how} | {count:,} | no time left | | | | | |", flush=True)
                continue
            try:
                async with asyncio.timeout(MEASURE):
                    found = await bench.measure(kind, pods, how, SECONDS)
            except Exception as error:
                print(f"| {kind}, {how} | {count:,} | failed: {told(error)} | | | | | |", flush=True)
                async with asyncio.timeout(MEASURE):
                    await bench.clear()
                continue
            floor = FLOORS.get(kind, 0) if how == "drain" and count == FLOOR_NODES.get(kind, 5000) else 0
            goal = PEER.get(count, 0) if kind == "plain" and how == "live" else floor
            cpu = ", ".join(f"{n} {ms:.2f}" for n, ms in found.cpu.items())
            late = f"{found.p50:.0f} / {found.p99:.0f}" if how == "live" else ""
            line = f"| {kind}, {how} | {count:,} | {found.rate:,.0f} | {late} | {cpu} | {found.bound:,}"
            print(f"{line} | {verdict(found.rate, goal)}", flush=True)
        async with asyncio.timeout(MEASURE):
            p50 = await bench.single()
            memory = ", ".join(f"{n} {mb}" for n, mb in bench.memory().items())
            said = "met" if p50 <= 4 else "missed"
            rest = f"{await bench.events()} Events; RSS MB: {memory}"
            print(f"| one pod at a time | {count:,} | | {p50:.1f} / | {rest} | | 4 ms | {said} |", flush=True)


def told(error: BaseException) -> str:
    """One line, of the first error in a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__} {error}".splitlines()[0][:100]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scheduler", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("goals", "cycle", "server"), nargs="?", default="goals")
    parser.add_argument("--nodes", type=int, nargs="+")
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--kind", nargs="+")
    parser.add_argument("--store", choices=("etcd", "sqlite"), default="etcd")
    parser.add_argument("--minutes", type=float, default=20)
    options = parser.parse_args()
    calm_gc()
    goals, until = options.what == "goals", time.monotonic() + 60 * options.minutes
    nodes = options.nodes or [100, 1000, 5000, 15000]
    if options.what != "server":
        cycles(nodes, options.pods, options.kind or cycle.KINDS, until, goals)
    if goals:
        plain = [("plain", how) for how in HOWS]
        every = plain + [(kind, "drain") for kind in options.kind or through.KINDS if kind != "plain"]
        planes: dict[int, Wanted] = {5000: every, 1000: plain, 100: plain, 15000: [*plain, ("daemon-set", "drain")]}
        servers({n: w for n, w in planes.items() if n in nodes}, min(options.pods, 1000), options.store, until)
    elif options.what == "server":
        wanted = [(kind, how) for kind in options.kind or ["plain"] for how in HOWS]
        servers(dict.fromkeys(nodes, wanted), options.pods, options.store, until)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
