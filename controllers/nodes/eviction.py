"""Taint-based eviction: deletes pods from nodes with NoExecute taints that they do not tolerate, or not for ever."""

from __future__ import annotations

import msgspec

from controllers.controller import Context, Controller
from controllers.nodes.lifecycle import BY_NODE, by_node
from navarch.api.affinity import eviction_seconds
from navarch.api.conditions import get_condition, set_condition
from navarch.api.errors import Conflict, NotFound
from navarch.api.times import format_time, parse_time
from navarch.api.types import core_v1
from navarch.client.events import NORMAL

Node = core_v1.Node
Pod = core_v1.Pod
Taint = core_v1.Taint


def no_execute(node: Node) -> list[Taint]:
    return [t for t in node.spec.taints or () if t.effect == "NoExecute"]


def due(pod: Pod, taints: list[Taint], first_seen: float) -> float | None:
    """Unix time at which the pod must go; None: never. ``first_seen`` stands in for taints that carry no time.

    Each taint counts from when both it and the pod were there: so a restart of the controller prolongs nothing.
    """
    start = _bound_at(pod)
    out: float | None = None
    for taint in taints:
        seconds = eviction_seconds(pod.spec.tolerations, [taint])
        if seconds is None:
            continue
        added = parse_time(taint.time_added) if taint.time_added else first_seen
        at = max(added, start) + seconds
        out = at if out is None else min(out, at)
    return out


def _bound_at(pod: Pod) -> float:
    scheduled = get_condition(pod.status.conditions, "PodScheduled")
    times = [pod.metadata.creation_timestamp, scheduled.last_transition_time if scheduled is not None else None]
    return max((parse_time(t) for t in times if t), default=0.0)


class TaintEvictionController(Controller):
    """Keys are pods."""

    name = "taint-eviction-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.events = context.recorder(self.name)
        self.nodes = self.informer(Node)
        self.pods = self.informer(Pod, {BY_NODE: by_node})
        self.keys_are_of(self.pods)
        self._first_seen: dict[str, dict[str, float]] = {}  # when a taint without a time was first seen, by node, key
        self._doomed: dict[str, None] = {}  # pods that wait for their end
        self.nodes.add_handler(self._node_changed)
        self.pods.add_handler(self._pod_changed)

    def _node_changed(self, kind: str, old: Node | None, new: Node) -> None:
        name = new.metadata.name or ""
        before = no_execute(old) if old is not None else []
        after = no_execute(new) if kind != "DELETED" else []
        earlier = self._first_seen.pop(name, {})
        if after:
            now = self.world.now()
            self._first_seen[name] = {t.key: earlier.get(t.key, now) for t in after}
        if before != after:
            for pod in self.pods.by_index(BY_NODE, name):
                self.enqueue(pod)

    def _pod_changed(self, kind: str, old: Pod | None, new: Pod) -> None:
        if kind == "MODIFIED" and old is not None:
            same = old.spec.node_name == new.spec.node_name and old.spec.tolerations == new.spec.tolerations
            if same and old.metadata.deletion_timestamp == new.metadata.deletion_timestamp:
                return
        if new.spec.node_name:
            self.enqueue(new)

    async def reconcile(self, key: str) -> float | None:
        pod = self.pods.get_key(key)
        node = self.nodes.get(None, pod.spec.node_name) if pod is not None and pod.spec.node_name else None
        if pod is None or node is None or pod.metadata.deletion_timestamp is not None:
            self._doomed.pop(key, None)
            return None
        first_seen = self._first_seen.get(node.metadata.name or "", {})
        now = self.world.now()
        at = due(pod, no_execute(node), min(first_seen.values(), default=now))
        if at is None:
            if key in self._doomed:
                del self._doomed[key]
                self.events.event(pod, NORMAL, "TaintManagerEviction", f"Cancelling deletion of Pod {key}")
            return None
        if at > now:
            self._doomed[key] = None
            return at - now
        self._doomed.pop(key, None)
        await self._evict(pod, key)
        return None

    async def _evict(self, pod: Pod, key: str) -> None:
        self.events.event(pod, NORMAL, "TaintManagerEviction", f"Marking for deletion Pod {key}")
        condition = core_v1.PodCondition(
            type="DisruptionTarget",
            status="True",
            reason="DeletionByTaintManager",
            message="Taint manager: deleting due to NoExecute taint",
        )
        conditions, changed = set_condition(pod.status.conditions, condition, format_time(self.world.now()))
        pods = self.client[Pod]
        try:
            if changed:
                status = msgspec.structs.replace(pod.status, conditions=conditions)
                await pods.update_status(msgspec.structs.replace(pod, status=status))
            await pods.delete(pod.metadata.name or "", pod.metadata.namespace, uid=pod.metadata.uid)
        except NotFound:
            pass
        except Conflict:
            raise  # changed meanwhile: look again
