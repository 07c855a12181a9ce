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
        self._kept: OrderedDict[bytes, Ranking] = OrderedDict()
        self._near: OrderedDict[bytes, Near] = OrderedDict()  # of those that must be made anew
        self._crowds: OrderedDict[bytes, Crowd] = OrderedDict()

    def get(self, pod: PodInfo, table: NodeTable, profile: Profile) -> Ranking:
        """The ranking for this pod as the table is now."""
        alike = profile.alike(pod)
        found = self._kept.get(alike)
        if found is not None:
            if found.follow(table):
                self._kept.move_to_end(alike)
                return found
            heir = found.heir(table)
            self._kept.pop(alike).retire()
            if heir is not None:
                self._kept[alike] = heir
                return heir
        near = self._near.get(alike) or Near()
        made = Ranking(pod, table, profile, near)
        if made.follows:
            self._kept[alike] = made
            if len(self._kept) > self.most:
                self._kept.popitem(last=False)[1].retire()
        elif near.filters:
            self._near[alike] = near
            self._near.move_to_end(alike)
            if len(self._near) > self.most:
                self._near.popitem(last=False)
        return made

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
        for alike, found in list(self._kept.items()):
            assert profile.alike(found.pod) == alike, f"the ranking of {found.pod.key} is kept for other pods"
            if not found.follow(table):
                continue  # it is made anew before it is used
            fresh = Ranking(found.pod, table, profile)
            name = f"the ranking of {found.pod.key}"
            assert found.feasible == fresh.feasible, f"{name}: {found.feasible} feasible nodes, should be {fresh.feasible}"
            assert np.array_equal(found.total, fresh.total), f"{name}: totals"
            for row in table.rows.values():
                assert _why(found, row) == _why(fresh, row), f"{name}: {_why(found, row)}, should be {_why(fresh, row)}"


def _why(ranking: Ranking, row: int) -> set[tuple[str, str]]:
    bits = int(ranking.refused[row])
    return {(reason.plugin, reason.text) for n, reason in enumerate(ranking.reasons) if bits >> n & 1}
