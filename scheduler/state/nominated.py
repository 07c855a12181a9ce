"""Pods that preempted others, and the nodes on which room is kept for them until they are there.

Others of the same or a lower priority must fit beside them. What a node's nominations mean for one sort of pod is worked
out once and kept until something on the node changes, so that many pods can wait for room at once.
"""

from __future__ import annotations

from collections.abc import Iterator

from scheduler.state.nodes import Log
from scheduler.state.pods import PodInfo


class Nominated:
    def __init__(self) -> None:
        self._where: dict[str, tuple[PodInfo, str]] = {}
        self.by_node: dict[str, dict[str, PodInfo]] = {}  # those that are not assumed to be there by now
        self.changes: Log[str] = Log()  # of nodes
        self._averse: dict[str, None] = {}  # of these pods, those with required anti-affinity

    def __contains__(self, uid: str) -> bool:
        return uid in self._where

    def __len__(self) -> int:
        return len(self._where)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def node_of(self, uid: str) -> str:
        """Where a pod waits; "" if nowhere."""
        entry = self._where.get(uid)
        return entry[1] if entry else ""

    def add(self, pod: PodInfo, node: str) -> None:
        """Also moves a pod, and takes its newest state."""
        self.remove(pod.uid)
        self._where[pod.uid] = pod, node
        self.by_node.setdefault(node, {})[pod.uid] = pod
        if pod.terms.anti_affinity:
            self._averse[pod.uid] = None
        self.changes.add(node)

    def remove(self, uid: str) -> PodInfo | None:
        """Forgets a pod; it, if it was nominated."""
        entry = self._where.pop(uid, None)
        if entry is None:
            return None
        self._leave(uid, entry[1])
        return entry[0]

    def assumed(self, uid: str, yes: bool) -> None:
        """A pod is counted on the node where it will be bound, or no longer: its nomination does not count meanwhile."""
        entry = self._where.get(uid)
        if entry is not None and yes:
            self._leave(uid, entry[1])
        elif entry is not None:
            self.add(*entry)

    def _leave(self, uid: str, node: str) -> None:
        here = self.by_node.get(node, {})
        if here.pop(uid, None) is not None:
            self._averse.pop(uid, None)
            self.changes.add(node)
        if not here:
            self.by_node.pop(node, None)

    @property
    def reach_far(self) -> bool:
        """Whether a pod among them may keep others from more than its own node: then nothing can be told row by row."""
        return bool(self._averse)

    def on(self, node: str, pod: PodInfo) -> list[PodInfo]:
        """The pods for which room is kept on a node, against another pod."""
        here = self.by_node.get(node)
        if not here:
            return []
        return [other for uid, other in here.items() if uid != pod.uid and other.priority >= pod.priority]

    def beside(self, pod: PodInfo) -> Iterator[tuple[PodInfo, str]]:
        """All pods for which room is kept against another one, and where."""
        for node in list(self.by_node):
            for other in self.on(node, pod):
                yield other, node
