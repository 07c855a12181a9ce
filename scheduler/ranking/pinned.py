"""Pods that name their nodes, as every pod of a DaemonSet does: they are ranked at the cost of those rows.

All other nodes are refused for one reason, which is counted and not written down. The columns of an ordinary ranking are
made only if somebody reads them: an explanation, an extender.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from scheduler.framework.outcomes import Rejected
from scheduler.framework.plugin import CycleState, Profile, Reach
from scheduler.ranking import ranking
from scheduler.state.nodes import Mask, NodeTable
from scheduler.state.pods import PodInfo

COLUMNS = ("refused", "parts", "total", "_fixed", "never", "base")
BYTES = 1024  # what one takes, about


def pinned(pod: PodInfo, table: NodeTable, profile: Profile) -> Pinned | None:
    """The ranking of a pod that names its nodes, if at most one of them is left; None if it must be ranked as others are."""
    for plugin in profile.namers:
        names = plugin.named(pod)
        if names is None or len(names) > ranking.FEW or not len(table):
            continue
        state = CycleState()
        for other in profile.pre_filters:
            if other is not plugin:
                try:
                    if profile.ask("PreFilter", other, other.pre_filter, state, pod, table) is not None:
                        return None
                except Rejected:
                    return None
        candidate = Pinned(pod, table, profile, plugin.name, state, [table.rows[n] for n in names if n in table.rows])
        return candidate if candidate.feasible <= 1 else None
    return None


class Pinned(ranking.Ranking):
    """A ranking of the ``rows`` that plugin ``by`` leaves. It is never followed: the next pod names other nodes."""

    def __init__(
        self, pod: PodInfo, table: NodeTable, profile: Profile, by: str, state: CycleState, rows: Sequence[int]
    ) -> None:
        self.pod, self.profile, self.state = pod, profile, state
        self.nodes, self.names, self._size = len(table), table.names(), table.size
        self.reasons, self.notes, self._numbers = [], [], {}
        self.rejection = self.rejected_by = ""
        self.extra = self._best = self.origin = None
        self.excluded = []
        self.follows = False
        self.reaches = {}
        self._others = self.nodes - len(rows)
        if self._others:
            self._number(by, f"node(s) didn't satisfy plugin(s) [{by}]", False)
        self._behind: list[int] = []  # rows that a plugin would refuse, too, of which no pod changes the mind
        self._bits = {row: self._look(table, row) for row in rows}
        self.feasible = sum(not bits for bits in self._bits.values())
        if not self.feasible:  # somebody may ask whether taking pods away helps
            self.reaches = {p.name: profile.reach(p, pod, table) for p in profile.plugins}

    def _look(self, table: NodeTable, row: int) -> int:
        """The bits of the reasons of the first plugin that refuses a row."""
        pod, state, bits = self.pod, self.state, 0
        for plugin in self.profile.filters:
            if bits:
                if self.profile.reach(plugin, pod, table) == Reach.NOWHERE and plugin.refuses(state, pod, table, row):
                    self._behind.append(row)
                    break
                continue
            texts = self.profile.ask("Filter", plugin, plugin.refuses, state, pod, table, row)
            if not texts:
                continue
            if self.profile.reach(plugin, pod, table) == Reach.ITS_NODE:
                refusals = [(text, True) for text in texts]
            else:
                refusals = [(r.reason, r.resolvable) for r in plugin.filter(state, pod, table) if r.nodes[row]]
            for text, resolvable in refusals:
                bits |= 1 << self._number(plugin.name, text, resolvable)
        return bits

    def __getattr__(self, name: str) -> Any:
        """Columns that nobody read before."""
        if name not in COLUMNS:
            raise AttributeError(name)
        self.refused, self.parts = self.base = self._columns()
        there = np.zeros(self._size, bool)
        there[: len(self.names)] = [bool(n) for n in self.names]
        self.total = np.where(there & (self.refused == 0), 0.0, -np.inf)
        self._fixed = np.zeros(self._size)
        nowhere = {n for n, reach in self.reaches.items() if reach == Reach.NOWHERE}
        fixed = sum(1 << n for n, r in enumerate(self.reasons) if r.plugin in nowhere)
        self.never = ~there | (self.refused & np.uint32(fixed) != 0)
        self.never[self._behind] = True
        return self.__dict__[name]

    def _columns(self) -> tuple[ranking.Bits, ranking.Parts]:
        refused = np.zeros(self._size, np.uint32)
        if self._others:
            refused[: len(self.names)] = [bool(n) for n in self.names]  # the first reason
        for row, bits in self._bits.items():
            refused[row] = bits
        return refused, np.zeros((len(self.profile.scorers), self._size), np.uint8)

    @property
    def looked_at(self) -> Sequence[int]:
        """The rows."""
        return list(self._bits)

    @property
    def _wide(self) -> bool:
        """Whether there are columns, which may have been changed."""
        return "refused" in self.__dict__

    def total_of(self, row: int) -> float:
        if self._wide:
            return super().total_of(row)
        return 0.0 if self._bits.get(row) == 0 else -np.inf

    def best(self) -> Sequence[int] | npt.NDArray[np.intp]:
        return super().best() if self._wide else [row for row, bits in self._bits.items() if not bits]

    def counts(self) -> dict[str, int]:
        if self._wide:
            return super().counts()
        out: dict[str, int] = {self.reasons[0].text: self._others} if self._others else {}
        for bits in self._bits.values():
            for n, reason in enumerate(self.reasons):
                if bits >> n & 1:
                    out[reason.text] = out.get(reason.text, 0) + 1
        return out

    def refused_by(self) -> list[str]:
        if self._wide:
            return super().refused_by()
        refusers = {r.plugin for r in self.reasons}  # each is there because it refused a node
        return [p.name for p in self.profile.plugins if p.name in refusers]

    def resolvable(self) -> Mask:
        if self._wide:
            return super().resolvable()
        out: Mask = np.zeros(self._size, bool)
        for row, bits in self._bits.items():
            out[row] = bits and all(r.resolvable for n, r in enumerate(self.reasons) if bits >> n & 1)
        return out

    def as_of(self, notes: int) -> tuple[ranking.Bits, ranking.Parts]:
        return self.base if self._wide else self._columns()  # not kept: one explanation is no reason to

    def keep(self) -> None:
        if self._wide:
            super().keep()

    @property
    def nbytes(self) -> int:
        return super().nbytes if self._wide else BYTES
