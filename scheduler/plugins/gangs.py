"""Coscheduling: the pods of a group are bound together or not at all (gang scheduling).

A pod says which group it is of with the label ``scheduling.x-k8s.io/pod-group``; how many must go at once is the
``minMember`` of the PodGroup of that name (scheduling.x-k8s.io/v1alpha1, if that resource is installed), or of the pod's
annotation ``scheduling.x-k8s.io/min-member``. Both names are those of Kubernetes' coscheduling plugin.

Each member is decided on as any pod is, and then waits for its permit, with its room kept, until enough members have a
place. Groups do not block each other for ever: the queue keeps the members of a group together, so that two groups seldom
fill the cluster halves; and when a member fits nowhere, or the wait is over, all that wait give their room back at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from navarch.api.errors import StatusError
from navarch.api.kinds import Kind
from navarch.api.types import core_v1, meta_v1
from navarch.api.types.base import Struct
from navarch.client.informer import Informer
from navarch.client.transport import TransportError
from scheduler.framework.outcomes import Rejected
from scheduler.framework.plugin import (
    NODE_ADDED,
    NODE_CHANGED,
    POD_ADDED,
    POD_CHANGED,
    POD_GONE,
    POD_PENDING,
    Attempt,
    CycleState,
    Event,
    Handle,
    Plan,
    Plugin,
    Ranked,
    Reach,
)
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import Mask, NodeTable
from scheduler.state.pods import LIVE_PODS, PodInfo

GROUP_LABEL = "scheduling.x-k8s.io/pod-group"
MIN_MEMBER = "scheduling.x-k8s.io/min-member"
GROUPS = Kind("scheduling.x-k8s.io", "v1alpha1", "PodGroup", "podgroups")
GROUP_CHANGED = "PodGroup"
ASK_AGAIN = 15.0  # seconds until the next look whether PodGroups are served


class PodGroupSpec(Struct, kw_only=True, omit_defaults=True):
    min_member: int = msgspec.field(default=0, name="minMember")
    schedule_timeout_seconds: int | None = msgspec.field(default=None, name="scheduleTimeoutSeconds")


class PodGroup(Struct, kw_only=True, omit_defaults=True):
    metadata: meta_v1.ObjectMeta
    spec: PodGroupSpec = msgspec.field(default_factory=PodGroupSpec)


class Coscheduling(Plugin):
    """``wait``: seconds that a member waits for the others, if its PodGroup does not say; ``backoff``: seconds for which a
    group is not tried after it failed."""

    name = "Coscheduling"
    reads = NOTHING_ELSE
    events = frozenset({POD_ADDED, POD_GONE, POD_PENDING, NODE_ADDED, NODE_CHANGED, GROUP_CHANGED, POD_CHANGED})

    def __init__(self, wait: float = 60.0, backoff: float = 0.0) -> None:
        self.wait, self.backoff = wait, backoff
        self._handle: Handle | None = None
        self._pods: Informer[core_v1.Pod] | None = None
        self._groups: dict[str, PodGroup] = {}
        self._since: dict[str, float] = {}  # group -> when its first member was queued
        self._denied: dict[str, float] = {}  # group -> until when it is not tried

    def start(self, handle: Handle) -> None:
        self.__init__(self.wait, self.backoff)  # type: ignore[misc]
        self._handle = handle
        self._pods = handle.informers.informer(core_v1.Pod, field_selector=LIVE_PODS)
        self._pods.add_index(GROUP_LABEL, _group_of_pod)
        handle.background.append(self._follow_groups)

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.EVERYWHERE if group_of(pod) else Reach.NOWHERE

    def order(self, pod: PodInfo, since: float) -> tuple[Any, ...]:
        """By priority, then by the age of the group, so that members follow one another."""
        group = group_of(pod)
        if not group:
            return -pod.priority, since, pod.key
        if len(self._since) > 10_000:
            self._since.clear()
        return -pod.priority, self._since.setdefault(group, since), group

    def helps(self, event: Event, pod: PodInfo, table: NodeTable) -> bool:
        """A member more, or room that another group or a pod alone gave up."""
        other = event.pod
        if other is None:
            return event.object is None or group_of(pod) == _key(event.object)
        same = group_of(other) == group_of(pod)
        return not same if event.kind == POD_GONE else same

    # Deciding

    def pre_filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Mask | None:
        group = group_of(pod)
        if not group or self._handle is None:
            return None
        least, members = self._least(pod, group), len(self._members(group))
        if members < least:
            raise Rejected(f"pod group {group} has {members} of the {least} pods that it needs at least")
        if self._denied.get(group, 0.0) > self._handle.world.monotonic():
            raise Rejected(f"pod group {group} failed a moment ago")
        return None

    def _least(self, pod: PodInfo, group: str) -> int:
        """How many members must go at once. Raises Rejected."""
        pod_group = self._groups.get(group)
        if pod_group is not None:
            return pod_group.spec.min_member
        text = (pod.pod.metadata.annotations or {}).get(MIN_MEMBER)
        if text is None:
            raise Rejected(f"pod group {group} is not known: there is no such PodGroup, and no annotation {MIN_MEMBER}")
        if not text.isdecimal() or int(text) < 1:
            raise Rejected(f"annotation {MIN_MEMBER}: {text!r} is no number above 0")
        return int(text)

    def _members(self, group: str) -> Sequence[core_v1.Pod]:
        assert self._pods is not None
        return [p for p in self._pods.by_index(GROUP_LABEL, group) if not p.metadata.deletion_timestamp]

    def permit(self, state: CycleState, pod: PodInfo, node: str) -> float:
        group, handle = group_of(pod), self._handle
        if not group or handle is None:
            return 0.0
        members = [p.metadata.uid or "" for p in self._members(group)]
        placed = {uid for uid in members if uid in handle.table.pods} | {pod.uid}
        if len(placed) >= self._least(pod, group):
            for waiting in handle.waiting:
                if group_of(waiting.pod) == group:
                    waiting.allow(self.name)
            return 0.0
        handle.activate([uid for uid in members if uid not in placed])
        pod_group = self._groups.get(group)
        return float((pod_group and pod_group.spec.schedule_timeout_seconds) or self.wait)

    def post_filter(self, pod: PodInfo, table: NodeTable, ranking: Ranked, attempt: Attempt) -> Plan:
        """A member fits nowhere: those that wait for it give their room to others."""
        group = group_of(pod)
        if group and not attempt.dry and not ranking.rejection:
            self._give_up(group, f"pod group {group}: {pod.key} fits nowhere")
            if self.backoff and self._handle:
                self._denied[group] = self._handle.world.monotonic() + self.backoff
        return Plan()

    def unreserve(self, state: CycleState, pod: PodInfo, node: str) -> None:
        group = group_of(pod)
        if group:
            self._give_up(group, f"pod group {group}: {pod.key} lost its place")

    def reserve(self, state: CycleState, pod: PodInfo, node: str) -> None:
        """There is an unreserve, so that this is asked for."""

    def _give_up(self, group: str, why: str) -> None:
        for waiting in self._handle.waiting if self._handle else ():
            if group_of(waiting.pod) == group:
                waiting.reject(self.name, why)

    # PodGroups, where they are served

    async def _follow_groups(self) -> None:
        handle = self._handle
        assert handle is not None
        resource = handle.client.resource(GROUPS, PodGroup)
        while True:
            try:
                await resource.list(limit=1)
                break
            except (StatusError, TransportError):
                await handle.world.sleep(ASK_AGAIN)
        informer = Informer(resource)
        informer.add_handler(self._on_group)
        await informer.run()

    def _on_group(self, kind: str, old: PodGroup | None, new: PodGroup) -> None:
        if kind == "DELETED":
            self._groups.pop(_key(new), None)
        else:
            self._groups[_key(new)] = new
        if self._handle:
            self._handle.happened(Event(GROUP_CHANGED, object=new, old=old))


def group_of(pod: PodInfo) -> str:
    """``namespace/name`` of the pod's group, or ""."""
    name = pod.labels.get(GROUP_LABEL)
    return f"{pod.namespace}/{name}" if name else ""


def _group_of_pod(pod: core_v1.Pod) -> list[str]:
    name = (pod.metadata.labels or {}).get(GROUP_LABEL)
    return [f"{pod.metadata.namespace}/{name}"] if name else []


def _key(group: PodGroup) -> str:
    return f"{group.metadata.namespace}/{group.metadata.name}"
