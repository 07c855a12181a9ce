"""The simulated nodes of one process, and the faults that they can have."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Coroutine, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from navarch.api.conditions import get_condition
from navarch.api.errors import AlreadyExists, Conflict, NotFound, StatusError
from navarch.api.pods import is_terminal
from navarch.api.times import format_micro
from navarch.api.types import coordination_v1, core_v1, meta_v1
from navarch.client.client import Client
from navarch.client.informer import Informer
from navarch.client.queue import WorkQueue
from navarch.client.transport import TransportError
from navarch.world import World
from nodeagent.hollow import objects
from nodeagent.hollow.objects import Endpoint, NodeSpec
from nodeagent.hollow.pod import HollowPod, Machine
from nodeagent.hollow.timers import Timers
from nodeagent.node.statuswriter import patch as status_patch
from nodeagent.runtime.hollow import HollowNode
from nodeagent.runtime.runtime import RUNNING, Event
from nodeagent.runtime.stages import Stages

K = TypeVar("K", bound=Hashable)

log = logging.getLogger(__name__)

LEASES = "kube-node-lease"
PATIENCE = 0.1  # seconds that a status nobody waits for waits for company
PHASES = 100  # the nodes' Leases are renewed, and their statuses reported, in so many bundles, spread over the period
BOUND = "spec.nodeName!="  # pods that wait for a node are nobody's here


Behaviour = Callable[[core_v1.Pod, str], Stages]
"""Of a pod, and the name of one of its containers ("" for the pod itself)."""


@dataclass(frozen=True)
class Config:
    """Times in seconds, defaults as kubelet's."""

    lease_duration: int = 40
    lease_period: float = 10.0
    status_period: float = 300.0
    writers: int = 32
    renewers: int = 8
    heartbeats: bool = True
    """False: Leases and statuses are not renewed while all is well; who judges the nodes asks ``last`` instead."""
    behaviour: Behaviour | None = None
    """The stages of a pod's container, where the pod's annotations declare nothing; without it, those of its node."""
    seed: str = ""
    """Of what pods draw from distributions (see nodeagent/runtime/stages.py); empty: chance."""


class _Node:
    """``on``: has power. ``cut``: is alive but neither hears nor reaches the API server."""

    def __init__(self, spec: NodeSpec, machine: Machine, pods: dict[str, HollowPod]) -> None:
        self.spec = spec
        self.machine = machine
        self.pods = pods
        self.on = True
        self.cut = False
        self.bundle = 0
        self.registered = False
        self.last_sign = -math.inf  # monotonic time; kept up for nodes that are not connected only
        self.lease: coordination_v1.Lease | None = None
        if spec.pod_cidr:
            machine.node.configure(spec.pod_cidr)

    @property
    def connected(self) -> bool:
        return self.on and not self.cut


class HollowFleet:
    """``run`` keeps the nodes alive until cancelled. The client must be allowed what all kubelets together are."""

    def __init__(
        self, client: Client, world: World, nodes: Iterable[NodeSpec] = (), config: Config | None = None
    ) -> None:
        self._client, self._world = client, world
        self.config = config or Config()
        self._timers = Timers(world)
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue(world, first_delay=0.1, most_delay=10.0)
        # Apart, as in a real agent: however many pods have something to say, no node seems to be dead for it.
        self._renewals: WorkQueue[str] = WorkQueue(world, first_delay=0.1, most_delay=10.0)
        self._nodes: dict[str, _Node] = {}
        self._bundles: list[dict[str, _Node]] = [{} for _ in range(PHASES)]
        self._joined = 0
        self._ready: dict[str, None] = {}  # of our nodes, as the API server has them
        self._pods: dict[str, tuple[_Node, HollowPod]] = {}  # by uid
        self.endpoint: Endpoint | None = None  # of the server that answers for the nodes, told to all who register
        self._pod_informer = Informer(client[core_v1.Pod], field_selector=BOUND, indexers={"node": _node_of})
        self._objects = Informer(client[core_v1.Node])
        self._running = False
        self._began = 0.0  # monotonic time of the first beat
        self.fell_silent: Callable[[str], None] = lambda name: None
        self._seed = self.config.seed or str(world.random.getrandbits(64))
        for spec in nodes:
            self.add_node(spec)

    # For those who play fate

    @property
    def names(self) -> list[str]:
        return list(self._nodes)

    @property
    def pods(self) -> int:
        """How many pods are on the nodes."""
        return len(self._pods)

    @property
    def synced(self) -> bool:
        """Whether it knows what the API server has, and the nodes are alive."""
        return self._running

    @property
    def ready(self) -> int:
        """How many nodes are Ready, as the API server has it."""
        return len(self._ready)

    def add_node(self, spec: NodeSpec, *, on: bool = True, cut: bool = False) -> None:
        """A node more; while the fleet runs it registers at once, if it is on and not cut off."""
        timers = self._timers
        machine = HollowNode(self._world, timers, self._changed, spec.stages, spec.boot)
        pods: dict[str, HollowPod] = {}

        def active() -> list[core_v1.Pod]:
            return [p.grants.pod(p.pod) for p in pods.values() if p.counts]

        room = {"cpu": spec.cpu, "memory": spec.memory}
        behaviour = self.config.behaviour
        m = Machine(self._world, timers, machine, spec.address, self._report, self._seed, behaviour, room, active)
        node = _Node(spec, m, pods)
        node.on, node.cut = on, cut
        self._nodes[spec.name] = self._bundles[self._joined % PHASES][spec.name] = node
        node.bundle = self._joined % PHASES
        self._joined += 1
        if self._running and node.connected:
            self._connect(node)

    def remove_node(self, name: str) -> None:
        """As if its machine had been taken away; the Node object is others' to delete."""
        self.power_off(name)
        node = self._nodes.pop(name)
        del self._bundles[node.bundle][name]
        self._ready.pop(name, None)

    def power_off(self, name: str) -> None:
        """The machine stops dead: no word to anyone, and nothing of what ran is left."""
        node = self._nodes[name]
        if not node.on:
            return
        self._silence(node)
        node.on = False
        for uid, pod in node.pods.items():
            pod.forget()
            self._pods.pop(uid, None)
        node.pods.clear()
        node.machine.node.power_off()

    def power_on(self, name: str) -> None:
        """It boots, finds nothing running, and starts what is bound to it."""
        node = self._nodes[name]
        if not node.on:
            node.on, node.registered = True, False
            self._connect(node)

    def partition(self, name: str) -> None:
        """Its pods run on, but it hears nothing and nobody hears of it."""
        node = self._nodes[name]
        self._silence(node)
        node.cut = True

    def _silence(self, node: _Node) -> None:
        """No sign of life follows the one that was due last."""
        if node.connected and self._running:
            now, every = self._world.monotonic(), self.config.lease_period
            first = self._began + node.bundle * every / PHASES
            node.last_sign = max(node.last_sign, first + (now - first) // every * every)
            self._timers.after(0, lambda: self.fell_silent(node.spec.name))

    def last(self, name: str) -> float:
        """When a node gave its last sign of life (monotonic); infinite while it is connected, -infinite if it is not of
        this fleet, or heartbeats are written."""
        node = self._nodes.get(name)
        if node is None or self.config.heartbeats:
            return -math.inf
        return math.inf if node.connected and self._running else node.last_sign

    def heal(self, name: str) -> None:
        node = self._nodes[name]
        if node.cut:
            node.cut = False
            self._connect(node)

    def kill_container(self, namespace: str, pod: str, container: str, exit_code: int = 137) -> None:
        """A container dies. Raises KeyError if it does not run on any of these nodes."""
        pod_object = self._pod_informer.get(namespace, pod)
        node, _ = self._pods[(pod_object and pod_object.metadata.uid) or ""]
        for one in node.machine.node.of_pod((pod_object and pod_object.metadata.uid) or "")[1]:
            if one.name == container and one.state == RUNNING:
                node.machine.node.kill(one.id, exit_code)
                return
        raise KeyError(container)

    def add_images(self, name: str, references: Iterable[str]) -> None:
        """Puts images on a node's disk: they need not be pulled."""
        for reference in references:
            self._nodes[name].machine.node.add_image(reference)

    def is_connected(self, name: str) -> bool:
        """Whether a node has power and reaches others; false of one that is not there."""
        node = self._nodes.get(name)
        return node is not None and node.connected

    def serving(self, uid: str) -> float | None:
        """Since when (Unix) all containers of a pod run, on a node that can be reached; None if they do not."""
        node, pod = self._pods.get(uid, (None, None))
        if node is None or pod is None or not node.connected:
            return None
        alive = [c.started for c in node.machine.node.of_pod(uid)[1] if c.state == RUNNING]
        return max(alive) if alive and len(alive) >= len(pod.pod.spec.containers) else None

    def running(self, name: str) -> list[str]:
        """The containers that run on a node, whatever the API server knows: ``namespace/pod/container``, sorted."""
        machine = self._nodes[name].machine.node
        alive = [c for c in machine.containers.values() if c.state == RUNNING]
        homes = [(machine.sandboxes[c.sandbox_id].config, c.name) for c in alive]
        return sorted(f"{config.namespace}/{config.name}/{container}" for config, container in homes)

    # Running

    async def run(self) -> None:
        self._objects.add_handler(self._node_changed)
        self._pod_informer.add_handler(self._pod_changed)
        try:
            async with self._world.task_group() as group:
                group.start(self._objects.run(), "hollow nodes: nodes")
                group.start(self._pod_informer.run(), "hollow nodes: pods")
                await self._objects.wait_synced()
                await self._pod_informer.wait_synced()
                for lease in (await self._client[coordination_v1.Lease].list(LEASES)).items:
                    if owner := self._nodes.get(lease.metadata.name or ""):
                        owner.lease = lease
                self._running = True
                for node in list(self._nodes.values()):
                    if node.connected:
                        self._connect(node)
                self._began = self._world.monotonic()
                if self.config.heartbeats:
                    self._beat(0, self._began)
                    self._report_bundle(0, self._began)
                for number in range(self.config.writers):
                    group.start(self._write(), f"hollow nodes: writer {number}")
                for number in range(self.config.renewers):
                    group.start(self._renew(), f"hollow nodes: renewer {number}")
        finally:
            self._running = False
            self._timers.clear()
            self._queue.shut_down()
            self._renewals.shut_down()

    def _connect(self, node: _Node) -> None:
        """The node can reach the API server (again): tell all it has to tell, hear all it has missed."""
        name, machine = node.spec.name, node.machine.node
        node.last_sign = self._world.monotonic()
        self._queue.add(("node", name))
        self._renewals.add(name)
        node_object = self._objects.get(None, name)
        if node_object is not None and node_object.spec.pod_cidr:
            machine.configure(node_object.spec.pod_cidr)
        info = node_object.status.node_info if node_object is not None else None
        same = info is not None and info.boot_id == objects.boot_id(node.spec, machine.boots)
        bound = {pod.metadata.uid or "": pod for pod in self._pod_informer.by_index("node", name)}
        for uid, hollow_pod in list(node.pods.items()):
            if uid not in bound:
                hollow_pod.mark_gone()
            else:
                self._queue.add(("pod", uid))
        for pod in bound.values():
            self._observe(node, pod, adopt=same)

    def _beat(self, phase: int, due: float) -> None:
        """Renews the Leases of one bundle of nodes, and sets the clock for the next bundle: no delay adds up."""
        for name, node in self._bundles[phase].items():
            if node.connected:
                self._renewals.add(name)
        due += self.config.lease_period / PHASES
        self._timers.at(due, lambda: self._beat((phase + 1) % PHASES, due))

    def _report_bundle(self, phase: int, due: float) -> None:
        """As :meth:`_beat`, for the statuses."""
        for name, node in self._bundles[phase].items():
            if node.connected and node.registered:
                self._queue.add(("node", name))
        due += self.config.status_period / PHASES
        self._timers.at(due, lambda: self._report_bundle((phase + 1) % PHASES, due))

    # Hearing

    def _node_changed(self, kind: str, old: core_v1.Node | None, new: core_v1.Node) -> None:
        name = new.metadata.name or ""
        node = self._nodes.get(name)
        if node is None:
            return
        ready = get_condition(new.status.conditions, "Ready")
        if kind != "DELETED" and ready is not None and ready.status == "True":
            self._ready[name] = None
        else:
            self._ready.pop(name, None)
        if not node.connected or not self._running:
            return
        if node.lease is None:
            self._renewals.add(name)  # it names the Node as its owner
        if kind == "DELETED":
            node.registered, node.lease = False, None
            self._queue.add(("node", node.spec.name))
            return
        if new.spec.pod_cidr and not node.machine.node.configured:
            node.machine.node.configure(new.spec.pod_cidr)
            for pod in list(node.pods.values()):
                pod.step()
        if node.registered and (ready is None or ready.status != "True"):
            self._queue.add(("node", node.spec.name))  # somebody holds us for dead: contradict

    def _pod_changed(self, kind: str, old: core_v1.Pod | None, new: core_v1.Pod) -> None:
        node = self._nodes.get(new.spec.node_name or "")
        if node is None or not node.connected or not self._running:
            return
        if kind != "DELETED":
            self._observe(node, new)
        elif pod := node.pods.get(new.metadata.uid or ""):
            pod.mark_gone()

    def _observe(self, node: _Node, pod: core_v1.Pod, adopt: bool = False) -> None:
        uid = pod.metadata.uid or ""
        hollow_pod = node.pods.get(uid)
        if hollow_pod is not None:
            hollow_pod.update(pod)
            return
        if is_terminal(pod) and pod.metadata.deletion_timestamp is None:
            return  # it ended before we came, and nobody waits for anything
        new_pod = HollowPod(node.machine, pod)
        node.pods[uid] = new_pod
        self._pods[uid] = node, new_pod
        if adopt:
            new_pod.adopt()
        if node.machine.node.configured or pod.spec.host_network:
            new_pod.step()

    def _changed(self, event: Event) -> None:
        """Something happened on a simulated machine."""
        if owner := self._pods.get(event.pod_uid):
            owner[1].step()

    def _report(self, pod: HollowPod, important: bool) -> None:
        if pod.over and (owner := self._pods.get(pod.uid)) is not None:
            self._room_changed(owner[0])
        if pod.is_gone:
            if pod.over:
                self._forget(pod)
            return
        self._queue.add_after(("pod", pod.uid), 0 if important else PATIENCE)

    def _forget(self, pod: HollowPod) -> None:
        owner = self._pods.pop(pod.uid, None)
        if owner is not None:
            owner[0].pods.pop(pod.uid, None)
            self._room_changed(owner[0])

    def _room_changed(self, node: _Node) -> None:
        for pod in list(node.pods.values()):
            pod.room_changed()

    # Writing

    async def _write(self) -> None:
        while True:
            key = await self._queue.get()
            what, name = key
            await self._try(self._queue, key, self._write_pod(name) if what == "pod" else self._write_node(name))

    async def _renew(self) -> None:
        while True:
            name = await self._renewals.get()
            await self._try(self._renewals, name, self._write_lease(name))

    async def _try(self, queue: WorkQueue[K], key: K, write: Coroutine[Any, Any, None]) -> None:
        """Awaits the write; what fails is tried again later."""
        try:
            await write
            queue.forget(key)
        except (StatusError, TransportError) as error:
            log.warning("%s: %s", key, error)
            queue.add_rate_limited(key)
        finally:
            queue.done(key)

    async def _write_pod(self, uid: str) -> None:
        node, pod = self._pods.get(uid, (None, None))
        if node is None or pod is None or not node.connected or pod.is_gone:
            return
        meta, pods = pod.pod.metadata, self._client[core_v1.Pod]
        name, status = meta.name or "", pod.status
        try:
            if body := status_patch(pod.sent, status):
                await pods.patch_status(name, meta.namespace, {"metadata": {"uid": uid}, "status": body}, "strategic")
                pod.sent = status
            if pod.over and pod.pod.metadata.deletion_timestamp is not None and status is pod.status:
                await pods.delete(name, meta.namespace, grace_period_seconds=0, uid=uid)
        except (NotFound, Conflict) as error:
            if isinstance(error, Conflict) and "UID" not in error.message and "uid" not in error.message:
                raise
            pod.mark_gone()

    async def _write_lease(self, name: str) -> None:
        node = self._nodes.get(name)
        if node is None or not node.connected:
            return
        leases = self._client[coordination_v1.Lease]
        spec = coordination_v1.LeaseSpec(
            holder_identity=name,
            lease_duration_seconds=self.config.lease_duration,
            renew_time=format_micro(self._world.now()),
        )
        try:
            if node.lease is None:
                node_object = self._objects.get(None, name)
                if node_object is None:
                    return  # the next beat comes after it was registered
                owner = meta_v1.OwnerReference(api_version="v1", kind="Node", name=name, uid=node_object.metadata.uid or "")
                meta = meta_v1.ObjectMeta(name=name, namespace=LEASES, owner_references=[owner])
                try:
                    node.lease = await leases.create(coordination_v1.Lease(metadata=meta, spec=spec))
                    return
                except AlreadyExists:
                    node.lease = await leases.get(name, LEASES)
            node.lease = await leases.update(coordination_v1.Lease(metadata=node.lease.metadata, spec=spec))
        except (NotFound, Conflict):
            node.lease = None
            raise

    async def _write_node(self, name: str) -> None:
        node = self._nodes.get(name)
        if node is None or not node.connected:
            return
        nodes, boots = self._client[core_v1.Node], node.machine.node.boots
        node_object = self._objects.get(None, name)
        if node_object is None:
            try:
                await nodes.create(objects.node(node.spec, boots, self.endpoint, self._world.now()))
                node.registered = True
                return
            except AlreadyExists:
                node_object = await nodes.get(name)
        status = objects.status(node.spec, boots, self.endpoint, node_object, self._world.now())
        await nodes.patch_status(name, None, {"status": status}, "strategic")
        node.registered = True


def _node_of(pod: core_v1.Pod) -> list[str]:
    return [pod.spec.node_name] if pod.spec.node_name else []
