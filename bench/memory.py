"""Measures the API server's memory with many pods in it.

    python -m bench.memory [--pods N ...] [--store etcd|memory|sqlite]

One pod is created through the API; then as many as are wanted are written to etcd as the server itself stores them
(1.7 KB and managedFields), while a client watches all pods. So objects, watch history and selector fields are there as
in a busy cluster. Prints PSS and RSS of the API server, in MB, and bytes a pod; and the same once it has been restarted
on what is there.
"""

from __future__ import annotations

import argparse
import asyncio

import orjson

from apiserver.cache.encoded import encode
from apiserver.storage.etcd import EtcdStore
from apiserver.storage.store import Compare, Put
from bench.servers import apiserver, memory_megabytes
from navarch.client import kubeconfig
from navarch.client.transport import JSON, HTTPSTransport, connect
from navarch.world import RealWorld

WORLD = RealWorld()
NAMESPACES = 50


def pod(size: int) -> dict[str, object]:
    """A pod that is ``size`` bytes long as it is sent."""
    container = {
        "name": "main", "image": "registry.example/team/service:1.2.3", "command": ["/service"], "args": ["--verbose"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "ports": [{"containerPort": 80, "name": "http"}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
    }  # fmt: skip
    metadata = {"name": "p", "labels": {"app": "bench", "tier": "backend"}, "annotations": {"bench/text": ""}}
    made = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container], "nodeName": "n"},
    }
    metadata["annotations"] = {"bench/text": "x" * (size - len(orjson.dumps(made)))}
    return made


async def ask(client: HTTPSTransport, method: str, path: str, body: object = None) -> dict[str, object]:
    data = None if body is None else orjson.dumps(body)
    answer = await client.request(method, path, body=data, content_type=JSON, timeout=60)
    if answer.status not in (200, 201, 409):
        raise SystemExit(f"{method} {path}: {answer.status} {answer.body[:500]!r}")
    out: dict[str, object] = orjson.loads(answer.body)
    return out


async def fill(store: EtcdStore, template: bytes, first: int, last: int) -> None:
    """Writes pods number ``first`` to ``last``, each as the server would."""
    todo = iter(range(first, last))

    async def work() -> None:
        for n in todo:
            tree = orjson.loads(template)
            name, namespace = f"service-{n:06d}", f"team-{n % NAMESPACES}"
            tree["metadata"] |= {"name": name, "namespace": namespace, "uid": WORLD.uid()}
            tree["spec"]["nodeName"] = f"node-{n % 1000}"
            key = f"/registry/pods/{namespace}/{name}"
            await store.txn([Compare(key, 0)], [Put(key, encode(tree))])

    await asyncio.gather(*(work() for _ in range(64)))


async def bench(server_pid: int, config: kubeconfig.Config, address: str, counts: list[int]) -> None:
    client = connect(config)
    pods = "/api/v1/namespaces/default/pods"
    await ask(client, "POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    made = await ask(client, "POST", pods, pod(1700))
    template = orjson.dumps(made)
    print(f"a pod is {len(orjson.dumps(pod(1700)))} bytes as sent, {len(template)} as stored", flush=True)
    empty, rss = memory_megabytes(server_pid)
    print(f"{0:7} pods: PSS {empty} MB, RSS {rss} MB", flush=True)
    store = EtcdStore(WORLD, [address.removeprefix("etcd:")], timeout=60)
    seen = 0

    async def watch() -> None:
        nonlocal seen
        async with client.stream("GET", "/api/v1/pods", query=[("watch", "1")]) as stream:
            async for chunk in stream.chunks():
                seen += chunk.count(b'"ADDED"')

    try:
        async with WORLD.task_group() as group:
            group.start(watch())
            there = 0
            for count in counts:
                await fill(store, template, there, count)
                there = count
                while seen < count:
                    await WORLD.sleep(0.1)
                pss, rss = memory_megabytes(server_pid)
                each = (pss - empty) * (1 << 20) // count
                print(f"{count:7} pods: PSS {pss} MB, RSS {rss} MB, {each} bytes a pod", flush=True)
            group.cancel()
    finally:
        await store.close()
        await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--pods", type=int, nargs="+", default=[10_000, 100_000])
    options = parser.parse_args()
    with apiserver("etcd") as server:
        config = kubeconfig.load(server.kubeconfig)
        WORLD.run(lambda: bench(server.pids["apiserver"], config, server.store, options.pods))


if __name__ == "__main__":
    main()
