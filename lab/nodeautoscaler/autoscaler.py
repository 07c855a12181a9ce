"""The autoscaler's loop on a simulated cluster: looks, asks what to do, orders and removes machines, and tells it in Events."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab.nodeautoscaler import scaledown, scaleup
from lab.nodeautoscaler.groups import Group, Options
from lab.nodeautoscaler.room import Room
from navarch.api import pods as podrules
from navarch.api.conditions import get_condition
from navarch.api.errors import NotFound, StatusError
from navarch.api.types import apps_v1, core_v1, policy_v1, storage_v1
from navarch.client.events import NORMAL, WARNING, EventRecorder
from navarch.client.transport import TransportError
from navarch.world import Backoff, TaskGroup, chance
from nodeagent.hollow.objects import NodeSpec
from nodeagent.runtime.spread import Spread
from scheduler.framework.plugin import Profile
from scheduler.state.pods import PodInfo

if TYPE_CHECKING:
    from lab.simulation.cluster import Simulation

log = logging.getLogger(__name__)

TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"
PROVISION_TIME = 900.0  # seconds after which a node that does not become Ready is not waited for any more
STORAGE = (core_v1.PersistentVolumeClaim, core_v1.PersistentVolume, storage_v1.StorageClass, storage_v1.CSIDriver,
           storage_v1.CSINode, storage_v1.CSIStorageCapacity, storage_v1.VolumeAttachment)  # fmt: skip
Sizes = Callable[[str, Mapping[str, float]], None]
"""Is told of each group, when it changes: its name, and ``nodes`` (with those that boot), ``booting``, ``price``."""


class NodeAutoscaler:
    """``address``: of the n-th node of the cluster. ``first``: the n of the next node. ``seed``: of boot times and ties. The
    least nodes of each group are there already, as ``NAME-1`` and so on."""

    def __init__(
        self,
        cluster: Simulation,
        groups: Sequence[Group],
        options: Options,
        profiles: Mapping[str, Profile],
        *,
        seed: str,
        first: int,
        address: Callable[[int], str],
        on_size: Sizes = lambda name, values: None,
    ) -> None:
        self.cluster, self.world = cluster, cluster.world
        self.groups, self.options, self.profiles = groups, options, profiles
        self.client = cluster.connect("cluster-autoscaler")
        self.events = EventRecorder(self.client, cluster.world, "cluster-autoscaler")
        self._address, self._next, self._on_size = address, first, on_size
        self._boots, self._ties = chance(f"{seed} boots"), chance(f"{seed} expander")
        self._count = {g.name: g.least for g in groups}  # nodes so far, for names
        self._nodes = {f"{g.name}-{n}": g for g in groups for n in range(1, g.least + 1)}
        self._booting: dict[str, None] = {}
        self._coming: dict[str, tuple[NodeSpec, float]] = {}  # not Ready yet, and until when that is no wonder
        self._going: dict[str, None] = {}
        self._unneeded: dict[str, float] = {}
        self._added = self._deleted = self._failed = -math.inf
        self._group: TaskGroup

    async def run(self) -> None:
        """Scans until cancelled."""
        for group in self.groups:
            self._tell(group)
        async with self.world.task_group() as self._group:
            self._group.start(self.events.run(), "cluster-autoscaler: events")
            while True:
                await self.world.sleep(self.options.scan_interval)
                self.scan()

    def scan(self) -> None:
        """One look, and what follows from it."""
        now = self.world.monotonic()
        self._coming = {
            n: one for n, one in self._coming.items() if not self.cluster.node_schedulable(n) and now < one[1]
        }
        self._grow()
        if self.options.scale_down:
            self._shrink()

    def size(self, group: Group) -> int:
        """Nodes that are there, boot, or go."""
        return sum(g is group for g in self._nodes.values())

    # Up

    def _grow(self) -> None:
        pending = [PodInfo(p) for p in self.cluster.objects(core_v1.Pod) if self._waits(p)]
        if not pending:
            return
        room = self._room()
        for name, (spec, _) in self._coming.items():
            room.table.remove_node(name)  # it may have registered, and be tainted still
            room.add_template(spec)
        sizes = {g: self.size(g) for g in self.groups}
        growth = scaleup.grow(pending, room, sizes, self.options.expander, self._ties)
        for pod, reasons in growth.refused.values():
            text = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
            self.events.event(pod.pod, NORMAL, "NotTriggerScaleUp", f"pod didn't trigger scale-up: {text}")
        if growth.choice is not None:
            self._order(growth.choice)

    def _waits(self, pod: core_v1.Pod) -> bool:
        condition = get_condition(pod.status.conditions, "PodScheduled")
        return (
            condition is not None and condition.status == "False" and condition.reason == "Unschedulable"
            and not pod.spec.node_name and podrules.is_active(pod) and not scaledown.is_daemon(pod)
            and (pod.spec.scheduler_name or "default-scheduler") in self.profiles
        )  # fmt: skip

    def _order(self, option: scaleup.Option) -> None:
        group, before = option.group, self.size(option.group)
        for _ in range(option.nodes):
            self._count[group.name] += 1
            spec = group.node(self._count[group.name], self._address(self._next))
            self._next += 1
            boot = group.boot.draw(self._boots) if isinstance(group.boot, Spread) else group.boot
            self._nodes[spec.name], self._booting[spec.name] = group, None
            self._coming[spec.name] = spec, self.world.monotonic() + boot + PROVISION_TIME
            self._group.start(self._boot(spec, boot), f"cluster-autoscaler: boot {spec.name}")
        self._added = self.world.monotonic()
        text = f"pod triggered scale-up: [{{{group.name} {before}->{before + option.nodes} (max: {group.most})}}]"
        for pod in option.pods:
            self.events.event(pod.pod, NORMAL, "TriggeredScaleUp", text)
        self._tell(group)

    async def _boot(self, spec: NodeSpec, seconds: float) -> None:
        await self.world.sleep(seconds)
        self.cluster.fleet.add_node(spec)
        del self._booting[spec.name]
        self._tell(self._nodes[spec.name])

    # Down

    def _shrink(self) -> None:
        now, options = self.world.monotonic(), self.options
        spare = {g.name: self.size(g) - sum(self._nodes[n] is g for n in self._going) - g.least for g in self.groups}
        if not any(n > 0 for n in spare.values()):
            self._unneeded.clear()
            return
        room = self._room()
        candidates = [
            scaledown.Candidate(node, self._nodes[name].name, tuple(room.table.by_node.get(name, {}).values()))
            for node in self.cluster.objects(core_v1.Node)
            if (name := node.metadata.name or "") in self._nodes and spare[self._nodes[name].name] > 0
            and name not in self._going and name not in self._coming and self.cluster.node_ready(name)
        ]  # fmt: skip
        budgets = self.cluster.objects(policy_v1.PodDisruptionBudget)
        plan = scaledown.shrink(candidates, room, spare, budgets, self._unneeded, now, options)
        self._unneeded = plan.unneeded
        waits = ((self._added, options.delay_after_add), (self._deleted, options.delay_after_delete),
                 (self._failed, options.delay_after_failure))  # fmt: skip
        if any(now < at + delay for at, delay in waits):
            return
        for one in plan.empty:
            self._begin(one.node, ())
        if plan.drain is not None and not self._going:
            self._begin(plan.drain[0].node, plan.drain[1])

    def _begin(self, node: core_v1.Node, pods: Sequence[PodInfo]) -> None:
        name = node.metadata.name or ""
        self._going[name] = None
        self._unneeded.pop(name, None)
        self._group.start(self._remove(node, [p.pod for p in pods]), f"cluster-autoscaler: remove {name}")

    async def _remove(self, node: core_v1.Node, pods: Sequence[core_v1.Pod]) -> None:
        """Taints the node, evicts its pods, waits until they are gone, and takes the machine away; if that is not possible,
        the node stays."""
        name = node.metadata.name or ""
        try:
            await self._taint(name, True)
            self.events.event(node, NORMAL, "ScaleDown", "marked the node as toBeDeleted/unschedulable")
            for pod in pods:
                self.events.event(pod, NORMAL, "ScaleDown", "deleting pod for node scale down")
            await self._empty(pods)
            self.cluster.fleet.remove_node(name)
            group = self._nodes.pop(name)
            self._deleted = self.world.monotonic()
            self._tell(group)
            self.events.event(node, NORMAL, "ScaleDown", "node removed by cluster autoscaler")
            await self._again(lambda: self.client[core_v1.Node].delete(name))
        except TimeoutError as error:
            self._failed = self.world.monotonic()
            self.events.event(node, WARNING, "ScaleDownFailed", f"failed to drain the node: {error}")
            await self._taint(name, False)
        finally:
            self._going.pop(name, None)

    async def _empty(self, pods: Sequence[core_v1.Pod]) -> None:
        """Raises TimeoutError."""
        waiting = {f"{pod.metadata.namespace}/{pod.metadata.name}" for pod in pods}
        try:
            async with asyncio.timeout(self.options.max_pod_eviction_time), self.world.task_group() as group:
                for key in sorted(waiting):
                    group.start(self._evict(key, waiting), f"cluster-autoscaler: evict {key}")
        except TimeoutError:
            raise TimeoutError(f"not evicted in time: {', '.join(sorted(waiting))}") from None
        uids = {pod.metadata.uid for pod in pods}
        deadline = self.world.monotonic() + self.options.max_graceful_termination
        while alive := [p for p in self.cluster.objects(core_v1.Pod) if p.metadata.uid in uids]:
            if self.world.monotonic() >= deadline:
                raise TimeoutError(f"{len(alive)} pods did not end in time")
            await self.world.sleep(1.0)

    async def _evict(self, key: str, waiting: set[str]) -> None:
        """Asks until the pod goes, or is gone; then it waits no longer. Refusals by a budget are asked again by the client."""
        namespace, name = key.split("/")
        body = b'{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"%s"}}' % name.encode()
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
        await self._again(lambda: self.client.request("POST", path, body=body))
        waiting.discard(key)

    async def _taint(self, name: str, on: bool) -> None:
        nodes = self.client[core_v1.Node]

        async def change() -> None:
            node = await nodes.get(name)
            others = [t for t in node.spec.taints or () if t.key != TO_BE_DELETED]
            new = core_v1.Taint(key=TO_BE_DELETED, value=str(int(self.world.now())), effect="NoSchedule")
            node.spec.taints = [*others, new] if on else others
            await nodes.update(node)

        await self._again(change)

    async def _again(self, write: Callable[[], Any]) -> None:
        """Writes, again and again while the server cannot be reached or the object changes; what is gone is gone."""
        backoff = Backoff(self.world, first=0.2, most=30.0)
        while True:
            try:
                await write()
                return
            except NotFound:
                return
            except (StatusError, TransportError) as error:
                log.info("cluster-autoscaler: %s", error)
                await self.world.sleep(backoff.next())

    # Looking

    def _room(self) -> Room:
        """All nodes but those that go, with the pods on them; pods that have preempted others count on their node."""
        objects = self.cluster.objects
        nodes = [n for n in objects(core_v1.Node) if n.metadata.name not in self._going]
        pods = [PodInfo(p) for p in objects(core_v1.Pod) if p.spec.node_name and not podrules.is_terminal(p)]
        storage = [one for kind in STORAGE for one in objects(kind)]
        return Room(self.profiles, nodes, pods, objects(apps_v1.DaemonSet), objects(core_v1.Namespace), storage)

    def _tell(self, group: Group) -> None:
        booting = sum(self._nodes[n] is group for n in self._booting)
        self._on_size(group.name, {"nodes": self.size(group), "booting": booting, "price": group.price})

