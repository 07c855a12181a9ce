"""How fast pods are scheduled, in the cycle alone and through a real API server.

    python -m bench.scheduler cycle  [--nodes 100 1000 5000 15000] [--pods N] [--kind plain ...]
    python -m bench.scheduler server [--nodes 100 1000 5000] [--pods N] [--store etcd|sqlite|memory]

``cycle`` decides and assumes, nothing else: microseconds and pods a second for each kind of pod. ``server`` starts etcd,
an API server and the scheduler as processes, makes plain Node objects, and measures, with Events on: *drain*, pods that
are there when the scheduler starts; *live*, pods that are created (16 at a time) while it runs; *single*, the time from
create to bound of one pod at a time. CPU is milliseconds a pod of each process apart; on two cores, which the client
shares, it is the figure to read first.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from navarch.api.types import core_v1
from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.transport import connect
from navarch.world import RealWorld, calm_gc
from scheduler.cycle import schedule
from scheduler.nodes import NodeTable
from scheduler.plugins.preemption import DefaultPreemption
from scheduler.pods import PodInfo
from scheduler.profiles import default_profile
from scheduler.ranking import Rankings

WORLD = RealWorld()
TICKS = os.sysconf("SC_CLK_TCK")
ZONES = 3


def node_tree(n: int) -> dict[str, object]:
    name = f"node-{n:05d}"
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{n % ZONES}", "parity": str(n % 2)}
    amounts = {"cpu": "32", "memory": "64Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"capacity": amounts, "allocatable": amounts},
    }


def pod_spec(kind: str) -> dict[str, object]:
    app = {"matchLabels": {"app": "a"}}
    term = {"labelSelector": app, "topologyKey": "kubernetes.io/hostname"}
    zone = {"labelSelector": app, "topologyKey": "topology.kubernetes.io/zone"}
    spread = {**zone, "maxSkew": 5, "whenUnsatisfiable": "DoNotSchedule"}
    required, preferred = (f"{k}DuringSchedulingIgnoredDuringExecution" for k in ("required", "preferred"))
    weighted = [{"weight": 10, "podAffinityTerm": term}]
    matching = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "parity", "operator": "In", "values": ["1"]}]}]}
    kinds: dict[str, dict[str, object]] = {
        "plain": {},
        "node-affinity": {"affinity": {"nodeAffinity": {required: matching}}},
        "spread": {"topologySpreadConstraints": [spread]},
        "preferred-spread": {"topologySpreadConstraints": [spread | {"whenUnsatisfiable": "ScheduleAnyway"}]},
        "anti-affinity": {"affinity": {"podAntiAffinity": {required: [term]}}},
        "affinity": {"affinity": {"podAffinity": {required: [zone]}}},
        "preferred-affinity": {"affinity": {"podAffinity": {preferred: weighted}}},
        "preferred-anti-affinity": {"affinity": {"podAntiAffinity": {preferred: weighted}}},
        "daemon-set": {},  # filled in for each pod
        "preemption": {"priority": 10},
        "unschedulable": {"nodeSelector": {"no": "such"}},
    }
    return kinds[kind]


KINDS = (
    "plain", "node-affinity", "spread", "preferred-spread", "anti-affinity", "affinity", "preferred-affinity",
    "preferred-anti-affinity", "unschedulable", "daemon-set", "preemption",
)  # fmt: skip


def pod_tree(name: str, kind: str = "plain", namespace: str = "default") -> dict[str, object]:
    resources = {"requests": {"cpu": "100m", "memory": "100Mi"}}
    container = {"name": "c", "image": "pause:3.9", "resources": resources}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "a"}},
        "spec": {"containers": [container], **pod_spec(kind)},
    }


# The cycle alone


def cycle(nodes: int, pods: int, kind: str) -> None:
    table, profile, chance = NodeTable(), default_profile(), random.Random(0)
    rankings = Rankings()
    for n in range(nodes):
        table.set_node(msgspec.convert(node_tree(n), core_v1.Node))
    made = [msgspec.convert(pod_tree(f"p{n}", kind), core_v1.Pod) for n in range(pods)]
    for n, pod in enumerate(made):
        pod.metadata.uid = str(n)
        if kind == "daemon-set":
            field = {"key": "metadata.name", "operator": "In", "values": [f"node-{n % nodes:05d}"]}
            rules = {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [field]}]}
            }
            pod.spec.affinity = msgspec.convert({"nodeAffinity": rules}, core_v1.Affinity)
        elif kind == "preemption":
            pod.spec.containers[0].resources.requests = {"cpu": "9"}
    preemption = DefaultPreemption()
    if kind == "preemption":  # every node is filled with pods of a lower priority
        for n in range(4 * nodes):
            small = msgspec.convert(pod_tree(f"low{n}"), core_v1.Pod)
            small.metadata.uid, small.spec.priority = f"low{n}", 0
            small.spec.containers[0].resources.requests = {"cpu": "8"}
            table.add_pod(PodInfo(small), f"node-{n % nodes:05d}")
    took, bound = time.process_time(), 0
    for pod in made:
        info = PodInfo(pod)
        decision = schedule(info, table, profile, chance, rankings)
        if kind == "preemption":
            plan = preemption.plan(info, table, decision.ranking, chance, "")
            for victim in plan.victims:
                table.remove_pod(victim.uid)
            decision.node = plan.node
        if decision.node:
            bound += 1
            table.add_pod(info, decision.node)
    took = (time.process_time() - took) / pods
    print(f"{nodes:6} nodes  {kind:24} {took * 1e6:8.1f} us  {1 / took:8.0f} pods/s  {bound}/{pods} placed", flush=True)


# Through an API server


class Process:
    """A component and the CPU time it has used."""

    def __init__(self, name: str, command: list[str], cwd: str, ready: bool = False) -> None:
        self.name = name
        log = open(f"{cwd}/{name}.log", "wb")  # noqa: SIM115 the process keeps it
        self.process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE if ready else log, stderr=log, env=ENV)
        if ready:
            assert self.process.stdout is not None
            self.process.stdout.readline()

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss(self) -> float:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096 / 1e6

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}


@contextlib.contextmanager
def processes(folder: str, store: str) -> Iterator[dict[str, Process]]:
    running: dict[str, Process] = {}
    try:
        argument = {"memory": "memory", "sqlite": f"sqlite:{folder}/db"}.get(store, "")
        if store == "etcd":
            program = shutil.which("etcd")
            if program is None:
                raise SystemExit("etcd is not installed; try --store sqlite")
            url, peer = "unix://localhost:2379", "unix://localhost:2380"
            command = [
                program, "--name=bench", "--data-dir=data", "--log-level=error",
                f"--listen-client-urls={url}", f"--advertise-client-urls={url}", f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=bench={peer}",
                "--heartbeat-interval=10", "--election-timeout=100",
            ]  # fmt: skip
            running["etcd"] = Process("etcd", command, folder)
            argument = f"etcd:unix:{folder}/localhost:2379"
            for _ in range(200):
                if Path(f"{folder}/localhost:2379").exists():
                    break
                time.sleep(0.05)
        command = [sys.executable, "-m", "apiserver", "--store", argument, "--cert-dir", folder, "--secure-port", "0"]
        running["apiserver"] = Process("apiserver", command, folder, ready=True)
        config = next(Path(folder).glob("*.kubeconfig"))
        command = [sys.executable, "-m", "controllers", "--kubeconfig", str(config)]
        running["controllers"] = Process("controllers", [*command, "--set", "node-monitor-grace-period=10h"], folder)
        yield running
    finally:
        for process in reversed(list(running.values())):
            process.stop()


class Bound:
    """Notes when each pod is first seen with a node, from the raw lines of a watch."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.at: dict[str, float] = {}
        self.more = asyncio.Event()

    async def follow(self, version: str) -> None:
        query = [("watch", "true"), ("resourceVersion", version), ("fieldSelector", "spec.nodeName!=")]
        rest = b""
        async with self.client.stream("GET", "/api/v1/namespaces/default/pods", query=query) as stream:
            async for chunk in stream.chunks():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    name = line.split(b'"name":"', 1)[1].split(b'"', 1)[0].decode()
                    self.at.setdefault(name, time.perf_counter())
                self.more.set()

    async def wait(self, count: int) -> None:
        while len(self.at) < count:
            self.more.clear()
            await self.more.wait()


async def create(client: Client, path: str, trees: list[dict[str, object]], at_once: int = 16) -> dict[str, float]:
    """When each was sent."""
    bodies = [(str(t["metadata"]["name"]), msgspec.json.encode(t)) for t in trees]  # type: ignore[index]
    bodies.reverse()
    sent: dict[str, float] = {}

    async def work() -> None:
        while bodies:
            name, body = bodies.pop()
            sent[name] = time.perf_counter()
            await client.request("POST", path, body=body)

    async with WORLD.task_group() as group:
        for _ in range(at_once):
            group.start(work())
    return sent


PODS = "/api/v1/namespaces/default/pods"


async def measure(client: Client, folder: str, running: dict[str, Process], nodes: int, pods: int, kind: str) -> None:
    await create(client, "/api/v1/nodes", [node_tree(n) for n in range(nodes)])
    while True:  # controllers make the service account, which pods need
        with contextlib.suppress(Exception):
            await client.request("GET", "/api/v1/namespaces/default/serviceaccounts/default")
            break
        await asyncio.sleep(0.1)
    config = str(next(Path(folder).glob("*.kubeconfig")))
    bound = Bound(client)
    version = (await client.get_json(PODS))["metadata"]["resourceVersion"]
    async with WORLD.task_group() as group:
        group.start(bound.follow(version))

        def cpu() -> dict[str, float]:
            return {name: process.cpu() for name, process in running.items()}

        def line(what: str, before: dict[str, float], count: int, names: list[str], sent: dict[str, float]) -> None:
            used = "  ".join(f"{name} {(v - before.get(name, 0)) / count * 1e3:.2f}" for name, v in cpu().items())
            times = sorted(bound.at[n] for n in names)
            rate = len(times) / max(times[-1] - times[0], 1e-9)
            waits = sorted(bound.at[n] - sent[n] for n in names if n in sent)
            late = (
                f"p50 {waits[len(waits) // 2] * 1e3:.1f} p99 {waits[len(waits) * 99 // 100] * 1e3:.1f} ms"
                if waits
                else ""
            )
            print(f"{nodes:6} nodes  {kind} {what:7} {rate:7.0f} bound/s  CPU ms/pod: {used}  {late}", flush=True)

        first = [f"d{n}" for n in range(pods)]
        await create(client, PODS, [pod_tree(n, kind) for n in first])
        before = cpu()
        command = [sys.executable, "-m", "scheduler", "--kubeconfig", config]
        running["scheduler"] = Process("scheduler", command, folder)
        await bound.wait(pods)
        line("drain", before, pods, first, {})
        await asyncio.sleep(2)  # the last Events
        second = [f"l{n}" for n in range(pods)]
        before = cpu()
        sent = await create(client, PODS, [pod_tree(n, kind) for n in second])
        await bound.wait(2 * pods)
        line("live", before, pods, second, sent)
        await asyncio.sleep(2)
        waits = []
        for n in range(50):
            began = time.perf_counter()
            await create(client, PODS, [pod_tree(f"s{n}", kind)], 1)
            await bound.wait(2 * pods + n + 1)
            waits.append((time.perf_counter() - began) * 1e3)
        events = await client.get_json("/api/v1/namespaces/default/events", [("limit", "1")])
        count = len(events["items"]) + int(events["metadata"].get("remainingItemCount") or 0)
        memory = "  ".join(f"{name} {p.rss():.0f}" for name, p in running.items())
        print(
            f"{nodes:6} nodes  single  p50 {statistics.median(waits):.1f} ms; {count} Events; RSS MB: {memory}",
            flush=True,
        )
        group.cancel()


def server(nodes: int, pods: int, store: str, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder, processes(folder, store) as running:

        async def run() -> None:
            client = Client(connect(kubeconfig.load(next(Path(folder).glob("*.kubeconfig")))), WORLD, "bench")
            async with asyncio.timeout(600):
                await measure(client, folder, running, nodes, pods, kind)
            await client.close()

        WORLD.run(run)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scheduler", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("cycle", "server"))
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--kind", nargs="+", default=None)
    parser.add_argument("--store", choices=("etcd", "sqlite", "memory"), default="etcd")
    options = parser.parse_args()
    calm_gc()
    for nodes in options.nodes:
        for kind in options.kind or (KINDS if options.what == "cycle" else KINDS[:1]):
            if options.what == "cycle":
                cycle(nodes, options.pods, kind)
            else:
                server(nodes, options.pods, options.store, kind)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
