"""One scheduling decision: a pure function of a pod, the node table and a profile.

All nodes are filtered and all that are left are scored, always; there is no sampling. Among equals chance decides, drawn
from the world, so that a simulation repeats itself.
"""

from __future__ import annotations

import random

import numpy as np

from scheduler.framework.plugin import CycleState, Profile, Reach
from scheduler.io.extenders import Answers
from scheduler.ranking.pinned import pinned
from scheduler.ranking.ranking import Ranking
from scheduler.ranking.rankings import Rankings
from scheduler.state.nodes import NodeTable
from scheduler.state.nominated import Nominated
from scheduler.state.pods import PodInfo


class Decision:
    """Where a pod goes and why. ``node`` is empty if it fits nowhere."""

    __slots__ = ("node", "node_was", "notes", "pod", "ranking", "rejection", "rejection_by", "row", "score",
                 "version", "waits")  # fmt: skip

    def __init__(self, pod: PodInfo, ranking: Ranking) -> None:
        self.pod = pod
        self.ranking = ranking
        self.notes = len(ranking.notes)
        self.node, self.row, self.score = "", -1, 0.0
        self.node_was = ""  # the node that was chosen before a plugin took the decision back
        self.version = ""  # of the pod, as it was when this was decided; known if bindings are fenced
        self.waits = False  # for a permit
        self.rejection, self.rejection_by = ranking.rejection, ranking.rejected_by

    @property
    def state(self) -> CycleState:
        return self.ranking.state

    @property
    def nodes(self) -> int:
        return self.ranking.nodes

    @property
    def feasible(self) -> int:
        return self.ranking.feasible

    @property
    def reasons(self) -> dict[str, int]:
        """reason -> how many nodes"""
        return self.ranking.counts()

    @property
    def refused_by(self) -> list[str]:
        """The plugins that said no."""
        return [self.rejection_by] if self.rejection_by else self.ranking.refused_by()

    def reject(self, plugin: str, reason: str) -> None:
        """A plugin took the decision back after a node was chosen."""
        self.node_was, self.node, self.rejection, self.rejection_by = self.node, "", reason, plugin

    def message(self) -> str:
        """The line that a pending pod's condition and event carry."""
        if self.node_was:
            return f"0/1 nodes are available: 1 {self.rejection}."
        if self.rejection:
            return f"0/{self.nodes} nodes are available: {self.rejection}."
        if not self.nodes:
            return "no nodes available to schedule pods"
        listed = ", ".join(sorted(f"{count} {reason}" for reason, count in self.reasons.items()))
        return f"0/{self.nodes} nodes are available: {listed}."


def schedule(
    pod: PodInfo,
    table: NodeTable,
    profile: Profile,
    chance: random.Random,
    rankings: Rankings | None = None,
    nominated: Nominated | None = None,
    answers: Answers | None = None,
) -> Decision:
    """Filters, scores and picks. Changes nothing but ``rankings``, which save work and never change the decision.

    ``nominated``: pods for which room is kept; if this is one of them, it takes its node if it has room now. ``answers``: of
    extenders, which were asked before.
    """
    own = ""
    if answers is not None:
        rankings = None  # a ranking of its own, which they may change
    if nominated is not None and nominated.by_node:
        ranking = _beside(pod, table, profile, rankings, nominated)
        own = nominated.node_of(pod.uid)
    elif rankings is not None:
        ranking = pinned(pod, table, profile) or rankings.get(pod, table, profile)
    else:
        ranking = Ranking(pod, table, profile)
    if answers is not None:
        answers.apply(ranking, table)
    decision = Decision(pod, ranking)
    if ranking.feasible:
        row = table.rows.get(own, -1)
        if row < 0 or ranking.total_of(row) == -np.inf:
            best = ranking.best()
            row = int(best[0]) if len(best) == 1 else profile.tie_break(pod, best, ranking.names, chance)
        decision.row, decision.node, decision.score = row, ranking.names[row], ranking.total_of(row)
    return decision


def _beside(
    pod: PodInfo, table: NodeTable, profile: Profile, rankings: Rankings | None, nominated: Nominated
) -> Ranking:
    """A ranking in which nodes are refused, too, where the pod would not fit once the nominated pods are there."""
    if rankings is not None:
        near = not nominated.reach_far and all(profile.reach(p, pod, table) < Reach.EVERYWHERE for p in profile.filters)
        named = pinned(pod, table, profile) if near else None
        if named is not None and not any(nominated.on(named.names[row], pod) for row in named.looked_at):
            return named
        ranking = rankings.get(pod, table, profile)
        if near and ranking.follows:
            return rankings.beside(pod, table, ranking, nominated)
    else:
        ranking = Ranking(pod, table, profile)
    others = list(nominated.beside(pod))
    if not others:
        return ranking
    with table.as_if(others):
        crowded = Ranking(pod, table, profile)  # it must fit without them, too: they may never come
    ranking.exclude(crowded)
    return ranking
