"""Pods that nobody else will clear away: bound to nodes that are gone, deleted before they were bound, too many finished."""

from __future__ import annotations

import msgspec

from controllers.controller import Context, Controller
from controllers.controller import key as key_of_object
from controllers.nodes.health import OUT_OF_SERVICE, readiness
from controllers.nodes.lifecycle import BY_NODE, by_node
from navarch.api.conditions import set_condition
from navarch.api.errors import Conflict, NotFound
from navarch.api.pods import is_terminal
from navarch.api.times import format_time
from navarch.api.types import core_v1

Node = core_v1.Node
Pod = core_v1.Pod

FINISHED = "finished"
EXCESS = "#excess"
"""Key that stands for: are there too many finished pods?"""


def finished(pod: Pod) -> list[str]:
    return [FINISHED] if is_terminal(pod) and pod.metadata.deletion_timestamp is None else []


class PodGCController(Controller):
    """Keys are pods, and EXCESS."""

    name = "pod-garbage-collector-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes = self.informer(Node)
        self.pods = self.informer(Pod, {BY_NODE: by_node, FINISHED: finished})
        self.keys_are_of(self.pods)
        self._gone_since: dict[str, float] = {}  # monotonic time at which a node was first missed
        self._finished = 0
        self.nodes.add_handler(self._node_changed)
        self.pods.add_handler(self._pod_changed)

    def _node_changed(self, kind: str, old: Node | None, new: Node) -> None:
        name = new.metadata.name or ""
        if kind != "DELETED":
            self._gone_since.pop(name, None)
            if not _out_of_service(new):
                return
        pods = self.pods.by_index(BY_NODE, name)
        if kind == "DELETED" and pods:
            self._gone_since[name] = self.world.monotonic()
        for pod in pods:
            self.enqueue(pod)

    def _pod_changed(self, kind: str, old: Pod | None, new: Pod) -> None:
        before = bool(old is not None and finished(old))
        after = bool(kind != "DELETED" and finished(new))
        self._finished += after - before
        if after and not before and 0 < self.config.terminated_pod_gc_threshold < self._finished:
            self.queue.add(EXCESS)
        if kind == "DELETED":
            return
        if not new.spec.node_name:
            stuck = new.metadata.deletion_timestamp is not None
        elif (node := self.nodes.get(None, new.spec.node_name)) is not None:
            stuck = new.metadata.deletion_timestamp is not None and _out_of_service(node)
        else:
            stuck = True
        if stuck:
            self.enqueue(new)

    async def reconcile(self, key: str) -> float | None:
        if key == EXCESS:
            await self._delete_excess()
            return None
        pod = self.pods.get_key(key)
        if pod is None:
            return None
        name = pod.spec.node_name
        if not name:
            if pod.metadata.deletion_timestamp is not None:
                await self._delete(pod, None)
            return None
        node = self.nodes.get(None, name)
        if node is not None:
            if pod.metadata.deletion_timestamp is not None and _out_of_service(node):
                await self._delete(pod, None)
            return None
        since = self._gone_since.setdefault(name, self.world.monotonic())
        remaining = since + self.config.pod_gc_quarantine - self.world.monotonic()
        if remaining > 0:
            return remaining + 0.001
        try:
            await self.client[Node].get(name)
        except NotFound:
            await self._delete(pod, "PodGC: node no longer exists")
        return None

    async def _delete(self, pod: Pod, why: str | None) -> None:
        """Deletes without waiting for an agent; a pod that had not finished has failed."""
        pods = self.client[Pod]
        self.log.info("deleting pod %s: %s", key_of_object(pod), why or "it is terminating and no agent will end it")
        try:
            if not is_terminal(pod):
                conditions = pod.status.conditions
                if why is not None:
                    condition = core_v1.PodCondition(
                        type="DisruptionTarget", status="True", reason="DeletionByPodGC", message=why
                    )
                    conditions, _ = set_condition(conditions, condition, format_time(self.world.now()))
                status = msgspec.structs.replace(pod.status, phase="Failed", conditions=conditions)
                await pods.update_status(msgspec.structs.replace(pod, status=status))
            meta = pod.metadata
            await pods.delete(meta.name or "", meta.namespace, grace_period_seconds=0, uid=meta.uid)
        except NotFound:
            pass

    async def _delete_excess(self) -> None:
        limit = self.config.terminated_pod_gc_threshold
        pods = self.pods.by_index(FINISHED, FINISHED)
        if limit <= 0 or len(pods) <= limit:
            return
        pods.sort(key=lambda p: (p.metadata.creation_timestamp or "", p.metadata.name or ""))
        for pod in pods[: len(pods) - limit]:
            try:
                await self._delete(pod, None)
            except Conflict:
                continue


def _out_of_service(node: Node) -> bool:
    """Whether a person vouches that the node is down for good, and it does not say otherwise."""
    return readiness(node) != "True" and any(t.key == OUT_OF_SERVICE for t in node.spec.taints or ())
