"""The rankings that are kept from pod to pod."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from scheduler.framework.plugin import Profile
from scheduler.ranking.crowd import Crowd
from scheduler.ranking.nodelocal import Near
from scheduler.ranking.ranking import Ranking
from scheduler.state.nodes import NodeTable
from scheduler.state.nominated import Nominated
from scheduler.state.pods import PodInfo


class Rankings:
    """The rankings of the sorts of pods seen last, for one profile."""

    def __init__(self, most: int = 16) -> None:
        self.most = most
        self._rankings: OrderedDict[bytes, Ranking] = OrderedDict()
        self._near: OrderedDict[bytes, Near] = OrderedDict()  # of those that must be made anew
        self._crowds: OrderedDict[bytes, Crowd] = OrderedDict()

    def get(self, pod: PodInfo, table: NodeTable, profile: Profile) -> Ranking:
        """The ranking for this pod as the table is now."""
        alike = profile.alike(pod)
        cached = self._rankings.get(alike)
        if cached is not None:
            if cached.follow(table):
                self._rankings.move_to_end(alike)
                return cached
            heir = cached.heir(table)
            self._rankings.pop(alike).retire()
            if heir is not None:
                self._rankings[alike] = heir
                return heir
        near = self._near.get(alike) or Near()
        ranking = Ranking(pod, table, profile, near)
        if ranking.follows:
            self._rankings[alike] = ranking
            if len(self._rankings) > self.most:
                self._rankings.popitem(last=False)[1].retire()
        elif near.filters:
            self._near[alike] = near
            self._near.move_to_end(alike)
            if len(self._near) > self.most:
                self._near.popitem(last=False)
        return ranking

    def beside(self, pod: PodInfo, table: NodeTable, ranking: Ranking, nominated: Nominated) -> Ranking:
        """A followed ranking, without the nodes on which room is kept for others that leave none for this pod."""
        alike = ranking.profile.alike(pod)
        crowd = self._crowds.setdefault(alike, Crowd())
        self._crowds.move_to_end(alike)
        if len(self._crowds) > self.most:
            self._crowds.popitem(last=False)
        return crowd.exclude(pod, table, nominated, ranking)

    def check(self, table: NodeTable, profile: Profile) -> None:
        """Raises AssertionError unless each ranking that follows the table is what it would be if it were made now."""
        for alike, cached in list(self._rankings.items()):
            assert profile.alike(cached.pod) == alike, f"the ranking of {cached.pod.key} is kept for other pods"
            if not cached.follow(table):
                continue  # it is made anew before it is used
            fresh = Ranking(cached.pod, table, profile)
            name = f"the ranking of {cached.pod.key}"
            assert cached.feasible == fresh.feasible, f"{name}: {cached.feasible} feasible nodes, should be {fresh.feasible}"
            assert np.array_equal(cached.total, fresh.total), f"{name}: totals"
            for row in table.rows.values():
                assert _why(cached, row) == _why(fresh, row), f"{name}: {_why(cached, row)}, should be {_why(fresh, row)}"


def _why(ranking: Ranking, row: int) -> set[tuple[str, str]]:
    bits = int(ranking.refused[row])
    return {(reason.plugin, reason.text) for n, reason in enumerate(ranking.reasons) if bits >> n & 1}
