"""The node lifecycle controller: notices silent nodes, says so in conditions and taints, and marks their pods unready.

A sign of life is a renewed Lease or a new heartbeat in the node's status; when it came is measured on our own clock,
so nodes' clocks do not matter. A sign of life costs one assignment: only a timer at the end of the grace period, one a
node, looks whether there was any.
"""

from __future__ import annotations

import math

import msgspec

from controllers.controller import Context, Controller
from controllers.nodes import health, zones
from navarch.api.conditions import get_condition
from navarch.api.errors import Conflict, NotFound, StatusError
from navarch.api.pods import is_terminal
from navarch.api.times import format_time, parse_time
from navarch.api.types import coordination_v1, core_v1
from navarch.client.events import NORMAL, WARNING

Node = core_v1.Node
Pod = core_v1.Pod
Lease = coordination_v1.Lease

LEASES = "kube-node-lease"
BY_NODE = "node"


def by_node(pod: Pod) -> list[str]:
    return [pod.spec.node_name] if pod.spec.node_name else []


class NodeLifecycleController(Controller):
    """Keys are nodes."""

    name = "node-lifecycle-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.events = context.recorder("node-controller")
        self.zones = zones.Zones(self.config)
        self.nodes = self.informer(Node)
        self.pods = self.informer(Pod, {BY_NODE: by_node})
        self.leases = context.informers.informer(Lease, namespace=LEASES)
        self._informers.append(self.leases)
        self.keys_are_of(self.nodes)
        self._heard: dict[str, float] = {}  # monotonic time of the last sign of life, by node
        self._admitted: dict[str, None] = {}  # nodes whose turn has come, until the taint is written
        self.nodes.add_handler(self._node_changed)
        self.pods.add_handler(self._pod_changed)
        self.leases.add_handler(self._lease_changed)
        if context.heartbeats is not None:
            context.heartbeats.fell_silent = self.queue.add

    # Events

    def _node_changed(self, kind: str, old: Node | None, new: Node) -> None:
        name = new.metadata.name or ""
        if kind == "DELETED":
            self._heard.pop(name, None)
            self._admitted.pop(name, None)
            if self.zones.forget(name, self.world.monotonic()):
                self._all_changed()
            self._tell(new, "RemovingNode", f"Removing Node {name} from Controller")
        elif old is None:
            self._heard[name] = self.world.monotonic()
            self._tell(new, "RegisteredNode", f"Registered Node {name} in Controller")
        elif _heartbeat(old) != _heartbeat(new):
            self._heard[name] = self.world.monotonic()
        self.queue.add(name)

    def _lease_changed(self, kind: str, old: Lease | None, new: Lease) -> None:
        name = new.metadata.name or ""
        if kind == "DELETED" or (old is not None and old.spec.renew_time == new.spec.renew_time):
            return
        if name in self._heard:
            self._heard[name] = self.world.monotonic()

    def _pod_changed(self, kind: str, old: Pod | None, new: Pod) -> None:
        """A pod that is bound to a node which is not ready must not look ready."""
        if kind == "DELETED" or not new.spec.node_name or (old is not None and old.spec.node_name):
            return
        node = self.nodes.get(None, new.spec.node_name)
        if node is not None and health.readiness(node) != "True":
            self.queue.add(new.spec.node_name)

    def _tell(self, node: Node, reason: str, what: str) -> None:
        self.events.event(node, NORMAL, reason, f"Node {node.metadata.name} event: {what}")

    def _all_changed(self) -> None:
        """All zones went down, or came back: then nobody is blamed for the time that we could not hear."""
        if self.zones.all_down:
            self.log.warning("all zones are down: no pods will be evicted")
        else:
            now = self.world.monotonic()
            self._heard = dict.fromkeys(self._heard, now)
        for name in self.nodes.keys():  # noqa: SIM118 (an informer is no dict)
            self.queue.add(name)

    # Work

    async def synced(self) -> None:
        """All nodes are counted before any is judged: else the first sick one would pass for a whole zone."""
        await super().synced()
        now = self.world.monotonic()
        for node in self.nodes.list():
            if health.has_reported(node):
                ready = health.readiness(node) == "True"
                self.zones.observe(node.metadata.name or "", zones.zone_of(node), ready, now)

    async def reconcile(self, key: str) -> float | None:
        node = self.nodes.get(None, key)
        if node is None:
            return None
        heard = self._heard.setdefault(key, self.world.monotonic())
        if self.context.heartbeats is not None:
            heard = max(heard, self.context.heartbeats.last(key))
        lease = self.leases.get(LEASES, key)
        grace = health.grace(node, lease, self.config.node_monitor_grace_period, self.config.node_startup_grace_period)
        remaining = heard + grace - self.world.monotonic()
        if remaining <= 0:
            node = await self._silent(node)
        readiness = health.readiness(node)
        if health.has_reported(node) and self.zones.observe(
            key, zones.zone_of(node), readiness == "True", self.world.monotonic()
        ):
            self._all_changed()
        waits = [await self._taint(node)]
        if readiness != "True" and health.has_reported(node):
            await self._mark_pods(node)
        if 0 < remaining < math.inf:
            waits.append(remaining + 0.001)
        return min((w for w in waits if w is not None), default=None)

    async def _silent(self, node: Node) -> Node:
        """Writes Unknown into the conditions of a node that has been silent for too long."""
        now = self.world.now()
        conditions = health.silent_conditions(node, now)
        if conditions is None:
            return node
        was_ready = health.readiness(node) == "True"
        status = msgspec.structs.replace(node.status, conditions=conditions)
        written = await self.client[Node].update_status(msgspec.structs.replace(node, status=status))
        name = node.metadata.name or ""
        self.log.warning("node %s has been silent for too long", name)
        if was_ready:
            self.events.event(node, NORMAL, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        return written

    async def _taint(self, node: Node) -> float | None:
        """Writes the taints; returns the seconds to wait if the NoExecute taint must wait for its turn."""
        name = node.metadata.name or ""
        execute = health.execute_taint(node)
        wait: float | None = None
        if execute is None or self.zones.all_down:
            execute = None
            self.zones.withdraw(name)
            self._admitted.pop(name, None)
        elif health.has_execute_taint(node):
            self._admitted.pop(name, None)
        elif name not in self._admitted:
            wait = self.zones.may_evict(name, self.world.monotonic())
            if wait == 0:
                self._admitted[name] = None
            else:
                execute = None
                self.log.debug("node %s: eviction waits %s s", name, wait)
            wait = wait or None
        taints = health.with_taints(node, health.schedule_taints(node), execute, self.world.now())
        if taints is not None:
            listed = [msgspec.to_builtins(t) for t in taints]
            patch = {
                "metadata": {"resourceVersion": node.metadata.resource_version},
                "spec": {"taints": listed or None},
            }
            await self.client[Node].patch(name, None, patch)
            for waiting in self.zones.waiting(zones.zone_of(node))[:1]:
                self.queue.add(waiting)
        return wait

    async def _mark_pods(self, node: Node) -> None:
        """Pods of the node that look ready since before it fell silent are not ready any more, for all we know.

        A pod that became ready later was reported by a living agent: it is left alone.
        """
        since = get_condition(node.status.conditions, "Ready")
        limit = parse_time(since.last_transition_time) if since is not None and since.last_transition_time else 0.0
        failed: StatusError | None = None
        for pod in self.pods.by_index(BY_NODE, node.metadata.name or ""):
            ready = get_condition(pod.status.conditions, "Ready")
            if is_terminal(pod) or ready is None or ready.status != "True":
                continue
            if ready.last_transition_time and parse_time(ready.last_transition_time) > limit:
                continue
            new = msgspec.structs.replace(ready, status="False", last_transition_time=format_time(self.world.now()))
            conditions = [new if c is ready else c for c in pod.status.conditions or ()]
            status = msgspec.structs.replace(pod.status, conditions=conditions)
            try:
                await self.client[Pod].update_status(msgspec.structs.replace(pod, status=status))
                self.events.event(pod, WARNING, "NodeNotReady", "Node is not ready")
            except NotFound:
                pass
            except Conflict as error:
                failed = error
        if failed is not None:
            raise failed


def _heartbeat(node: Node) -> str | None:
    ready = get_condition(node.status.conditions, "Ready")
    return ready.last_heartbeat_time if ready is not None else None
