"""The plugin protocol: Kubernetes' scheduling framework, over columns instead of single nodes.

A plugin subclasses :class:`Plugin` and overrides the extension points it has something to say at. ``filter`` answers for
all nodes at once with the masks of those it refuses; ``score`` gives a column, higher is better, which ``normalize``
brings to 0..100. A rule that is easier to write for one node at a time subclasses :class:`NodePlugin`, which lifts it.

Pods that are alike are not ranked from the beginning each time: ``reach`` says how far the placing of a pod changes what
the plugin says of the next one like it (see ranking.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.informer import SharedInformers
from navarch.world import World
from scheduler.framework.reads import Facts, Reads, answers, declared
from scheduler.framework.ties import TieBreak, by_chance
from scheduler.framework.waitingpods import WaitingPods
from scheduler.state.nodes import Mask, NodeTable, Scores
from scheduler.state.nominated import Nominated
from scheduler.state.pods import PodInfo

MAX_SCORE = 100.0
ALL_ROWS = slice(None)

# What can make a pod schedulable that was not (Kubernetes' ClusterEvent). Pods are those on nodes; what changes in the pod
# that waits itself is POD_CHANGED too, told to that pod alone.
NODE_ADDED, NODE_CHANGED, POD_GONE, POD_CHANGED, POD_ADDED = "NodeAdd", "NodeUpdate", "PodDelete", "PodUpdate", "PodAdd"
NAMESPACE_CHANGED = "NamespaceUpdate"
NODE_GONE = "NodeDelete"
POD_PENDING = "UnscheduledPodAdd"  # a pod that has no node yet
# What storage adds to these is in volumes.py.


class Reach(IntEnum):
    """On which nodes the coming or going of a pod changes a plugin's answers about other pods of some sort."""

    NOWHERE = 0
    ITS_NODE = 1
    EVERYWHERE = 2


class Refusal(NamedTuple):
    """Nodes that a filter refuses for one reason. ``resolvable`` by preempting pods."""

    reason: str
    nodes: Mask
    resolvable: bool = True


class Event(NamedTuple):
    """Something happened: ``kind`` is one of the names above, ``pod``, ``node`` or ``object`` what it happened to, ``old``
    what that was before, if it changed."""

    kind: str
    pod: PodInfo | None = None
    node: core_v1.Node | None = None
    old: Any = None
    object: Any = None


@dataclass
class CycleState:
    """The notes that plugins leave themselves and each other during one cycle."""

    data: dict[str, Any] = field(default_factory=dict)


@dataclass
class Handle:
    """The parts of the scheduler that runs it which a plugin may use (upstream's framework.Handle)."""

    world: World
    client: Client
    informers: SharedInformers
    table: NodeTable
    waiting: WaitingPods
    happened: Callable[[Event], None]
    activate: Callable[[Iterable[str]], None]
    """Moves pods, by uid, from wherever they wait to the active queue."""
    queued: Callable[[], Iterable[PodInfo]]
    """All pods that want a node, those in flight too."""
    background: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)
    """Coroutine functions of plugins, run as long as the scheduler runs."""


class Plugin:
    """One scheduling rule. ``events`` name what may turn its refusal around; ``helps`` looks closer."""

    name: ClassVar[str]
    events: ClassVar[frozenset[str]] = frozenset({NODE_ADDED, NODE_CHANGED, POD_GONE, POD_CHANGED})
    reads: ClassVar[Reads | None] = None
    """Dependencies of its answers (see reads.py). None: they may depend on anything, so it is asked about every node for
    every pod, whatever ``reach`` says. Said by the class whose answers it is about: a subclass that answers otherwise says
    it again."""
    scores_alone: ClassVar[bool] = False
    """Its scores are a whole strategy: where --plugin names it, no other plugin scores, unless a profile enables it."""

    def start(self, handle: Handle) -> None:
        """A scheduler begins to use this plugin; what it knew of an earlier one is void. Not called for dry runs and in
        tests of the rule alone."""

    def follow(self, table: NodeTable) -> None:
        """An account of the plugin's own begins, and an earlier one is void. Called if it has ``placed`` or ``left``; all
        pods on nodes are placed next."""

    def placed(self, pod: PodInfo, row: int, before: Any) -> Any:
        """A pod counts on the node of this row from now on (the table has counted it already); what is given back is
        kept as the pod's share. ``before``: the share that it had here, if it only comes back: after preemption has tried
        without it, or a question was answered, or its labels changed. It must be given the same again."""
        return before

    def left(self, pod: PodInfo, row: int, share: Any) -> None:
        """A pod counts on the node of this row no longer; ``share`` is what ``placed`` gave it."""

    def gauges(self) -> Mapping[str, float] | None:
        """Numbers of the plugin's own account, which an experiment samples after each decision; None if it has none."""
        return None

    def order(self, pod: PodInfo, since: float) -> tuple[Any, ...]:
        """QueueSort: the pod with the smallest key is tried first; ``since`` is when it was queued (monotonic). One plugin
        of a profile says it, and all profiles must agree on which."""
        return -pod.priority, since

    def helps(self, event: Event, pod: PodInfo, table: NodeTable) -> bool:
        """Queueing hint: whether an event of one of ``events`` may let the pod, which this plugin refused, in."""
        return True

    def own_change_helps(self, old: PodInfo, new: PodInfo) -> bool:
        """Queueing hint: whether a pod that this plugin refused may get in since it is another itself. Only plugins with
        POD_CHANGED among their ``events`` are asked."""
        return True

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        """How far other pods change what this plugin says of ``pod``. With ITS_NODE, ``refuses`` and ``score_row``
        must be there; a plugin that does not say, or not what it ``reads``, is asked anew for every pod. So is one that
        scores and normalises and says ITS_NODE: one node's points then change those of others."""
        return Reach.EVERYWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        """Whether what this plugin says of ``pod`` on a node depends on that node and its pods alone, so that a node that
        comes, goes or changes concerns its own row. Asked if ``reach`` is not EVERYWHERE. For ``normalize`` it must not
        matter how many nodes there are, if the raw scores of all are 0."""
        return False

    def pre_enqueue(self, pod: PodInfo) -> None:
        """May keep the pod out of the active queue by raising Rejected."""

    def named(self, pod: PodInfo) -> Sequence[str] | None:
        """The only nodes that the pod may go to, if what it asks names them (upstream's PreFilterResult.NodeNames). Then
        ``pre_filter`` is not always asked: it must say the same and nothing more, and ``filter`` must refuse no other."""
        return None

    def pre_filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Mask | None:
        """Prepares the cycle; may narrow the nodes to a mask, or raise Rejected for all of them."""
        return None

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        return ()

    def refuses(self, state: CycleState, pod: PodInfo, table: NodeTable, row: int) -> Sequence[str]:
        """The reasons that ``filter`` has for one row."""
        return [r.reason for r in self.filter(state, pod, table) if r.nodes[row]]

    def pre_score(self, state: CycleState, pod: PodInfo, table: NodeTable, feasible: Mask) -> None:
        pass

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        """A raw score a row; None if the plugin has no opinion on this pod."""
        return None

    def score_rows(self, state: CycleState, pod: PodInfo, table: NodeTable, rows: slice) -> Scores | None:
        """Some rows of ``score``."""
        scores = self.score(state, pod, table)
        return None if scores is None else scores[rows]

    def score_row(self, state: CycleState, pod: PodInfo, table: NodeTable, row: int) -> float | None:
        """One row of ``score``; overridden where plain numbers are faster than columns of one."""
        scores = self.score_rows(state, pod, table, slice(row, row + 1))
        return None if scores is None else float(scores[0])

    def normalize(self, scores: Scores, feasible: Mask) -> Scores:
        """Brings raw scores to 0..100; overridden where raw scores are not that already."""
        return scores

    def reserve(self, state: CycleState, pod: PodInfo, node: str) -> None:
        pass

    def unreserve(self, state: CycleState, pod: PodInfo, node: str) -> None:
        pass

    def permit(self, state: CycleState, pod: PodInfo, node: str) -> float:
        """The last word before the pod is bound: 0 lets it go, or raise Rejected. A number of seconds has it wait, with
        its room kept, until this plugin allows it (Handle.waiting), or it is rejected when they are over."""
        return 0.0

    def pre_bind_needed(self, state: CycleState, pod: PodInfo, node: str) -> bool:
        """Whether there is anything to do in ``pre_bind``: what does not wait is bound sooner (PreBindPreFlight)."""
        return True

    async def pre_bind(self, state: CycleState, pod: PodInfo, node: str) -> None:
        pass

    async def bind(self, state: CycleState, pod: PodInfo, node: str) -> bool:
        """True if this plugin has bound the pod itself; else the default binding is posted."""
        return False

    def post_bind(self, state: CycleState, pod: PodInfo, node: str) -> None:
        pass

    def post_filter(self, pod: PodInfo, table: NodeTable, ranking: Ranked, attempt: Attempt) -> Plan:
        """The pod fits nowhere: may find a node on which it will fit once some pods are gone. The first plugin whose plan
        has a node decides; else the messages of all are told."""
        return Plan()


class Plan(NamedTuple):
    """Where there will be room, once the victims are gone. Without a node, ``message`` says why not; the pod loses its
    nomination then, unless it shall ``keep`` it."""

    node: str = ""
    victims: tuple[PodInfo, ...] = ()
    message: str = ""
    keep: bool = False


class Attempt(NamedTuple):
    """The input of a post_filter: the node that was nominated before, chance, and whether this is but a question. Other
    pods that are nominated are counted on their nodes already, but for DefaultPreemption, which is given them."""

    nominated: str = ""
    chance: random.Random | None = None
    dry: bool = False
    others: Nominated | None = None


class Ranked(Protocol):
    """All nodes as one sort of pod sees them, as far as PostFilter may ask; see :class:`scheduler.ranking.ranking.Ranking`.
    Masks have an element a row of the node table."""

    @property
    def profile(self) -> Profile: ...
    @property
    def names(self) -> list[str]:
        """The node of each row."""
        ...

    @property
    def rejection(self) -> str:
        """Why a PreFilter plugin refuses all nodes, "" if none does."""
        ...

    @property
    def never(self) -> Mask:
        """Refused by a plugin that no pod changes the mind of."""
        ...

    @property
    def excluded(self) -> list[int]:
        """Rows that are refused for the sake of nominated pods alone."""
        ...

    @property
    def origin(self) -> Ranked | None:
        """The ranking that has these rows still; None if none are excluded."""
        ...

    @property
    def reaches(self) -> dict[str, Reach]:
        """By the name of the plugin."""
        ...

    @property
    def follows(self) -> bool:
        """Whether it follows the table row by row."""
        ...

    def resolvable(self) -> Mask:
        """Where taking pods away may help."""
        ...

    def resolvable_at(self, row: int) -> bool: ...


class Free(Mapping[str, int]):
    """The amount of each resource that is left on one row, in millicores or base units."""

    __slots__ = ("_row", "_table")

    def __init__(self, table: NodeTable, row: int) -> None:
        self._table, self._row = table, row

    def __getitem__(self, resource: str) -> int:
        if resource not in self._table.allocatable:
            raise KeyError(resource)
        return self._table.free_at(resource, self._row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.allocatable)

    def __len__(self) -> int:
        return len(self._table.allocatable)


class NodeView:
    """One node as a plugin that is written node by node sees it. It is read from the table when it is looked at: do not
    keep it."""

    __slots__ = ("_table", "node", "row")

    def __init__(self, table: NodeTable, row: int, node: core_v1.Node) -> None:
        self._table, self.row, self.node = table, row, node

    @property
    def pods(self) -> Sequence[PodInfo]:
        """The pods that count on it: also those that are assumed there and not bound yet."""
        return list(self._table.by_node.get(self.node.metadata.name or "", {}).values())

    @property
    def free(self) -> Mapping[str, int]:
        """Resource -> what is left of it, in millicores or base units; resources that no node has are not in it."""
        return Free(self._table, self.row)


class NodePlugin(Plugin):
    """A rule written for one pod and one node. Override ``filter_node``, ``score_node`` (higher is better), or both."""

    def filter_node(self, pod: PodInfo, view: NodeView) -> str:
        """Why not there; "" if it may."""
        return ""

    def score_node(self, pod: PodInfo, view: NodeView) -> float:
        return 0.0

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        if type(self).filter_node is NodePlugin.filter_node:
            return ()
        masks: dict[str, Mask] = {}
        for row in table.rows.values():
            if reason := self.filter_node(pod, view_of(table, row)):
                masks.setdefault(reason, np.zeros(table.size, bool))[row] = True
        return [Refusal(reason, mask) for reason, mask in masks.items()]

    def refuses(self, state: CycleState, pod: PodInfo, table: NodeTable, row: int) -> Sequence[str]:
        if type(self).filter_node is NodePlugin.filter_node:
            return super().refuses(state, pod, table, row)
        reason = self.filter_node(pod, view_of(table, row))
        return [reason] if reason else ()

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        if type(self).score_node is NodePlugin.score_node:
            return None
        scores = np.zeros(table.size)
        for row in table.rows.values():
            scores[row] = self.score_node(pod, view_of(table, row))
        return scores

    def score_rows(self, state: CycleState, pod: PodInfo, table: NodeTable, rows: slice) -> Scores | None:
        if type(self).score_node is NodePlugin.score_node:
            return None
        numbers = range(table.size)[rows]
        return np.array([self.score_node(pod, view_of(table, n)) if table.valid[n] else 0.0 for n in numbers])

    def normalize(self, scores: Scores, feasible: Mask) -> Scores:
        """Between the lowest and the highest score of the nodes that are left."""
        of_feasible = scores[feasible]
        low, high = float(of_feasible.min(initial=np.inf)), float(of_feasible.max(initial=-np.inf))
        if not high > low:
            return np.zeros_like(scores)
        return np.clip(np.floor((scores - low) * MAX_SCORE / (high - low)), 0, MAX_SCORE)


def view_of(table: NodeTable, row: int) -> NodeView:
    node = table.nodes[row]
    assert node is not None
    return NodeView(table, row, node)


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

    @property
    def prepares(self) -> bool:
        return type(self.plugin).pre_score is not Plugin.pre_score


def overriding(plugins: Sequence[Plugin], *points: str) -> list[Plugin]:
    """The plugins that have something to say at any of these extension points."""
    return [p for p in plugins if any(getattr(type(p), point) is not getattr(Plugin, point) for point in points)]


def call(point: str, plugin: Plugin, method: Callable[..., Any], *args: Any) -> Any:
    """Asks a plugin; what Profile.ask is while nobody measures."""
    return method(*args)


class Profile:
    """The plugins of one scheduler name: filters in order, scorers with their weights."""

    def __init__(
        self,
        name: str,
        plugins: Sequence[Plugin],
        scorers: Sequence[Weighted],
        at: Mapping[str, Sequence[Plugin]] | None = None,
    ) -> None:
        """``at``: the plugins of each extension point; all of them where it is not given."""
        self.ask: Callable[..., Any] = call
        self.tie_break: TieBreak = by_chance
        self.name, self.plugins, self.scorers = name, tuple(plugins), tuple(scorers)

        def point(*methods: str) -> list[Plugin]:
            return overriding(plugins if at is None else at.get(methods[0], ()), *methods)

        self.pre_enqueuers = point("pre_enqueue")
        self.pre_filters = point("pre_filter")
        self.namers = overriding(self.pre_filters, "named")
        self.filters = point("filter")
        self.reservers = point("reserve", "unreserve")
        self.permitters = point("permit")
        self.pre_binders = point("pre_bind")
        self.binders = point("bind")
        self.post_binders = point("post_bind")
        self.post_filters = point("post_filter")
        self.accounts = overriding(plugins, "placed", "left")
        self.facts = Facts(plugins)
        silent = {p.name for p in plugins if not answers(p)}  # they have no say in which node it is
        unread = {p.name for p in plugins if declared(p) is None}
        self._silent, self._reaches = silent, {n: Reach.NOWHERE for n in silent} | {n: Reach.EVERYWHERE for n in unread}
        self._scaled = {s.plugin.name for s in scorers if overriding([s.plugin], "normalize")}
        sorters = [p for p in (plugins if at is None else at.get("order", ())) if type(p).order is not Plugin.order]
        self.sorter: Plugin | None = sorters[0] if sorters else None  # None: by priority and age

    def alike(self, pod: PodInfo) -> bytes:
        """Equal for pods that the plugins of this profile cannot tell apart."""
        return pod.likeness + self.facts.of_pod(pod.pod)

    def reach(self, plugin: Plugin, pod: PodInfo, table: NodeTable) -> Reach:
        """How far other pods change what the plugin says of the pod, as far as that can be relied on."""
        cached = self._reaches.get(plugin.name)
        if cached is not None:
            return cached
        said = plugin.reach(pod, table)
        return Reach.EVERYWHERE if said == Reach.ITS_NODE and plugin.name in self._scaled else said

    def apart(self, plugin: Plugin, pod: PodInfo, table: NodeTable) -> bool:
        return plugin.name in self._silent or plugin.apart(pod, table)
