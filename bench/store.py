"""Measures the cost of one operation in each store and in the watch cache above it.

    python -m bench.store [memory] [sqlite] [etcd] [--count N] [--bytes N]

``cpu`` is this process' CPU time an operation (all threads), which noise moves least; ``wall`` is elapsed time an
operation. etcd is started here, on a unix socket in a temporary folder.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from apiserver.cache.cache import Cache, Watcher, extract_fields
from apiserver.cache.encoded import encode
from apiserver.storage.memory import MemoryStore
from apiserver.storage.sqlite import SqliteStore
from apiserver.storage.store import Compare, Put, Store
from navarch.world import RealWorld

PODS = "/registry/pods/"
WORLD = RealWorld()


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Store]:
    if kind == "etcd":
        from apiserver.storage.etcd import EtcdStore

        client, peer = "unix://localhost:1", "unix://localhost:2"
        etcd = subprocess.Popen(
            [
                *(
                    "etcd",
                    "--name",
                    "e",
                    "--data-dir",
                    "data",
                    "--initial-cluster",
                    f"e={peer}",
                    "--log-level",
                    "error",
                ),
                *("--listen-client-urls", client, "--advertise-client-urls", client, "--logger", "zap"),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--heartbeat-interval", "10", "--election-timeout", "100"),
            ],
            cwd=folder,
            stderr=subprocess.DEVNULL,
        )
        store: Store = EtcdStore(WORLD, [f"unix:{folder}/localhost:1"], timeout=30)
        try:
            yield store
        finally:
            await store.close()
            etcd.kill()
            etcd.wait()
        return
    store = MemoryStore() if kind == "memory" else SqliteStore(WORLD, folder / "store.db")
    try:
        yield store
    finally:
        await store.close()


def pod(n: int, padding: str) -> bytes:
    metadata = {
        "name": f"p{n}",
        "namespace": "default",
        "uid": f"uid-{n}",
        "labels": {"app": "bench", "n": str(n % 10)},
    }
    return encode(
        {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": metadata,
            "spec": {"nodeName": f"n{n % 100}", "containers": [{"name": "c", "image": "i", "env": padding}]},
        }
    )


async def measure(name: str, count: int, many: int, step: Callable[[int], Awaitable[object]]) -> None:
    """Runs step(0 .. count-1), ``many`` at a time, and prints what one cost."""
    todo = iter(range(count))

    async def work() -> None:
        for n in todo:
            await step(n)

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(many)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"  {name:<44} {1e6 * cpu / count:9.1f} us cpu {1e6 * wall / count:9.1f} us wall", flush=True)


async def bench(kind: str, count: int, size: int) -> None:
    print(f"{kind}: {count} objects of about {size} bytes")
    padding = "x" * max(0, size - 230)
    with tempfile.TemporaryDirectory() as folder:
        async with opened(kind, Path(folder)) as store, WORLD.task_group() as group:
            revisions: dict[int, int] = {}

            async def put(n: int) -> None:
                made = await store.txn(
                    [Compare(f"{PODS}default/p{n}", revisions.get(n, 0))], [Put(f"{PODS}default/p{n}", pod(n, padding))]
                )
                assert made.succeeded
                revisions[n] = made.revision

            async def get(n: int) -> None:
                await store.get(f"{PODS}default/p{n}")

            await measure("store: create, 1 at a time", count // 4, 1, put)
            revisions.clear()
            for n in range(count // 4):
                found, _ = await store.get(f"{PODS}default/p{n}")
                assert found is not None
                revisions[n] = found.revision
            await measure("store: put, 64 at a time", count, 64, put)
            await measure("store: get, 1 at a time", count // 4, 1, get)
            await measure("store: get, 64 at a time", count, 64, get)
            await measure("store: current revision, 64 at a time", count, 64, lambda n: store.current_revision())
            await measure(f"store: list of {count}", 5, 1, lambda n: store.list(PODS))

            fields = extract_fields(lambda tree: {"spec.nodeName": tree["spec"]["nodeName"]})
            cache = Cache(WORLD, store, resources={PODS: fields}, indexes={PODS: "spec.nodeName"})
            running = group.start(cache.run())
            await cache.wait_ready()

            async def read(n: int) -> None:
                await cache.current()
                cache.get(PODS, "default", f"p{n}")

            async def listed(n: int) -> None:
                await cache.current()
                b",".join([entry.data for entry in cache.list(PODS, "default").entries])

            async def paged(n: int) -> None:
                cache.list(PODS, "default", start_after=f"default/p{n}", limit=50)

            await measure("cache: get most recent, 64 at a time", count * 4, 64, read)
            await measure(f"cache: list of {count}, joined", 20, 1, listed)
            await measure("cache: page of 50", 200, 1, paged)

            async def put_and_wait(n: int) -> None:
                await put(n)
                await cache.current(revisions[n])

            async def fan_out(name: str, watchers: list[Watcher]) -> None:
                await measure(name, count, 64, put_and_wait)
                assert sum([len(await watcher.batch()) for watcher in watchers if watcher._buffer]) in (
                    count,
                    100 * count,
                )
                for watcher in watchers:
                    watcher.close()

            await measure("cache: put until it is in the cache, 64", count, 64, put_and_wait)
            everyone = [cache.watch(PODS, from_revision=cache.revision) for _ in range(100)]
            await fan_out("cache: put, all to 100 watchers", everyone)
            nodes = [cache.watch(PODS, fields=OnNode(f"n{n}"), from_revision=cache.revision) for n in range(5000)]
            await fan_out("cache: put, to 1 of 5,000 watchers by node", nodes)
            running.cancel()
    print(f"  peak memory {peak_megabytes()} MB")


class OnNode:
    """The field selector spec.nodeName=..."""

    empty = False

    def __init__(self, node: str) -> None:
        self.exact = {"spec.nodeName": node}

    def matches(self, values: dict[str, str]) -> bool:
        return values.get("spec.nodeName") == self.exact["spec.nodeName"]


def peak_megabytes() -> int:
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=["memory", "sqlite", "etcd"])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--bytes", type=int, default=1500)
    options = parser.parse_args()
    for kind in options.kinds:
        WORLD.run(lambda kind=kind: bench(kind, options.count, options.bytes))


if __name__ == "__main__":
    main()
