"""Measures what talking to an API server costs the client.

    python -m bench.client [--count N]

Starts an API server of its own (memory store, 127.0.0.1) and prints, for each kind of call over TLS, this process' CPU
time (``cpu``, which noise moves least) and the elapsed time (``wall``) a call, both in microseconds; and what an informer
spends on each event, with decoding and indexing.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from navarch.api.types import core_v1, meta_v1
from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.informer import Informer
from navarch.client.transport import connect
from navarch.world import RealWorld

WORLD = RealWorld()


def config_map(name: str) -> core_v1.ConfigMap:
    data = {f"key-{n}": "x" * 64 for n in range(20)}
    return core_v1.ConfigMap(metadata=meta_v1.ObjectMeta(name=name, namespace="default"), data=data)


async def measure(what: str, count: int, at_once: int, call: Callable[[int], Awaitable[object]]) -> None:
    async def work(first: int) -> None:
        for n in range(first, count, at_once):
            await call(n)

    wall, cpu = time.perf_counter(), time.process_time()
    async with WORLD.task_group() as group:
        for first in range(at_once):
            group.start(work(first))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{what:32} cpu {cpu / count * 1e6:7.1f}  wall {wall / count * 1e6:7.1f}", flush=True)


async def bench(client: Client, count: int) -> None:
    maps = client[core_v1.ConfigMap]
    informer = Informer(maps, "default", indexers={"first": lambda m: [(m.metadata.name or "")[:2]]})
    await measure("create, 64 at once", count, 64, lambda n: maps.create(config_map(f"m{n}")))
    for at_once in (1, 64):
        await measure(f"get 2 KB, {at_once} at once", count, at_once, lambda n: maps.get(f"m{n}", "default"))
    await measure(f"list {count} objects (per list)", 20, 1, lambda n: maps.list("default"))
    async with WORLD.task_group() as group:
        group.start(informer.run())
        await informer.wait_synced()
        before = informer.resource_version
        patch = {"metadata": {"labels": {"touched": "yes"}}}
        await measure("patch, 64 at once, with informer", count, 64, lambda n: maps.patch(f"m{n}", "default", patch))
        group.cancel()
    cpu, seen = time.process_time(), 0
    async with maps.watch("default", resource_version=before) as events:
        async for _ in events:
            seen += 1
            if seen == count:
                break
    print(f"{'watch event':32} cpu {(time.process_time() - cpu) / count * 1e6:7.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.client", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=3000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "apiserver", "--store", "memory", "--cert-dir", folder, "--secure-port", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert server.stdout is not None
            server.stdout.readline()  # "kubeconfig: PATH" once it serves

            async def run() -> None:
                found = next(Path(folder).glob("*.kubeconfig"))
                client = Client(connect(kubeconfig.load(found)), WORLD, "bench")
                async with asyncio.timeout(300):
                    await bench(client, options.count)
                await client.close()

            WORLD.run(run)
        finally:
            server.terminate()
            server.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
