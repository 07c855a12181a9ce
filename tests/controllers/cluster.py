"""A whole control plane in one process on virtual time: API server, controllers, and nodes that only pretend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from apiserver.assembly import assemble
from apiserver.config import Config as ServerConfig
from apiserver.request import LOOPBACK, User
from apiserver.server import APIServer
from apiserver.storage.memory import MemoryStore
from controllers.config import Config
from controllers.manager import Manager
from navarch.api.affinity import pod_matches_node
from navarch.api.conditions import get_condition, set_condition
from navarch.api.errors import Conflict, NotFound
from navarch.api.pods import is_terminal
from navarch.api.times import format_micro, format_time, parse_time
from navarch.api.types import apps_v1, coordination_v1, core_v1, meta_v1
from navarch.client.client import Client
from navarch.client.informer import Informer
from navarch.client.queue import WorkQueue
from navarch.client.transport import InProcessTransport
from navarch.virtual import SimulatedWorld

T = TypeVar("T")
MANAGER = User("system:kube-controller-manager", ("system:authenticated",))
LEASES = "kube-node-lease"


class Nodes:
    """Binds pods in turn to nodes that are alive, makes them ready after ``delay`` seconds, and lets them go.

    ``broken`` images never become ready. A node in ``dead`` neither reports nor does anything.
    """

    def __init__(self, client: Client, names: Sequence[str], delay: float = 1.0) -> None:
        self.client, self.world, self.delay = client, client.world, delay
        self.names = list(names)
        self.dead: dict[str, None] = {}
        self.broken: dict[str, None] = {}
        self.pods = Informer(client[core_v1.Pod])
        self.queue: WorkQueue[str] = WorkQueue(self.world)
        self.pods.add_handler(lambda kind, old, new: self.queue.add(f"{new.metadata.namespace}/{new.metadata.name}"))
        self._turn = 0

    async def register(self) -> None:
        for name in self.names:
            conditions = [
                core_v1.NodeCondition(type=t, status="True" if t == "Ready" else "False", reason="Kubelet")
                for t in ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")
            ]
            node = core_v1.Node(metadata=meta_v1.ObjectMeta(name=name))
            made = await self.client[core_v1.Node].create(node)
            made.status.conditions = conditions
            await self.client[core_v1.Node].update_status(made)

    async def run(self) -> None:
        async with self.world.task_group() as group:
            group.start(self.pods.run())
            group.start(self._beat())
            for _ in range(4):
                group.start(self._work())

    async def _beat(self) -> None:
        leases = self.client[coordination_v1.Lease]
        while True:
            for name in self.names:
                if name in self.dead:
                    continue
                spec = {"holderIdentity": name, "renewTime": format_micro(self.world.now())}
                try:
                    await leases.patch(name, LEASES, {"spec": spec})
                except NotFound:
                    meta = meta_v1.ObjectMeta(name=name, namespace=LEASES)
                    await leases.create(coordination_v1.Lease(metadata=meta))
                node = await self.client[core_v1.Node].get(name)
                ready = get_condition(node.status.conditions, "Ready")
                if ready is not None and ready.status != "True":
                    new = core_v1.NodeCondition(type="Ready", status="True", reason="Kubelet", message="posting again")
                    node.status.conditions, _ = set_condition(
                        node.status.conditions, new, format_time(self.world.now())
                    )
                    await self.client[core_v1.Node].update_status(node)
            await self.world.sleep(10)

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                again = await self._sync(key)
                if again is not None:
                    self.queue.add_after(key, again)
            except (Conflict, NotFound):
                self.queue.add_after(key, 0.1)
            finally:
                self.queue.done(key)

    async def _sync(self, key: str) -> float | None:
        pod = self.pods.get_key(key)
        if pod is None:
            return None
        pods = self.client[core_v1.Pod]
        name, namespace = pod.metadata.name or "", pod.metadata.namespace
        if not pod.spec.node_name:
            alive = [n for n in self.names if n not in self.dead and pod_matches_node(pod.spec, n, {})]
            if pod.metadata.deletion_timestamp is None and alive:
                self._turn += 1
                target = {"kind": "Node", "name": alive[self._turn % len(alive)]}
                await pods.sub(name, namespace, "binding", {"metadata": {"name": name}, "target": target})
            return None
        if pod.spec.node_name in self.dead:
            return 10
        if pod.metadata.deletion_timestamp is not None:
            await pods.delete(name, namespace, grace_period_seconds=0)
            return None
        if is_terminal(pod) or pod.status.phase == "Running":
            return None
        made = pod.metadata.creation_timestamp or ""
        left = parse_time(made) + self.delay - self.world.now()
        if left > 0:
            return left
        ready = pod.spec.containers[0].image not in self.broken
        at = format_time(self.world.now())
        condition = core_v1.PodCondition(type="Ready", status=str(ready), last_transition_time=at)
        ip = f"10.244.{self.names.index(pod.spec.node_name)}.{int(pod.metadata.resource_version or 0) % 250 + 1}"
        status = core_v1.PodStatus(
            phase="Running", conditions=[condition], pod_ip=ip, pod_ips=[core_v1.PodIP(ip=ip)], start_time=at
        )
        await pods.update_status(msgspec.structs.replace(pod, status=status))
        return None


class Cluster:
    def __init__(self, world: SimulatedWorld, server: APIServer, manager: Manager, nodes: Nodes) -> None:
        self.world, self.server, self.manager, self.nodes = world, server, manager, nodes
        self.client = Client(InProcessTransport(server.app, LOOPBACK), world, "test")

    async def until(self, check: Callable[[], Awaitable[T | None]], timeout: float = 900.0) -> T:
        """The first true answer of ``check``; asked every virtual half second."""
        end = self.world.monotonic() + timeout
        while not (found := await check()):
            assert self.world.monotonic() < end, f"not within {timeout} s: {await self.dump()}"
            await self.world.sleep(0.5)
        return found

    async def furnished(self) -> bool:
        """Pods can be made: their service account is there."""
        accounts = (await self.client[core_v1.ServiceAccount].list("default")).items
        return bool(accounts)

    async def dump(self) -> str:
        pods = (await self.client[core_v1.Pod].list()).items
        sets = (await self.client[apps_v1.ReplicaSet].list()).items
        deployments = (await self.client[apps_v1.Deployment].list()).items
        return "\n".join(
            [
                *(f"deployment {d.metadata.name}: {d.status}" for d in deployments),
                *(f"rs {s.metadata.name} wants {s.spec.replicas}: {s.status}" for s in sets),
                *(f"pod {p.metadata.name} on {p.spec.node_name}: {p.status.phase}" for p in pods),
            ]
        )

    async def events(self, reason: str) -> list[str]:
        found = (await self.client[core_v1.Event].list()).items
        return [e.message or "" for e in found if e.reason == reason]

    async def pods(self, namespace: str = "default", **labels: str) -> list[core_v1.Pod]:
        selector = ",".join(f"{k}={v}" for k, v in labels.items())
        return (await self.client[core_v1.Pod].list(namespace, label_selector=selector or None)).items


def run_cluster(
    test: Callable[[Cluster], Awaitable[None]],
    *settings: str,
    nodes: Sequence[str] = ("n1", "n2", "n3"),
    seed: int = 0,
    managed: bool = True,
) -> None:
    """Runs ``test`` in a fresh cluster; ``settings`` are the manager's knobs; without ``managed`` none is started."""
    world = SimulatedWorld(seed)

    async def main() -> None:
        store = MemoryStore()
        server = assemble(world, store, ServerConfig())

        def client(name: str, user: User = LOOPBACK) -> Client:
            return Client(InProcessTransport(server.app, user), world, name)

        config = Config().with_settings(settings)
        manager = Manager(client("kube-controller-manager", MANAGER), world, config, root_ca="PEM")
        cluster = Cluster(world, server, manager, Nodes(client("kubelet"), nodes))
        ready = asyncio.Event()
        async with world.task_group() as group:
            group.start(server.run(lambda bound: ready.set(), listen=False))
            await ready.wait()
            await cluster.nodes.register()
            group.start(cluster.nodes.run())
            if managed:
                group.start(manager.run())
                await cluster.until(cluster.furnished)
            await test(cluster)
            group.cancel()

    world.run(main)
