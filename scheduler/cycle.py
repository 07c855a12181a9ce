"""One scheduling decision: a pure function of a pod, the node table and a profile.

All nodes are filtered and all that are left are scored, always; there is no sampling. Among equals chance decides, drawn
from the world, so that a simulation repeats itself.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from scheduler.nodes import NodeTable, Scores
from scheduler.plugin import CycleState, Profile, Rejected
from scheduler.pods import PodInfo


@dataclass
class Decision:
    """Where a pod goes and why. ``node`` is empty if it fits nowhere; ``refused_by`` names the plugins that said no."""

    pod: PodInfo
    node: str = ""
    state: CycleState = field(default_factory=CycleState)
    nodes: int = 0
    feasible: int = 0
    reasons: dict[str, int] = field(default_factory=dict)  # reason -> how many nodes
    refused_by: list[str] = field(default_factory=list)
    score: float = 0
    rejection: str = ""

    def message(self) -> str:
        """The line that a pending pod's condition and event carry."""
        if self.rejection:
            return f"0/{self.nodes} nodes are available: {self.rejection}."
        if not self.nodes:
            return "no nodes available to schedule pods"
        listed = ", ".join(sorted(f"{count} {reason}" for reason, count in self.reasons.items()))
        return f"0/{self.nodes} nodes are available: {listed}."


def schedule(pod: PodInfo, table: NodeTable, profile: Profile, chance: random.Random) -> Decision:
    """Filters, scores and picks. Changes nothing."""
    decision = Decision(pod, nodes=len(table))
    feasible = table.valid.copy()
    if not len(table):
        return decision
    try:
        for plugin in profile.plugins:
            only = plugin.pre_filter(decision.state, pod, table)
            if only is not None:
                feasible &= only
    except Rejected as rejected:
        decision.rejection = str(rejected)
        decision.refused_by.append(plugin.name)
        return decision
    for plugin in profile.plugins:
        gone = None
        for refusal in plugin.filter(decision.state, pod, table):
            hit = int(np.count_nonzero(refusal.nodes & feasible))
            if hit:
                decision.reasons[refusal.reason] = decision.reasons.get(refusal.reason, 0) + hit
                gone = refusal.nodes if gone is None else gone | refusal.nodes
        if gone is not None:
            feasible &= ~gone
            decision.refused_by.append(plugin.name)
    left = np.flatnonzero(feasible)
    decision.feasible = len(left)
    if not len(left):
        return decision
    row = int(left[0])
    if len(left) > 1:
        total = scores(pod, table, profile, decision.state, feasible)[left]
        best = left[total == total.max()]
        row = int(best[0]) if len(best) == 1 else int(best[chance.randrange(len(best))])
        decision.score = float(total.max())
    chosen = table.nodes[row]
    assert chosen is not None
    decision.node = chosen.metadata.name or ""
    return decision


def scores(pod: PodInfo, table: NodeTable, profile: Profile, state: CycleState, feasible: np.ndarray) -> Scores:
    """The weighted sum of all scorers, a row each; rows that are not feasible mean nothing."""
    total = np.zeros(table.size)
    for entry in profile.scorers:
        entry.plugin.pre_score(state, pod, table, feasible)
        raw = entry.plugin.score(state, pod, table)
        if raw is not None:
            total += entry.weight * entry.plugin.normalize(raw, feasible)
    return total
