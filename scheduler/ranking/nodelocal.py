"""The verdicts of plugins that reach no further than a node on one sort of pod, kept row by row.

A pod that asks for spreading or for the company of others must be ranked anew each time: one plugin at least looks
everywhere. The others still change their minds about the rows only on which pods came or went.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from scheduler.framework.plugin import CycleState, Plugin, Refusal
from scheduler.state.nodes import NodeTable, Scores
from scheduler.state.pods import PodInfo

FOLLOWED = 64  # rows that changed at once; with more it is cheaper to begin anew


class Filtered:
    """The refusals of a filter: a mask a reason."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        self.masks = {r.reason: (np.array(r.nodes), r.resolvable) for r in refusals}

    def set(self, row: int, reasons: Sequence[str], size: int) -> None:
        for reason, (mask, _) in self.masks.items():
            mask[row] = reason in reasons
        for reason in reasons:
            if reason not in self.masks:
                self.masks[reason] = np.zeros(size, bool), True
                self.masks[reason][0][row] = True

    @property
    def refusals(self) -> list[Refusal]:
        return [Refusal(reason, mask, resolvable) for reason, (mask, resolvable) in self.masks.items()]


class Scored:
    """The scores of a scorer that does not normalise, and what explanations show of them."""

    def __init__(self, scores: Scores | None) -> None:
        self.scores = None if scores is None else np.array(scores)
        self.shown: npt.NDArray[np.uint8] | None = None if scores is None else np.clip(scores, 0, 100).astype(np.uint8)

    def set(self, row: int, score: float | None) -> bool:
        if score is None or self.scores is None or self.shown is None:
            return score is None and self.scores is None
        self.scores[row], self.shown[row] = score, min(max(score, 0), 100)
        return True


class Near:
    """``bring`` it up to date before it is read."""

    def __init__(self) -> None:
        self.filters: dict[str, Filtered] = {}
        self.scorers: dict[str, Scored] = {}
        self._version, self._position = (-1, 0), -1
        self._size = 0

    def bring(
        self, pod: PodInfo, table: NodeTable, state: CycleState, filters: Sequence[Plugin], scorers: Sequence[Plugin]
    ) -> None:
        """Follows the table, for plugins that reach their node only now. None of the scorers normalises."""
        is_same = [p.name for p in filters] == list(self.filters) and [p.name for p in scorers] == list(self.scorers)
        if not is_same or not self._follow(pod, table, state, filters, scorers):
            self.filters = {p.name: Filtered(p.filter(state, pod, table)) for p in filters}
            self.scorers = {p.name: Scored(p.score(state, pod, table)) for p in scorers}
        self._version, self._size, self._position = _version(pod, table), table.size, table.changes.end

    def _follow(
        self, pod: PodInfo, table: NodeTable, state: CycleState, filters: Sequence[Plugin], scorers: Sequence[Plugin]
    ) -> bool:
        if (self._version, self._size) != (_version(pod, table), table.size):
            return False
        rows = table.changes.since(self._position)
        if rows is None or len(rows) > FOLLOWED:
            return False
        for row in rows:
            for plugin in filters:
                self.filters[plugin.name].set(row, plugin.refuses(state, pod, table, row), table.size)
            for plugin in scorers:
                if not self.scorers[plugin.name].set(row, plugin.score_row(state, pod, table, row)):
                    return False
        return True


def _version(pod: PodInfo, table: NodeTable) -> tuple[int, int]:
    """Of what a plugin may look at on a node beside its pods: storage, too, if the pod has claims."""
    return table.version, table.volumes.version if pod.claims else 0
