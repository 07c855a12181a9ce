"""The rankings that are kept from pod to pod."""

from __future__ import annotations

from collections import OrderedDict

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
