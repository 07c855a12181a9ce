"""The effect of nominations on nodes for one sort of pod: it must fit beside the pods for which room is kept."""

from __future__ import annotations

import numpy as np

from scheduler.ranking.ranking import Ranking, Refused
from scheduler.state.nodes import NodeTable
from scheduler.state.nominated import Nominated
from scheduler.state.pods import PodInfo


class Crowd:
    """The refusals of one sort of pod on nodes with nominations, where only pods on the node itself matter to it."""

    def __init__(self) -> None:
        self._version = self._position = self._nominations = -1
        self._refused: dict[int, list[Refused]] = {}  # by row; only those with nominations that were looked at

    def exclude(self, pod: PodInfo, table: NodeTable, nominated: Nominated, ranking: Ranking) -> Ranking:
        """The ranking without the nodes where the pod would not fit beside nominated ones; itself, if there are none."""
        self._forget(table, nominated)
        own = table.rows.get(nominated.node_of(pod.uid), -1)
        crowded: dict[int, list[Refused]] = {}
        for node in nominated.by_node:
            row = table.rows.get(node, -1)
            if row < 0 or ranking.total_of(row) == -np.inf:
                continue
            if row == own:  # where all others like it have one more beside them
                refusals = self._look(pod, table, nominated, ranking, row)
            elif (cached := self._refused.get(row)) is not None:
                refusals = cached
            else:
                refusals = self._refused[row] = self._look(pod, table, nominated, ranking, row)
            if refusals:
                crowded[row] = refusals
        self._position = table.changes.end  # what was tried left no trace
        return ranking.without(crowded) if crowded else ranking

    def _forget(self, table: NodeTable, nominated: Nominated) -> None:
        rows = table.changes.since(self._position)
        nodes = nominated.changes.since(self._nominations)
        if self._version != table.version or rows is None or nodes is None:
            self._refused.clear()
        else:
            for row in (*rows, *(table.rows.get(node, -1) for node in nodes)):
                self._refused.pop(row, None)
        self._version, self._nominations = table.version, nominated.changes.end

    def _look(
        self, pod: PodInfo, table: NodeTable, nominated: Nominated, ranking: Ranking, row: int
    ) -> list[Refused]:
        node = ranking.names[row]
        with table.as_if((other, node) for other in nominated.on(node, pod)):
            for plugin in ranking.near_filters:
                if texts := plugin.refuses(ranking.state, pod, table, row):
                    return [Refused(plugin.name, text) for text in texts]
        return []
