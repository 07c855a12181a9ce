"""Two real scheduler processes on one Lease: the leader is stopped, goes on, and is killed while pods are being bound."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from navarch.api.serialization import decode_yaml
from navarch.api.types import coordination_v1, core_v1
from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.transport import connect
from navarch.world import RealWorld

ROOT = Path(__file__).parents[2]
CONFIG = """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: true, leaseDuration: 4s, renewDeadline: 3s, retryPeriod: 400ms}
"""
NODE = """{{apiVersion: v1, kind: Node, metadata: {{name: n{0}}},
  status: {{allocatable: {{cpu: "2", memory: 4Gi, pods: "9"}}}}}}"""
POD = """{{apiVersion: v1, kind: Pod, metadata: {{name: p{0}}}, spec: {{tolerations: [{{operator: Exists}}],
  containers: [{{name: c, image: i, resources: {{requests: {{cpu: 900m}}}}}}]}}}}"""
NODES, PODS = 20, 50


class Cluster:
    def __init__(self, root: Path) -> None:
        self.root, self.processes = root, []
        self.schedulers: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.root / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", module, *arguments]
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def scheduler(self, name: str) -> None:
        arguments = ("--kubeconfig", str(self.root / "pki/admin.kubeconfig"), "--config", str(self.root / "config"))
        identity = f"{name}-{len(self.processes)}"
        self.schedulers[name] = self.start(name, "scheduler", *arguments, "--identity", identity)

    async def until(self, test, seconds: float = 60):
        async with asyncio.timeout(seconds):
            while not (found := await test()):
                for name, process in list(self.schedulers.items()):
                    if process.poll() is not None:
                        self.scheduler(name)  # as a supervisor does
                await asyncio.sleep(0.02)
            return found

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


async def story(cluster: Cluster) -> None:
    path = cluster.root / "pki/admin.kubeconfig"
    cluster.start("apiserver", "apiserver", "--store", "memory", "--cert-dir", str(path.parent), "--secure-port", "0")

    async def serving() -> bool:
        return path.exists() and b"serving on" in (cluster.root / "apiserver.log").read_bytes()

    await cluster.until(serving)
    client = Client(connect(kubeconfig.load(path)), RealWorld(), "test")

    async def make(path: str, text: str) -> None:
        await client.request("POST", path, body=json.dumps(decode_yaml(text)[0]).encode())

    await make("/api/v1/namespaces/default/serviceaccounts", "{kind: ServiceAccount, metadata: {name: default}}")
    for n in range(NODES):
        await make("/api/v1/nodes", NODE.format(n))
    (cluster.root / "config").write_text(CONFIG)
    for name in "ab":
        cluster.scheduler(name)

    async def leader() -> str:
        leases = (await client[coordination_v1.Lease].list("kube-system")).items
        held = [x.spec.holder_identity for x in leases if x.metadata.name == "kube-scheduler" and x.spec]
        return (held and held[0]) or ""

    async def bound() -> list[core_v1.Pod]:
        return [p for p in (await client[core_v1.Pod].list("default")).items if p.spec.node_name]

    await cluster.until(leader)
    for turn in range(2):
        first = await cluster.until(leader)
        process = cluster.schedulers[first[0]]
        for n in range(turn * 15, turn * 15 + 15):
            await make("/api/v1/namespaces/default/pods", POD.format(n))
            if n % 15 == 4 * turn + 1:
                process.send_signal(signal.SIGKILL if turn == 1 else signal.SIGSTOP)

        async def changed(before: str = first) -> bool:
            return await leader() not in ("", before)

        await cluster.until(changed)
        process.send_signal(signal.SIGCONT)  # it finds that it is too late, and ends

        async def ended(process: subprocess.Popen[bytes] = process) -> bool:
            return process.poll() is not None

        await cluster.until(ended)
    for n in range(30, PODS):
        await make("/api/v1/namespaces/default/pods", POD.format(n))

    async def full() -> bool:
        return len(await bound()) >= 2 * NODES

    await cluster.until(full)
    await asyncio.sleep(1)
    placed = Counter(p.spec.node_name for p in await bound())
    assert set(placed.values()) == {2} and len(placed) == NODES
    await client.close()


def test_two_processes_and_a_leader_that_is_stopped_and_killed(tmp_path):
    cluster = Cluster(tmp_path)

    async def main() -> None:
        await story(cluster)

    try:
        RealWorld().run(main)
    finally:
        cluster.end()
