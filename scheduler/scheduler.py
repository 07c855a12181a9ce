"""The scheduler's shell: informers feed the node table and the queue, decisions become bindings.

A pod that was decided on is *assumed*: the table counts it on its node at once, while the binding is on its way, so that
the next decision already knows of it. A binding that fails takes the assumption back.
"""

from __future__ import annotations

import asyncio
import logging

from navarch.api.conditions import get_condition
from navarch.api.errors import NotFound, StatusError
from navarch.api.times import format_time
from navarch.api.types import core_v1, meta_v1
from navarch.client.client import Client
from navarch.client.events import EventRecorder
from navarch.client.informer import SharedInformers
from navarch.client.transport import TransportError
from navarch.client.watch import ADDED, DELETED
from navarch.world import TaskGroup, World
from scheduler.config import SchedulerConfig, default_profile
from scheduler.cycle import Decision, schedule
from scheduler.nodes import NodeTable
from scheduler.plugin import NODE_ADDED, NODE_CHANGED, POD_ADDED, POD_CHANGED, POD_GONE, Profile, Rejected
from scheduler.pods import PodInfo
from scheduler.queue import SchedulingQueue

log = logging.getLogger(__name__)

LIVE_PODS = "status.phase!=Succeeded,status.phase!=Failed"
BINDINGS_AT_ONCE = 64
TURN = 16  # decisions after which other tasks (watches, bindings) get a turn


class Scheduler:
    """Binds pods that name its profile in spec.schedulerName."""

    def __init__(
        self, client: Client, world: World, config: SchedulerConfig | None = None, profile: Profile | None = None
    ) -> None:
        config = config or SchedulerConfig()
        self.client, self.world = client, world
        self.profile = profile or default_profile()
        self.table = NodeTable()
        self.queue = SchedulingQueue(
            world,
            tuple(self.profile.plugins),
            config.pod_initial_backoff_seconds,
            config.pod_max_backoff_seconds,
        )
        self.assumed: dict[str, str] = {}  # uid -> node, until the watch shows the binding
        self.informers = SharedInformers(client, world)
        self.nodes = self.informers.informer(core_v1.Node)
        self.pods = self.informers.informer(core_v1.Pod, field_selector=LIVE_PODS)
        self.nodes.add_handler(self.on_node)
        self.pods.add_handler(self.on_pod)
        self.events = EventRecorder(client, world, self.profile.name)

    async def run(self) -> None:
        """Schedules until cancelled."""
        async with self.world.task_group() as group:
            group.start(self.informers.run(), name="informers")
            group.start(self.events.run(), name="events")
            await self.informers.wait_synced()
            await self.work(group)

    async def work(self, group: TaskGroup) -> None:
        room = asyncio.Semaphore(BINDINGS_AT_ONCE)
        decided = 0
        while True:
            pod = await self.queue.pop()
            decided += 1
            if decided % TURN == 0:
                await asyncio.sleep(0)
            decision = schedule(pod, self.table, self.profile, self.world.random)
            if not decision.node:
                self.refuse(decision, group)
                continue
            try:
                for plugin in self.profile.plugins:
                    plugin.reserve(decision.state, pod, decision.node)
            except Rejected as rejected:
                self.unreserve(decision)
                decision.rejection, decision.refused_by = str(rejected), [plugin.name]
                self.refuse(decision, group)
                continue
            self.assumed[pod.uid] = decision.node
            self.table.add_pod(pod, decision.node)
            await room.acquire()
            group.start(self.bind(decision, room), name=f"bind {pod.key}")

    # What the watches say

    def on_node(self, kind: str, old: core_v1.Node | None, node: core_v1.Node) -> None:
        if kind == DELETED:
            self.table.remove_node(node.metadata.name or "")
        elif self.table.set_node(node):
            self.queue.happened(NODE_ADDED if kind == ADDED else NODE_CHANGED)

    def on_pod(self, kind: str, old: core_v1.Pod | None, pod: core_v1.Pod) -> None:
        uid = pod.metadata.uid or ""
        if kind == DELETED:
            self.queue.remove(uid)
            self.assumed.pop(uid, None)
            if self.table.remove_pod(uid):
                self.queue.happened(POD_GONE)
        elif pod.spec.node_name:
            self.queue.remove(uid)
            self.assumed.pop(uid, None)
            known = self.table.pods.get(uid)
            if known is None or known[1] != pod.spec.node_name or known[0].pod.spec != pod.spec:
                self.table.add_pod(PodInfo(pod), pod.spec.node_name)
                self.queue.happened(POD_ADDED)
        elif pod.metadata.deletion_timestamp:
            self.queue.remove(uid)
        elif uid not in self.assumed and pod.spec.scheduler_name == self.profile.name:
            waiting = self.queue.pods.get(uid)
            if waiting is None or waiting.pod.pod.spec != pod.spec:
                self.queue.add(PodInfo(pod))
                if waiting is not None:
                    self.queue.happened(POD_CHANGED)

    # What becomes of a decision

    async def bind(self, decision: Decision, room: asyncio.Semaphore) -> None:
        pod, node = decision.pod, decision.node
        try:
            for plugin in self.profile.plugins:
                await plugin.permit(decision.state, pod, node)
            for plugin in self.profile.plugins:
                await plugin.pre_bind(decision.state, pod, node)
            for plugin in self.profile.plugins:
                if await plugin.bind(decision.state, pod, node):
                    break
            else:
                await self.post_binding(pod, node)
        except NotFound:
            self.forget(decision)
            self.queue.remove(pod.uid)  # deleted while it was on its way
        except (StatusError, TransportError, Rejected) as error:
            log.warning("binding %s to %s: %s", pod.key, node, error)
            self.forget(decision)
            self.queue.failed(pod.uid)
            self.events.event(pod.pod, "Warning", "FailedScheduling", f"binding rejected: {error}")
        else:
            for plugin in self.profile.plugins:
                plugin.post_bind(decision.state, pod, node)
            self.queue.remove(pod.uid)
            self.events.event(pod.pod, "Normal", "Scheduled", f"Successfully assigned {pod.key} to {node}")
        finally:
            room.release()

    async def post_binding(self, pod: PodInfo, node: str) -> None:
        meta = pod.pod.metadata
        body = core_v1.Binding(
            api_version="v1",
            kind="Binding",
            metadata=meta_v1.ObjectMeta(name=meta.name, namespace=meta.namespace, uid=meta.uid),
            target=core_v1.ObjectReference(api_version="v1", kind="Node", name=node),
        )
        await self.client[core_v1.Pod].sub(meta.name or "", meta.namespace, "binding", body)

    def forget(self, decision: Decision) -> None:
        """Takes an assumption back, unless the watch has confirmed it meanwhile."""
        self.unreserve(decision)
        if self.assumed.pop(decision.pod.uid, None) is not None and self.table.remove_pod(decision.pod.uid):
            self.queue.happened(POD_GONE)

    def unreserve(self, decision: Decision) -> None:
        for plugin in reversed(self.profile.plugins):
            plugin.unreserve(decision.state, decision.pod, decision.node)

    def refuse(self, decision: Decision, group: TaskGroup) -> None:
        pod = decision.pod
        for plugin in self.profile.plugins:
            plugin.post_filter(decision.state, pod, self.table)
        self.queue.unschedulable(pod.uid, decision.refused_by)
        message = decision.message()
        self.events.event(pod.pod, "Warning", "FailedScheduling", message)
        current = get_condition(pod.pod.status.conditions, "PodScheduled")
        if current is None or current.status != "False" or current.message != message:
            group.start(self.report(pod, message), name=f"report {pod.key}")

    async def report(self, pod: PodInfo, message: str) -> None:
        """Sets the PodScheduled condition that says why the pod is pending."""
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": format_time(self.world.now()),
        }
        meta = pod.pod.metadata
        body = {"metadata": {"uid": meta.uid}, "status": {"conditions": [condition]}}
        try:
            await self.client[core_v1.Pod].patch_status(meta.name or "", meta.namespace, body, type="strategic")
        except (StatusError, TransportError) as error:
            log.info("condition of %s: %s", pod.key, error)
