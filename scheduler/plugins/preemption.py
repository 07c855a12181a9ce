"""DefaultPreemption: makes room for a pod by deleting pods of lower priority, as few and as unimportant as possible.

On each node that the pod was refused by only for reasons that other pods make, all pods of lower priority are taken away
in thought; if the pod fits then, as many as possible are put back, the most important first. The rest are its victims
there. The node with the least important victims is nominated.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np

from navarch.api.times import parse_time
from scheduler.nodes import Mask, NodeTable
from scheduler.plugin import Plugin, Reach
from scheduler.pods import PodInfo
from scheduler.ranking import Ranking

NO_VICTIMS = "No preemption victims found for incoming pod"
NOT_HELPFUL = "Preemption is not helpful for scheduling"


class Plan(NamedTuple):
    """Where there will be room, once the victims are gone. Without a node, ``message`` says why not."""

    node: str = ""
    victims: tuple[PodInfo, ...] = ()
    message: str = ""


class DefaultPreemption(Plugin):
    """Of the nodes on which preemption works, at least ``absolute`` and ``percentage`` of all are compared."""

    name = "DefaultPreemption"
    events = frozenset()

    def __init__(self, percentage: int = 10, absolute: int = 100) -> None:
        self.percentage, self.absolute = percentage, absolute

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.NOWHERE

    def plan(self, pod: PodInfo, table: NodeTable, ranking: Ranking, chance: random.Random, nominated: str) -> Plan:
        """Changes nothing in the end: the table is put back as it was. ``nominated`` is the pod's node of before."""
        if pod.pod.spec.preemption_policy == "Never":
            return Plan(message="not eligible due to preemptionPolicy=Never.")
        resolvable = ranking.resolvable()
        row = table.rows.get(nominated, -1)
        if (
            row >= 0
            and resolvable[row]
            and any(p.terminating and p.priority < pod.priority for p in table.by_node.get(nominated, {}).values())
        ):
            return Plan(message="not eligible due to a terminating pod on the nominated node.")
        helpful = np.flatnonzero(resolvable & _enough(pod, table))
        best: tuple[tuple[float, ...], Plan] | None = None
        left = max(self.absolute, len(table) * self.percentage // 100)
        start = chance.randrange(len(helpful)) if len(helpful) else 0
        for row in [*helpful[start:].tolist(), *helpful[:start].tolist()]:
            victims = _victims(pod, table, ranking, row)
            if victims is None:
                continue
            found = _cost(victims), Plan(ranking.names[row], tuple(victims))
            if best is None or found[0] < best[0]:
                best = found
            left -= 1
            if not left:
                break
        if best is not None:
            return best[1]
        tried = int(np.count_nonzero(resolvable))
        counts = [(tried, NO_VICTIMS), (len(table) - tried, NOT_HELPFUL)]
        listed = ", ".join(sorted(f"{n} {text}" for n, text in counts if n))
        return Plan(message=f"0/{len(table)} nodes are available: {listed}.")


def _enough(pod: PodInfo, table: NodeTable) -> Mask:
    """Rows with pods of lower priority, whose requests and the room that is left are enough together."""
    lower = [columns for priority, columns in table.by_priority.items() if priority < pod.priority]
    out: Mask = sum((c["pods"] for c in lower if "pods" in c), np.zeros(table.size, np.int64)) > 0
    for resource, amount in pod.requests.items():
        if amount > 0:
            room = table.free_of(resource)
            for columns in lower:
                if resource in columns:
                    room = room + columns[resource]
            out &= room >= amount
    return out


def _victims(pod: PodInfo, table: NodeTable, ranking: Ranking, row: int) -> list[PodInfo] | None:
    """Those pods of a row that must go, the most important first; None if not even all of them are enough."""
    node = ranking.names[row]
    lower = [p for p in table.by_node.get(node, {}).values() if p.priority < pod.priority]
    lower.sort(key=importance)
    # Whether the pod fits can be asked of the row alone, unless pods elsewhere matter.
    mine = [r for n, r in enumerate(ranking.reasons) if int(ranking.refused[row]) >> n & 1]
    alone = ranking.follows and all(r.local for r in mine) and not any(any(p.terms) for p in lower)

    def fits() -> bool:
        if not alone:
            return bool(Ranking(pod, table, ranking.profile).refused[row] == 0)
        filters = ranking.profile.filters
        local = [p for p in filters if ranking.reaches[p.name] == Reach.ITS_NODE]
        return not any(p.refuses(ranking.state, pod, table, row) for p in local)

    for victim in lower:
        table.remove_pod(victim.uid)
    gone = list(lower)
    try:
        if not fits():
            return None
        for candidate in lower:
            table.add_pod(candidate, node)
            gone.remove(candidate)
            if not fits():
                table.remove_pod(candidate.uid)
                gone.append(candidate)
        return list(gone)
    finally:
        for victim in gone:
            table.add_pod(victim, node)


def importance(pod: PodInfo) -> tuple[float, float, str]:
    """Sort key: of higher priority, then longer running, first."""
    return -pod.priority, _started(pod), pod.uid


def _started(pod: PodInfo) -> float:
    text = pod.pod.status.start_time or pod.pod.metadata.creation_timestamp
    return parse_time(text) if text else 0.0


def _cost(victims: list[PodInfo]) -> tuple[float, ...]:
    """Smaller is better: the highest priority, the sum of priorities, the number, and then the youngest important one."""
    highest = max(v.priority for v in victims) if victims else -(2**31)
    # Priorities may be negative: counted from the lowest there can be, so that more victims never cost less.
    total = sum(v.priority + 2**31 for v in victims)
    latest = min((_started(v) for v in victims if v.priority == highest), default=0.0)
    return highest, total, len(victims), -latest
