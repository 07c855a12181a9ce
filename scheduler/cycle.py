"""One scheduling decision: a pure function of a pod, the node table and a profile.

All nodes are filtered and all that are left are scored, always; there is no sampling. Among equals chance decides, drawn
from the world, so that a simulation repeats itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from scheduler.extenders import Answers
from scheduler.nodes import NodeTable
from scheduler.pinned import pinned
from scheduler.plugin import CycleState, Profile
from scheduler.pods import PodInfo
from scheduler.ranking import Ranking, Rankings


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


Nominations = Sequence[tuple[PodInfo, str]]
"""Pods that preempted others, and the nodes on which they wait for room."""


def schedule(
    pod: PodInfo,
    table: NodeTable,
    profile: Profile,
    chance: random.Random,
    rankings: Rankings | None = None,
    nominated: Nominations = (),
    own: str = "",
    answers: Answers | None = None,
) -> Decision:
    """Filters, scores and picks. Changes nothing but ``rankings``, which save work and never change the decision.

    ``nominated``: other pods of the same or a higher priority, for which room is kept; ``own``: the node on which this
    pod waits for room, taken if it has it now; ``answers``: of extenders, which were asked before.
    """
    if answers is not None:
        rankings = None  # a ranking of its own, which they may change
    if nominated:
        ranking = beside(pod, table, profile, nominated)
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
            row = int(best[0]) if len(best) == 1 else int(best[chance.randrange(len(best))])
        decision.row, decision.node, decision.score = row, ranking.names[row], ranking.total_of(row)
    return decision


def beside(pod: PodInfo, table: NodeTable, profile: Profile, nominated: Nominations) -> Ranking:
    """A ranking in which nodes are refused, too, where the pod would not fit once the nominated pods are there."""
    for other, node in nominated:
        table.add_pod(other, node)
    crowded = Ranking(pod, table, profile)
    for other, _ in nominated:
        table.remove_pod(other.uid)
    ranking = Ranking(pod, table, profile)
    ranking.exclude(crowded)
    return ranking
