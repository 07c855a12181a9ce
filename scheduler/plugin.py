"""The plugin protocol: Kubernetes' scheduling framework, over columns instead of single nodes.

A plugin subclasses :class:`Plugin` and overrides the extension points it has something to say at. ``filter`` answers for
all nodes at once with the masks of those it refuses; ``score`` gives a column, higher is better, which ``normalize``
brings to 0..100. A rule that is easier to write for one node goes through :meth:`NodeTable.each`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from scheduler.nodes import Mask, NodeTable, Scores
from scheduler.pods import PodInfo

MAX_SCORE = 100.0

# What can make a pod schedulable that was not (Kubernetes' ClusterEvent).
NODE_ADDED, NODE_CHANGED, POD_GONE, POD_CHANGED, POD_ADDED = "NodeAdd", "NodeUpdate", "PodDelete", "PodUpdate", "PodAdd"


class Refusal(NamedTuple):
    """Nodes that a filter refuses for one reason. ``resolvable`` by preempting pods."""

    reason: str
    nodes: Mask
    resolvable: bool = True


@dataclass
class CycleState:
    """What plugins tell themselves and each other during one cycle."""

    data: dict[str, Any] = field(default_factory=dict)


class Rejected(Exception):
    """Raised by pre_enqueue, pre_filter, reserve, permit or pre_bind: the pod cannot be scheduled now."""


class Plugin:
    """One scheduling rule. ``events`` name what may turn its refusal around."""

    name: ClassVar[str]
    events: ClassVar[frozenset[str]] = frozenset({NODE_ADDED, NODE_CHANGED, POD_GONE, POD_CHANGED})

    def pre_enqueue(self, pod: PodInfo) -> None:
        """May keep the pod out of the active queue by raising Rejected."""

    def pre_filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Mask | None:
        """Prepares the cycle; may narrow the nodes to a mask, or raise Rejected for all of them."""
        return None

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        return ()

    def post_filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> str | None:
        """After no node was left; may return the name of a node that will become free (preemption)."""
        return None

    def pre_score(self, state: CycleState, pod: PodInfo, table: NodeTable, feasible: Mask) -> None:
        pass

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        """A raw score a row; None if the plugin has no opinion on this pod."""
        return None

    def normalize(self, scores: Scores, feasible: Mask) -> Scores:
        """Brings raw scores to 0..100; overridden where raw scores are not that already."""
        return scores

    def reserve(self, state: CycleState, pod: PodInfo, node: str) -> None:
        pass

    def unreserve(self, state: CycleState, pod: PodInfo, node: str) -> None:
        pass

    async def permit(self, state: CycleState, pod: PodInfo, node: str) -> None:
        """May wait before the pod is bound, or raise Rejected."""

    async def pre_bind(self, state: CycleState, pod: PodInfo, node: str) -> None:
        pass

    async def bind(self, state: CycleState, pod: PodInfo, node: str) -> bool:
        """True if this plugin has bound the pod itself; else the default binding is posted."""
        return False

    def post_bind(self, state: CycleState, pod: PodInfo, node: str) -> None:
        pass

    def less(self, left: PodInfo, right: PodInfo) -> bool:
        """Queue order, of the one plugin that is the queue sort."""
        raise NotImplementedError


def scale(scores: Scores, feasible: Mask, reverse: bool = False) -> Scores:
    """Kubernetes' default normalisation: the highest feasible score becomes 100; ``reverse`` turns it round."""
    top = float(scores[feasible].max(initial=0.0))
    if top == 0:
        return np.full_like(scores, MAX_SCORE) if reverse else scores
    scaled = np.floor(scores * MAX_SCORE / top)
    return MAX_SCORE - scaled if reverse else scaled


@dataclass(frozen=True)
class Weighted:
    plugin: Plugin
    weight: float = 1


@dataclass(frozen=True)
class Profile:
    """The plugins of one scheduler name: filters in order, scorers with their weights."""

    name: str
    plugins: Sequence[Plugin]
    scorers: Sequence[Weighted]


PluginFactory = Callable[[], Plugin]
