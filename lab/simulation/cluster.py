"""A whole cluster in one process on virtual time: the real API server, controllers and scheduler, simulated nodes.

    def scenario(cluster):
        await cluster.apply(manifest)
        await cluster.run_until(lambda: cluster.ready_pods("default") == 3, 60)

    Simulation(seed=1, nodes=3).run(scenario)

Nothing but the seed and the scenario decides what happens: :meth:`Simulation.history` of two runs is the same, byte for
byte. The store is in memory, the components talk to the API server in process, over links that have a latency and can
be cut.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, cast

from apiserver.assembly import assemble
from apiserver.config import Config as APIServerConfig
from apiserver.request import User
from apiserver.server import APIServer
from apiserver.storage.memory import MemoryStore
from controllers.config import Config as ControllersConfig
from controllers.manager import Manager
from lab.simulation.applying import apply
from lab.simulation.custommetrics import CustomMetrics
from lab.simulation.faultystore import FaultyStore
from lab.simulation.network import Link
from navarch.api import kinds, pods
from navarch.api.conditions import get_condition
from navarch.api.types import core_v1
from navarch.api.types.base import Struct
from navarch.client.client import Client
from navarch.client.decodings import Decodings
from navarch.client.transport import InProcessTransport
from navarch.virtual import START, SimulatedWorld
from navarch.world import TaskGroup
from nodeagent.hollow.fleet import Config as FleetConfig
from nodeagent.hollow.fleet import HollowFleet
from nodeagent.hollow.objects import NodeSpec
from scheduler.framework.config import SchedulerConfig
from scheduler.scheduler import Scheduler

T = TypeVar("T")
S = TypeVar("S", bound=Struct)
Condition = Callable[[], Any]

MASTERS = ("system:masters", "system:authenticated")
LATENCY = 0.001
VERSIONS = 10_000  # writes whose earlier versions the store keeps, for watches that resume and long lists
POD_RANGE = "100.64.0.0/10"  # room for 16,384 nodes


class Record(NamedTuple):
    """One change of one object. ``time`` is in seconds since the start, ``value`` the stored JSON (before a deletion:
    the last one)."""

    time: float
    revision: int
    type: str  # ADDED, MODIFIED or DELETED
    key: str
    value: bytes

    def line(self) -> bytes:
        return b"%.6f %d %s %s %s\n" % (self.time, self.revision, self.type.encode(), self.key.encode(), self.value)


def node_specs(count: int, prefix: str = "node-", first: int = 1, zones: int = 0, **more: Any) -> list[NodeSpec]:
    """``node-1`` ... with addresses of their own, in turn in ``zones`` zones (``zone-1`` ...); ``more``: other fields of
    NodeSpec."""
    return [
        NodeSpec(
            f"{prefix}{n}",
            address=f"10.{n >> 14 & 63}.{n >> 7 & 127}.{(n & 127) + 1}",
            **(more | ({"zone": f"zone-{(n - first) % zones + 1}"} if zones else {})),
        )
        for n in range(first, first + count)
    ]


class Simulation:
    """See the module. ``nodes`` is a number or the nodes themselves; the configs are the components' own.

    What costs time and is not always needed can be left out; what else happens stays the same: ``heartbeats`` (a node
    that goes silent is noticed as if they had been sent), ``events`` (the Event objects), ``history`` (the record of every
    change). Without heartbeats the link "nodes" cannot be cut. ``checks``: after every step each component compares what it
    has kept by deltas with what it would be if it were made anew (:meth:`check`); slow. ``custom_metrics``: the APIs of custom
    and external metrics serve what pods declare in annotations (navarch/api/usage.py).
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        nodes: int | Sequence[NodeSpec] = 3,
        start: float = START,
        latency: float = LATENCY,
        apiserver: APIServerConfig | None = None,
        controllers: ControllersConfig | None = None,
        scheduler: SchedulerConfig | None = None,
        fleet: FleetConfig | None = None,
        heartbeats: bool = True,
        events: bool = True,
        history: bool = True,
        checks: bool = False,
        custom_metrics: bool = False,
    ) -> None:
        self.world = SimulatedWorld(seed, start)
        self.nodes = node_specs(nodes) if isinstance(nodes, int) else list(nodes)
        self._taints = {s.name: frozenset((t.key, t.effect) for t in s.taints) for s in self.nodes}
        self._latency = latency
        self._apiserver = apiserver or APIServerConfig(store="memory")
        self._controllers = controllers or ControllersConfig(cluster_cidr=POD_RANGE)
        self._scheduler = scheduler or SchedulerConfig()
        self._fleet = replace(fleet or FleetConfig(), heartbeats=heartbeats)
        if not self._fleet.seed:
            self._fleet = replace(self._fleet, seed=str(seed))
        self._events, self._history, self._checks = events, history, checks
        self.metrics = CustomMetrics() if custom_metrics else None
        self.on_record: Callable[[Record], None] = self._records_append
        self._records: list[Record] = []
        self._current: dict[str, tuple[int, bytes]] = {}  # key -> revision, stored JSON
        self._decoded: dict[str, tuple[int, Any]] = {}
        self._revision = 0  # up to where the history goes
        self._news = asyncio.Event()
        self._decodings = Decodings()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._factories: dict[str, Callable[[], Awaitable[None]]] = {}
        self._group: TaskGroup
        self.links: dict[str, Link] = {}
        self.store: FaultyStore
        self.server: APIServer
        self.fleet: HollowFleet
        self.scheduler: Scheduler
        self.manager: Manager
        self.client: Client

    def run(self, scenario: Callable[[Simulation], Awaitable[T]]) -> T:
        """Starts the cluster, waits until pods can be scheduled to all of its nodes, plays the scenario, and stops
        everything."""

        async def main() -> T:
            store = MemoryStore()
            self.store = FaultyStore(store, self.world)
            first = await store.current_revision() + 1
            await self.prepare(store)
            async with self.world.task_group() as self._group:
                self._group.start(self._record(store, first), "history")
                extensions = self.metrics.extensions() if self.metrics is not None else {}
                self.server = assemble(self.world, self.store, self._apiserver, extensions)
                up = asyncio.Event()
                self._group.start(self.server.run(lambda _: up.set(), listen=False), "apiserver")
                await up.wait()
                self.client = self._connect("admin", "admin", MASTERS, "simulation")
                if self.metrics is not None:
                    self._group.start(self.metrics.run(self.connect("custom-metrics"), self.world), "custom-metrics")
                self.fleet = HollowFleet(
                    self._connect("nodes", "system:hollow-nodes", MASTERS, "kubelet"),
                    self.world,
                    self.nodes,
                    self._fleet,
                )
                self.arrange(self.fleet)
                self._factories = {
                    "nodes": self.fleet.run,
                    "controllers": self._run_controllers,
                    "scheduler": self._run_scheduler,
                }
                for name in self._factories:
                    self.start(name)
                await self.settle()
                result = await scenario(self)
                self._group.cancel()
            await store.close()
            return result

        return self.world.run(main)

    # What a cluster of another kind does otherwise (lab/twin/cluster.py)

    async def prepare(self, store: MemoryStore) -> None:
        """Puts objects into the store before anything starts; there are none."""

    def arrange(self, fleet: HollowFleet) -> None:
        """Brings the nodes into another state than new and on, before they start."""

    async def settle(self) -> None:
        """Waits until pods can be scheduled to all nodes, and the scheduler knows it."""
        waiting = [spec.name for spec in reversed(self.nodes)]

        def all_schedulable() -> bool:
            while waiting and self.node_schedulable(waiting[-1]):
                waiting.pop()  # each is looked at again only until it is
            return not waiting

        await self.run_until(all_schedulable, 600)
        await self.run_until(self._scheduler_knows, 60)

    # Playing fate

    def start(self, component: str) -> None:
        """Starts (again) "controllers" or "scheduler"; a crashed one has forgotten everything."""
        if component in self._tasks and not self._tasks[component].done():
            raise ValueError(f"{component} runs already")
        self._tasks[component] = self._group.start(cast(Any, self._factories[component]()), component)

    def crash(self, component: str) -> None:
        """Ends "controllers" or "scheduler" in the middle of whatever it does."""
        self._tasks[component].cancel()

    def power_off(self, node: str) -> None:
        self.fleet.power_off(node)

    def power_on(self, node: str) -> None:
        self.fleet.power_on(node)

    def partition(self, node: str) -> None:
        self.fleet.partition(node)

    def heal(self, node: str) -> None:
        self.fleet.heal(node)

    # Doing

    def connect(self, name: str) -> Client:
        """A component more, which may do everything, on a link of its own."""
        return self._connect(name, name, MASTERS, name)

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Has something done beside the scenario; it ends with the cluster."""
        self._group.start(work, "background")

    async def apply(self, text: str, namespace: str = "default") -> None:
        """Creates every object of a YAML text, or patches the one that exists with what the text says."""
        await apply(self.client, text, namespace)
        await self._catch_up()

    async def sleep(self, seconds: float) -> None:
        """Lets so much virtual time go by."""
        await self.world.sleep(seconds)
        await self._catch_up()

    async def run_until(self, condition: Condition, timeout: float, what: str = "") -> Any:
        """Lets time go by until ``condition()`` (plain or async) is true, and gives its value.

        It is asked after every change in the store, and every second. Raises TimeoutError with a picture of the
        cluster after ``timeout`` virtual seconds.
        """
        deadline = self.world.monotonic() + timeout
        while True:
            await self._catch_up()
            news = self._news
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
            remaining = deadline - self.world.monotonic()
            if remaining <= 0:
                text = what or getattr(condition, "__name__", str(condition))
                raise TimeoutError(f"not within {timeout} s of virtual time: {text}\n{self.picture()}")
            try:
                async with asyncio.timeout(min(1.0, remaining)):
                    await news.wait()
            except TimeoutError:
                pass

    # Looking

    def objects(self, struct: type[S], namespace: str | None = None) -> list[S]:
        """All objects of a kind as they are stored, in the order of their keys. Do not change them.

        Current after ``apply``, ``sleep`` and in conditions; a write of your own may show an instant later.
        """
        prefix = f"/registry/{kinds.kind_of(struct).resource}/" + (f"{namespace}/" if namespace else "")
        return [self._object(struct, key) for key in sorted(k for k in self._current if k.startswith(prefix))]

    def object(self, struct: type[S], name: str, namespace: str | None = None) -> S | None:
        where = f"{namespace}/{name}" if namespace else name
        key = f"/registry/{kinds.kind_of(struct).resource}/{where}"
        return self._object(struct, key) if key in self._current else None

    def node_ready(self, name: str) -> bool:
        node = self.object(core_v1.Node, name)
        condition = get_condition(node.status.conditions, "Ready") if node else None
        return condition is not None and condition.status == "True"

    def node_schedulable(self, name: str) -> bool:
        """Ready, not cordoned, and without taints but those that it was made with."""
        node, own = self.object(core_v1.Node, name), self._taints.get(name, frozenset())
        return (
            node is not None
            and self.node_ready(name)
            and not node.spec.unschedulable
            and all((t.key, t.effect) in own for t in node.spec.taints or ())
        )

    def ready_pods(self, namespace: str = "default", image: str = "") -> int:
        """Pods that are Ready and not going away, optionally only those of an image."""
        ready = [p for p in self.objects(core_v1.Pod, namespace) if pods.is_ready(p) and pods.is_active(p)]
        return sum(not image or p.spec.containers[0].image == image for p in ready)

    def picture(self) -> str:
        """Nodes and pods, a line each, for error messages."""
        lines = [f"at {self.world.monotonic():.3f} s, revision {self._revision}"]
        lines += [
            f"node {n.metadata.name} ready={self.node_ready(n.metadata.name or '')}" for n in self.objects(core_v1.Node)
        ]
        for pod in self.objects(core_v1.Pod):
            meta, images = pod.metadata, ",".join(c.image or "" for c in pod.spec.containers)
            state = f"{pod.status.phase} ready={pods.is_ready(pod)} node={pod.spec.node_name} {images}"
            lines.append(f"pod {meta.namespace}/{meta.name} {state}{' terminating' if meta.deletion_timestamp else ''}")
        return "\n".join(lines)

    def check(self) -> None:
        """Raises AssertionError unless informers, queues, the node table and rankings are what a fresh start would make
        of the same objects."""
        self.scheduler.check()
        self.manager.check()

    def history(self) -> list[Record]:
        """Every change of every object since the start, in order."""
        return list(self._records)

    def history_bytes(self) -> bytes:
        """The history as text, a line a change: two runs of one seed and scenario give the same."""
        return b"".join(record.line() for record in self._records)

    # Inside

    async def _run_controllers(self) -> None:
        self.manager = Manager(self._component("controller-manager"), self.world, self._controllers)
        if not self._fleet.heartbeats:
            self.manager.context.heartbeats = self.fleet
        await self.manager.run()

    async def _run_scheduler(self) -> None:
        self.scheduler = Scheduler(self._component("scheduler"), self.world, self._scheduler)
        await self.scheduler.run()

    def _scheduler_knows(self) -> bool:
        """Whether the scheduler has heard that all nodes can be used."""
        table = self.scheduler.table
        counted = (table.nodes[table.rows[s.name]] if s.name in table.rows else None for s in self.nodes)
        return all(
            node is not None and all((t.key, t.effect) in self._taints[s.name] for t in node.spec.taints or ())
            for node, s in zip(counted, self.nodes, strict=True)
        )

    def _records_append(self, record: Record) -> None:
        if self._history:
            self._records.append(record)

    def _connect(self, name: str, user: str, groups: tuple[str, ...], agent: str) -> Client:
        inner = InProcessTransport(self.server.app, User(user, groups))
        self.links[name] = Link(inner, self.world, self._latency, may_be_cut=name != "nodes" or self._fleet.heartbeats)
        client = Client(self.links[name], self.world, agent)
        client.tells_events = self._events
        client.decodings = self._decodings
        return client

    def _component(self, name: str) -> Client:
        return self._connect(name, f"system:kube-{name}", ("system:authenticated",), f"kube-{name}")

    async def _catch_up(self) -> None:
        """Until the history holds all that is in the store."""
        while self._revision < await self.store.inner.current_revision():
            await self._news.wait()
        if self._checks:
            self.check()

    async def _record(self, store: MemoryStore, first: int) -> None:
        compacted = first
        async for batch in store.watch("/registry/", first):
            now = self.world.monotonic()
            for event in batch.events:
                if event.value is None:
                    self._current.pop(event.key, None)
                    self._decoded.pop(event.key, None)
                    kind, value = "DELETED", event.previous or b""
                else:
                    self._current[event.key] = event.revision, event.value
                    kind, value = "ADDED" if event.previous is None else "MODIFIED", event.value
                self.on_record(Record(now, event.revision, kind, event.key, bytes(value)))
            self._revision = batch.revision
            if batch.revision - compacted > 2 * VERSIONS:  # by count: a herd of pods writes gigabytes within seconds
                compacted = batch.revision - VERSIONS
                await store.compact(compacted)
            self._news.set()
            self._news = asyncio.Event()

    def _object(self, struct: type[S], key: str) -> S:
        revision, value = self._current[key]
        cached = self._decoded.get(key)
        if cached is None or cached[0] != revision:
            obj = kinds.decoder(struct).decode(value)
            obj.metadata.resource_version = str(revision)
            cached = self._decoded[key] = revision, obj
        return cast(S, cached[1])
