"""All nodes, as one sort of pod sees them: refused by what, scored how.

A ranking is made whole by asking every plugin for its columns. It can then follow the table: while plugins reach no
further than the node that a pod comes to or leaves, only the rows that changed are asked about again, and the ranking is
what it would be if it were made anew. So a thousand pods that are alike cost one pass over all nodes and a thousand
single rows, in any order with other pods, with the same decisions.

What changed is also noted, so that the ranking can be told later as it was at each decision: that is how decisions are
explained without keeping a table for each.
"""

from __future__ import annotations

import copy
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scheduler.framework.outcomes import Rejected
from scheduler.framework.plugin import CycleState, Profile, Reach, overriding
from scheduler.ranking.nodelocal import FOLLOWED, Filtered, Near, Scored
from scheduler.state.nodes import Mask, NodeTable, Scores
from scheduler.state.pods import PodInfo

Bits = npt.NDArray[np.uint32]
Parts = npt.NDArray[np.uint8]

MAX_REASONS = 31  # the last bit is for all further ones
FEW = 8  # nodes that are looked at one by one
NOTED = 4096  # changes after which a ranking begins anew, so that notes do not grow for ever


class Reason(NamedTuple):
    """Why a plugin refuses nodes. ``resolvable``: taking pods away may help."""

    plugin: str
    text: str
    resolvable: bool
    local: bool = False  # the plugin reaches its node only


class Change(NamedTuple):
    row: int
    refused: int
    parts: tuple[int, ...]


class Refused(NamedTuple):
    plugin: str
    text: str


class Ranking:
    """See the module. Columns have an element a row of the table.

    ``refused``: uint32, a bit a reason (bit n is ``reasons[n]``), 0 on nodes that are feasible. ``parts``: uint8, a row a
    scorer of the profile, 0 to 100. ``total``: float64, the weighted sum of the scores, -inf where not feasible.
    ``feasible``: how many nodes are. ``names``: the node of each row. ``rejection``: why a pre_filter refused all of them.
    ``follows``: whether no plugin reaches further than a node, so that the table can be followed row by row. ``notes``: the
    changes since ``base`` (refused and parts as they were made), by which an earlier state can be told.
    """

    def __init__(self, pod: PodInfo, table: NodeTable, profile: Profile, near: Near | None = None) -> None:
        """``near`` is what is kept of the last ranking of such a pod, if any; it only saves work."""
        self.pod, self.profile = pod, profile
        self.state = CycleState()
        self.nodes = len(table)
        self.names = table.names()
        self.reasons: list[Reason] = []
        self.rejection = self.rejected_by = ""
        self.refused: Bits = np.zeros(table.size, np.uint32)
        self.parts: Parts = np.zeros((len(profile.scorers), table.size), np.uint8)
        self.total: Scores = np.full(table.size, -np.inf)
        self._fixed: Scores = np.zeros(table.size)  # of the plugins that reach nowhere
        self.feasible = 0
        self.notes: list[Change] = []
        self.extra: Scores | None = None  # what extenders gave
        self.origin: Ranking | None = None  # of which this is a copy, without the rows ``excluded`` for nominated pods
        self.excluded: list[int] = []
        self._numbers: dict[tuple[str, str], int] = {}
        self._versions = table.version, table.topology.version
        self._touches = table.touches
        self._position, self._node_position = table.changes.end, table.node_changes.end
        self.reaches = {p.name: profile.reach(p, pod, table) for p in profile.plugins}
        self.follows = all(r < Reach.EVERYWHERE for r in self.reaches.values())
        self.near_filters = [p for p in profile.filters if self.reaches[p.name] == Reach.ITS_NODE]
        self._near_scorers = [
            (n, e.plugin, e.weight) for n, e in enumerate(profile.scorers) if self.reaches[e.plugin.name] == Reach.ITS_NODE
        ]
        self.never: Mask = ~table.valid  # refused, maybe behind another reason, by a plugin that no pod changes the mind of
        self._best: list[int] | None = None  # rows with the total _top, if that is known
        self._top = -np.inf
        self._settled = True  # no normalised score depends on which nodes are feasible
        self._narrowed = False  # by a pre_filter
        self._near = None if self.follows else near
        if self.nodes:
            self._make(table)
        self.base = (self.refused.copy(), self.parts.copy()) if self.follows else (self.refused, self.parts)

    def _make(self, table: NodeTable) -> None:
        pod, state, profile = self.pod, self.state, self.profile
        ask = profile.ask
        feasible: Mask = table.valid.copy()
        for plugin in profile.pre_filters:
            try:
                only = ask("PreFilter", plugin, plugin.pre_filter, state, pod, table)
            except Rejected as rejected:
                self.rejection, self.rejected_by = str(rejected), plugin.name
                return
            if only is not None:
                self._narrowed = True
                self.never |= ~only
                self._refuse(plugin.name, f"node(s) didn't satisfy plugin(s) [{plugin.name}]", ~only, False, feasible)
                feasible &= only
        few = table.size if len(profile.pre_filters) == 0 else int(np.count_nonzero(feasible))
        rows = np.flatnonzero(feasible).tolist() if few <= FEW else []
        self.follows = self.follows and few > FEW
        kept_filters: dict[str, Filtered] = {}
        kept_scorers: dict[str, Scored] = {}
        if self._near is not None and few > FEW:
            scorers = [plugin for _, plugin, _ in self._near_scorers if not normalizes(plugin)]
            self._near.bring(pod, table, state, self.near_filters, scorers)
            kept_filters, kept_scorers = self._near.filters, self._near.scorers
        for plugin in profile.filters:
            refused_nodes: Mask | None = None
            rows = [row for row in rows if feasible[row]]  # the first plugin that refuses a row is the last one asked
            if rows and self.reaches[plugin.name] == Reach.ITS_NODE:
                for row in rows:
                    for text in plugin.refuses(state, pod, table, row):
                        self.refused[row] |= np.uint32(1 << self._number(plugin.name, text, True))
                    feasible[row] &= self.refused[row] == 0
                continue
            filtered = kept_filters.get(plugin.name)
            for refusal in filtered.refusals if filtered else ask("Filter", plugin, plugin.filter, state, pod, table):
                self._refuse(plugin.name, refusal.reason, refusal.nodes, refusal.resolvable, feasible)
                refused_nodes = refusal.nodes if refused_nodes is None else refused_nodes | refusal.nodes
            if refused_nodes is not None:
                feasible &= ~refused_nodes
                if self.reaches[plugin.name] == Reach.NOWHERE:
                    self.never |= refused_nodes
        self.feasible = int(np.count_nonzero(feasible))
        if not self.feasible:
            return
        if self.feasible == 1 and not self.follows:
            self.total[feasible] = 0.0  # nothing to compare it with
            return
        moving = np.zeros(table.size)
        for n, entry in enumerate(profile.scorers):
            plugin = entry.plugin
            if entry.prepares:
                ask("PreScore", plugin, plugin.pre_score, state, pod, table, feasible)
            if (scored := kept_scorers.get(plugin.name)) is not None:
                if scored.scores is not None and scored.shown is not None:
                    moving += entry.weight * scored.scores
                    self.parts[n] = scored.shown
                continue
            raw = ask("Score", plugin, plugin.score, state, pod, table)
            if raw is None:
                continue
            if normalizes(plugin):
                if raw.any():
                    self._settled = False
                raw = plugin.normalize(raw, feasible)
            if self.reaches[plugin.name] == Reach.NOWHERE:
                self._fixed += entry.weight * raw
            else:
                moving += entry.weight * raw
            np.clip(raw, 0, 100, out=self.parts[n], casting="unsafe")
        self.total = self._fixed + moving
        self.total[~feasible] = -np.inf

    def _refuse(self, plugin: str, text: str, nodes: Mask, resolvable: bool, feasible: Mask) -> None:
        hit = nodes & feasible
        if hit.any():
            self.refused[hit] |= np.uint32(1 << self._number(plugin, text, resolvable))

    def _number(self, plugin: str, text: str, resolvable: bool) -> int:
        number = self._numbers.get((plugin, text))
        if number is None:
            number = self._numbers[plugin, text] = min(len(self.reasons), MAX_REASONS)
            if number < MAX_REASONS:
                self.reasons.append(Reason(plugin, text, resolvable, self.reaches.get(plugin) == Reach.ITS_NODE))
            elif len(self.reasons) == MAX_REASONS:
                self.reasons.append(Reason(plugin, "node(s) were refused for other reasons", resolvable))
        return number

    def exclude(self, other: Ranking) -> None:
        """Refuses the nodes that another ranking of the same pod refuses, for its reasons."""
        if other.rejection:
            self.rejection, self.rejected_by = other.rejection, other.rejected_by
            self.feasible = 0
            return
        lost = (self.refused == 0) & (other.refused != 0)
        for n, reason in enumerate(other.reasons):
            here = other.refused & np.uint32(1 << n) != 0
            self._refuse(reason.plugin, reason.text, here, reason.resolvable, lost)
        self.total[lost] = -np.inf
        self._best = None
        self.feasible = int(np.count_nonzero(self.total > -np.inf))
        self.follows, self.base = False, (self.refused, self.parts)

    def refuse(self, row: int, by: str, text: str, resolvable: bool) -> None:
        """Refuses one node more, for somebody who is no plugin. The ranking follows no longer."""
        self.refused[row] |= np.uint32(1 << self._number(by, text, resolvable))
        self.total[row] = -np.inf
        self.feasible -= 1
        self.follows, self.base = False, (self.refused, self.parts)

    def without(self, refusals: Mapping[int, Sequence[Refused]]) -> Ranking:
        """A copy in which these feasible rows are refused, too. It is not followed; ``origin`` is what it was made of."""
        ranking = self._copy()
        ranking.origin, ranking.excluded = self, list(refusals)
        for row, row_refusals in refusals.items():
            for plugin, text in row_refusals:
                ranking.refused[row] |= np.uint32(1 << ranking._number(plugin, text, True))
            ranking.total[row] = -np.inf
        ranking.feasible -= len(refusals)
        ranking.follows, ranking.base = False, (ranking.refused, ranking.parts)
        return ranking

    def favour(self, points: Mapping[int, float]) -> None:
        """Adds to the totals of rows what somebody who is no plugin gives them."""
        if points:
            self.extra = np.zeros(len(self.total))
            for row, more in points.items():
                self.extra[row] = more
            self.total = self.total + self.extra
            self.follows, self.base = False, (self.refused, self.parts)

    # Following the table

    def follow(self, table: NodeTable) -> bool:
        """Brings the ranking up to date; False if it must be made anew."""
        if not self.follows or self.rejection or self._versions != (table.version, table.topology.version):
            return False
        if self._position == table.changes.end:
            return True
        rows = table.changes.since(self._position)
        if rows is None or len(rows) > FOLLOWED or len(self.notes) > NOTED or len(self.refused) != table.size:
            return False
        for row in rows:
            if not self._again(table, row):
                return False
        self._position = table.changes.end
        return True

    def heir(self, table: NodeTable) -> Ranking | None:
        """The ranking that follows this one now that nodes came, went or changed; None if it must be made anew. This one
        stays as it is, for its decisions are explained by the nodes that there were."""
        if not self.follows or self.rejection or self._narrowed or not self._settled or not self.feasible:
            return None
        if self._touches != table.touches or self._versions[1] != table.topology.version:
            return None
        rows = table.node_changes.since(self._node_position)
        changed = table.changes.since(self._position)
        few = min(self.nodes, len(table)) <= FEW or len(self.refused) != table.size
        if few or rows is None or changed is None or len(rows) + len(changed) > FOLLOWED:
            return None
        pod, profile = self.pod, self.profile
        reaches = self.reaches
        if any(profile.reach(p, pod, table) != reaches[p.name] or not profile.apart(p, pod, table) for p in profile.plugins):
            return None
        heir = self._copy()
        heir.nodes, heir.names, heir.state = len(table), table.names(), CycleState()
        heir._fixed, heir.never = self._fixed.copy(), self.never.copy()
        try:
            if any(profile.ask("PreFilter", p, p.pre_filter, heir.state, pod, table) is not None for p in profile.pre_filters):
                return None
        except Rejected:
            return None
        if not all(heir._whole_row(table, row) for row in rows):
            return None
        if not all(heir._again(table, row) for row in changed if row not in rows) or not heir.feasible:
            return None
        heir._versions = table.version, table.topology.version
        heir._position, heir._node_position = table.changes.end, table.node_changes.end
        heir.base, heir.notes = (heir.refused.copy(), heir.parts.copy()), []
        return heir

    def _copy(self) -> Ranking:
        """One that can refuse other rows than this one."""
        twin = copy.copy(self)
        twin.reasons, twin._numbers, twin.notes, twin._best = self.reasons.copy(), self._numbers.copy(), [], None
        twin.refused, twin.parts, twin.total = self.refused.copy(), self.parts.copy(), self.total.copy()
        return twin

    def _whole_row(self, table: NodeTable, row: int) -> bool:
        """Asks all plugins about the node that a row has now, if any. False if that is not enough."""
        pod, state = self.pod, self.state
        self.feasible -= self.total.item(row) > -np.inf
        self.never[row] = not table.valid[row]
        self.total[row], self.refused[row] = -np.inf, 0
        bits = 0
        for plugin in self.profile.filters if table.valid[row] else ():
            if self.reaches[plugin.name] == Reach.ITS_NODE:
                refusals = [(text, True) for text in plugin.refuses(state, pod, table, row)] if not bits else []
            else:
                refusals = [(r.reason, r.resolvable) for r in plugin.filter(state, pod, table) if r.nodes[row]]
                self.never[row] |= bool(refusals)
            if not bits:
                for text, resolvable in refusals:
                    bits |= 1 << self._number(plugin.name, text, resolvable)
        if bits:
            self.refused[row] = bits
            return True
        fixed = moving = 0.0
        for n, entry in enumerate(self.profile.scorers):
            plugin = entry.plugin
            if entry.prepares:
                plugin.pre_score(state, pod, table, self.total > -np.inf)
            raw = plugin.score_row(state, pod, table, row)
            if raw is None:
                continue
            if normalizes(plugin):
                if raw:
                    return False
                raw = plugin.normalize(np.zeros(1), np.ones(1, bool)).item(0)
            if self.reaches[plugin.name] == Reach.NOWHERE:
                fixed += entry.weight * raw
            else:
                moving += entry.weight * raw
            self.parts[n, row] = min(max(raw, 0), 100)
        self._fixed[row] = fixed
        if table.valid[row]:
            self.total[row] = fixed + moving
            self.feasible += 1
        return True

    def _again(self, table: NodeTable, row: int) -> bool:
        """Asks the plugins that reach their node only about one row. False if that is not enough."""
        if not table.valid[row]:
            return False
        pod, state, before = self.pod, self.state, int(self.refused[row])
        if before and not all(r.local for n, r in enumerate(self.reasons) if before >> n & 1):
            # Refused by a plugin that no pod changes the mind of: still so, by the same one if those before it agree.
            return all(r.local is False for n, r in enumerate(self.reasons) if before >> n & 1) and self._silent(
                table, row
            )
        bits = 0
        for plugin in self.near_filters:
            for text in plugin.refuses(state, pod, table, row):
                bits |= 1 << self._number(plugin.name, text, True)
            if bits:
                break
        if bits:
            if not before:
                if not self._settled or self.feasible == 1:
                    return False
                self.feasible -= 1
                self._set_total(row, -np.inf)
            self.refused[row] = bits
            self.notes.append(Change(row, bits, ()))
            return True
        if before:
            if self.never[row] or not self._settled or not self.feasible:
                return False
            self.feasible += 1  # there is room again
            self.refused[row] = 0
        moving = 0.0
        for n, plugin, weight in self._near_scorers:
            raw = plugin.score_row(state, pod, table, row)
            if raw is not None:
                moving += weight * raw
                self.parts[n, row] = min(max(raw, 0), 100)
        self._set_total(row, self._fixed.item(row) + moving)
        self.notes.append(Change(row, 0, tuple(self.parts[:, row].tolist())))
        return True

    def _set_total(self, row: int, total: float) -> None:
        """Also keeps the best rows, if they are known: among many equals it is one that comes or goes."""
        old, self.total[row] = self.total.item(row), total
        best = self._best
        if best is None or old == total:
            return
        if old == self._top:
            del best[bisect_left(best, row)]
        if total == self._top:
            insort(best, row)
        elif total > self._top:
            self._top, self._best = total, [row]
        if not self._best:
            self._best = None

    def _silent(self, table: NodeTable, row: int) -> bool:
        """Whether no plugin that reaches its node refuses this row before the one that did."""
        refusing = next(r.plugin for n, r in enumerate(self.reasons) if int(self.refused[row]) >> n & 1)
        for plugin in self.profile.filters:
            if plugin.name == refusing:
                return True
            if self.reaches[plugin.name] == Reach.ITS_NODE and plugin.refuses(self.state, self.pod, table, row):
                return False
        return True

    # Reading

    def total_of(self, row: int) -> float:
        """The total of a row; -inf if it is refused."""
        return self.total.item(row)

    def keep(self) -> None:
        """Lets go of what is needed no more once the decision is made, if no other decision will use the ranking."""
        self.origin = None
        if not self.follows:
            self.total = self._fixed = np.zeros(0)

    def retire(self) -> None:
        """As :meth:`keep`, for one that was followed: what it was can still be told from its notes."""
        self.total = self._fixed = np.zeros(0)
        self.refused, self.parts = self.base

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (self.total, self._fixed, self.refused, self.parts, *self.base))

    def best(self) -> Sequence[int] | npt.NDArray[np.intp]:
        """The rows with the highest total, in order. Do not change them."""
        if self._best is not None:
            return self._best
        self._top = self.total.item(self.total.argmax())
        rows = np.flatnonzero(self.total == self._top)
        if not self.follows:
            return rows
        self._best = rows.tolist()
        return self._best

    def counts(self) -> dict[str, int]:
        """reason -> how many nodes are refused for it."""
        out: dict[str, int] = {}
        for n, reason in enumerate(self.reasons):
            hit = int(np.count_nonzero(self.refused & np.uint32(1 << n)))
            if hit:
                out[reason.text] = out.get(reason.text, 0) + hit
        return out

    def refused_by(self) -> list[str]:
        """The plugins that refused any node, or the pod altogether."""
        if self.rejection:
            return [self.rejected_by]
        every = int(np.bitwise_or.reduce(self.refused)) if len(self.refused) else 0
        refusers = {r.plugin for n, r in enumerate(self.reasons) if every >> n & 1}
        return [p.name for p in self.profile.plugins if p.name in refusers]

    def resolvable(self) -> Mask:
        """Rows that are refused only for reasons that taking pods away may remove."""
        never = np.uint32(self._unresolvable())
        out: Mask = (self.refused != 0) & (self.refused & never == 0)
        return out

    def resolvable_at(self, row: int) -> bool:
        """As :meth:`resolvable`, for one row."""
        bits = self.refused.item(row)
        return bits != 0 and not bits & self._unresolvable()

    def _unresolvable(self) -> int:
        return sum(1 << n for n, r in enumerate(self.reasons) if not r.resolvable)

    def as_of(self, notes: int) -> tuple[Bits, Parts]:
        """``refused`` and ``parts`` as they were when so many changes had been noted."""
        if not self.follows:
            return self.base
        refused, parts = self.base[0].copy(), self.base[1].copy()
        for change in self.notes[:notes]:
            refused[change.row] = change.refused
            if not change.refused:
                parts[:, change.row] = change.parts
        return refused, parts


def normalizes(plugin: object) -> bool:
    return bool(overriding([plugin], "normalize"))  # type: ignore[list-item]
