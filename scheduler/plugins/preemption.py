"""DefaultPreemption: makes room for a pod by deleting pods of lower priority, as few and as unimportant as possible.

On each node that the pod was refused by only for reasons that other pods make, all pods of lower priority are taken away
in thought; if the pod fits then, as many as possible are put back, first those that disruption budgets protect, then
the most important. The rest are its victims there. The node with the least important victims is nominated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from scheduler.framework.plugin import ALL_ROWS, Attempt, Plan, Plugin, Ranked, Reach
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.plugins.node_resources import NodeResourcesFit
from scheduler.ranking.ranking import Ranking
from scheduler.state.nodes import Mask, NodeTable
from scheduler.state.nominated import Nominated
from scheduler.state.pods import PodInfo

Rows = npt.NDArray[np.intp]

NO_VICTIMS = "No preemption victims found for incoming pod"
NOT_HELPFUL = "Preemption is not helpful for scheduling"


Victims = tuple[list[PodInfo], int]
"""The victims on a node, and how many of them break disruption budgets."""
UNKNOWN, NOTHING, SOME = 0, 1, 2  # of a row: not looked at, no use, victims found
COSTS = 5


class Memory:
    """The findings on each row for one sort of pod: whether preemption may help there, whose, and at which cost."""

    def __init__(self, pod: PodInfo, table: NodeTable, ranking: Ranked) -> None:
        self.resolvable = ranking.resolvable()
        self.helpful: Mask = self.resolvable & _enough(pod, table)
        self.state = np.zeros(table.size, np.int8)
        self.costs = np.zeros((COSTS, table.size))
        self._lowest, self._highest = [np.inf] * COSTS, [-np.inf] * COSTS  # ever noted
        self.victims: dict[int, Victims] = {}

    def again(self, row: int, pod: PodInfo, table: NodeTable, ranking: Ranked) -> None:
        """Pods came to a row, or left it."""
        self.state[row] = UNKNOWN
        self.victims.pop(row, None)
        self.resolvable[row] = ranking.resolvable_at(row)
        self.helpful[row] = self.resolvable[row] and _enough_at(pod, table, row)

    def note(self, row: int, victims: Victims | None) -> None:
        if victims is None or not victims[0]:
            self.state[row] = NOTHING
            return
        self.state[row] = SOME
        self.victims[row] = victims
        for n, cost in enumerate(_cost(*victims)):
            self.costs[n, row] = cost
            self._lowest[n], self._highest[n] = min(self._lowest[n], cost), max(self._highest[n], cost)

    def first(self, rows: Rows, most: int, search: Callable[[int], Victims | None]) -> Rows:
        """The first so many of ``rows`` with victims; ``search`` is asked about those of which nothing is known."""
        while True:
            states = self.state[rows]
            with_victims = states == SOME
            if np.count_nonzero(with_victims) > most:
                end = int(np.searchsorted(np.cumsum(with_victims), most)) + 1
                rows, states, with_victims = rows[:end], states[:end], with_victims[:end]
            unknown = np.flatnonzero(states == UNKNOWN)[:most]
            if not len(unknown):
                first_rows: Rows = rows[with_victims]
                return first_rows
            for row in rows[unknown].tolist():
                self.note(row, search(row))

    def cheapest(self, rows: Rows) -> int:
        """The first of the rows of the lowest cost."""
        for costs, lowest, highest in zip(self.costs, self._lowest, self._highest, strict=True):
            if lowest < highest and len(rows) > 1:
                here = costs[rows]
                rows = rows[here == here.min()]
        return int(rows[0])


class DefaultPreemption(Plugin):
    """Of the nodes on which preemption works, at least ``absolute`` and ``percentage`` of all are compared."""

    name = "DefaultPreemption"
    reads = NOTHING_ELSE
    events = frozenset()

    def __init__(self, percentage: int = 10, absolute: int = 100) -> None:
        self.percentage, self.absolute = percentage, absolute
        self._memory: Memory | None = None
        self._of: tuple[object, ...] = ()  # what this is known of: the table, its versions, the sort of pod, its ranking
        self._position = self._started = self._nominations = 0
        self._own = ""  # the node for which the pod was nominated that asked last

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def _remembered(self, pod: PodInfo, table: NodeTable, ranking: Ranked, attempt: Attempt) -> Memory:
        """The findings for the last sort of pod, but for the rows that changed since."""
        ranking, others = ranking.origin or ranking, attempt.others or Nominated()
        of = table, table.version, table.topology.version, ranking.profile.alike(pod), ranking, attempt.others
        memory = self._memory if of == self._of and ranking.follows else None
        changed = table.changes.since(self._position)
        started = table.starts.since(self._started)
        nodes = others.changes.since(self._nominations)
        if memory is None or changed is None or started is None or nodes is None:
            memory = self._memory = Memory(pod, table, ranking)
        else:
            nodes += [self._own, attempt.nominated]  # where one pod of the sort has one less beside it than the others
            nominated = [row for node in nodes if (row := table.rows.get(node)) is not None]
            for row in dict.fromkeys(changed + started + nominated):
                memory.again(row, pod, table, ranking)
        self._of, self._position, self._started = of, table.changes.end, table.starts.end
        self._nominations, self._own = others.changes.end, attempt.nominated
        return memory

    def post_filter(self, pod: PodInfo, table: NodeTable, ranking: Ranked, attempt: Attempt) -> Plan:
        if ranking.rejection:
            return Plan(message=f"preemption: 0/{len(table)} nodes are available: {len(table)} {NOT_HELPFUL}.")
        plan = self.plan(pod, table, ranking, attempt)
        return plan._replace(message=f"preemption: {plan.message}" if plan.message else "")

    def candidates(
        self, pod: PodInfo, table: NodeTable, ranking: Ranked, attempt: Attempt
    ) -> dict[str, tuple[list[PodInfo], int]]:
        """All nodes that were compared: the victims on each, and how many of them break disruption budgets."""
        _, compared, victims = self._compare(pod, table, ranking, attempt)
        return {ranking.names[row]: victims[row] for row in compared.tolist()}

    def plan(self, pod: PodInfo, table: NodeTable, ranking: Ranked, attempt: Attempt) -> Plan:
        """Changes nothing in the end: the table is put back as it was.

        The search starts at a node that chance picks (without it, the first), so that not all take the same nodes.
        """
        return self._compare(pod, table, ranking, attempt)[0]

    def _compare(
        self, pod: PodInfo, table: NodeTable, ranking: Ranked, attempt: Attempt
    ) -> tuple[Plan, Rows, Mapping[int, Victims]]:
        """The plan, the rows that were compared, and the victims on each."""
        none = np.zeros(0, np.intp)
        if pod.pod.spec.preemption_policy == "Never":
            return Plan(message="not eligible due to preemptionPolicy=Never.", keep=True), none, {}
        others = attempt.others
        fit = None if others is not None and others.reach_far else _fit_alone(pod, table, ranking)
        if fit is None and others is not None and others.by_node:
            with table.as_if(others.beside(pod)):
                return self._compare(pod, table, ranking, attempt._replace(others=None))
        memory = Memory(pod, table, ranking) if fit is None else self._remembered(pod, table, ranking, attempt)
        resolvable, helps = memory.resolvable, memory.helpful
        if ranking.excluded and fit is not None:  # rows that are refused for the sake of nominated pods alone
            resolvable, helps = resolvable.copy(), helps.copy()
            resolvable[ranking.excluded] = True
            helps[ranking.excluded] = _enough(pod, table, ranking.excluded)
        own = table.rows.get(attempt.nominated, -1)
        here = table.by_node.get(attempt.nominated, {}).values()
        if own >= 0 and resolvable[own] and any(p.terminating and p.priority < pod.priority for p in here):
            text = "not eligible due to a terminating pod on the nominated node."
            return Plan(message=text, keep=True), none, {}
        helpful = np.flatnonzero(helps)
        never, chance = ranking.never, attempt.chance

        def search(row: int) -> Victims | None:
            if fit is None:
                return _victims(pod, table, ranking, row)
            node = ranking.names[row]
            return None if never[row] else _victims_by_room(pod, table, fit, node, others.on(node, pod) if others else ())

        start = chance.randrange(len(helpful)) if chance is not None and len(helpful) else 0
        most = max(self.absolute, len(table) * self.percentage // 100)
        compared = memory.first(np.concatenate([helpful[start:], helpful[:start]]), most, search)
        if len(compared):
            best = memory.cheapest(compared)
            return Plan(ranking.names[best], tuple(memory.victims[best][0])), compared, memory.victims
        tried = int(np.count_nonzero(resolvable))
        counts = [(tried, NO_VICTIMS), (len(table) - tried, NOT_HELPFUL)]
        listed = ", ".join(sorted(f"{n} {text}" for n, text in counts if n))
        return Plan(message=f"0/{len(table)} nodes are available: {listed}."), none, {}


def best_plan(candidates: Mapping[str, tuple[Sequence[PodInfo], int]]) -> Plan:
    """The node with the least important victims."""
    node = min(candidates, key=lambda n: _cost(list(candidates[n][0]), candidates[n][1]))
    return Plan(node, tuple(candidates[node][0]))


def _enough(pod: PodInfo, table: NodeTable, rows: slice | Sequence[int] = ALL_ROWS) -> Mask:
    """Rows with pods of lower priority, whose requests and the room that is left are enough together."""
    lower = [columns for priority, columns in table.by_priority.items() if priority < pod.priority]
    none = np.zeros(table.size, np.int64)[rows]
    out: Mask = sum((c["pods"][rows] for c in lower if "pods" in c), none) > 0
    for resource, amount in pod.requests.items():
        if amount > 0:
            room = table.allocatable[resource][rows] if resource in table.allocatable else none
            if resource in table.requested:
                room = room - table.requested[resource][rows]
            for columns in lower:
                if resource in columns:
                    room = room + columns[resource][rows]
            out &= room >= amount
    return out


def _enough_at(pod: PodInfo, table: NodeTable, row: int) -> bool:
    """As :func:`_enough`, for one row."""
    lower = [columns for priority, columns in table.by_priority.items() if priority < pod.priority]
    if not any(c["pods"][row] for c in lower if "pods" in c):
        return False
    return all(
        table.free_at(resource, row) + sum(int(c[resource][row]) for c in lower if resource in c) >= amount
        for resource, amount in pod.requests.items()
        if amount > 0
    )


def _fit_alone(pod: PodInfo, table: NodeTable, ranking: Ranked) -> NodeResourcesFit | None:
    """The plugin that asks for room, if nothing else about other pods matters to this pod: then victims are arithmetic."""
    fit = None
    for plugin in ranking.profile.filters:
        reach = ranking.reaches[plugin.name]
        if isinstance(plugin, NodeResourcesFit):
            fit = plugin
        elif reach != Reach.NOWHERE:
            return None
    return None if table.topology.terms_against(pod) else fit


def _lower(pod: PodInfo, table: NodeTable, node: str) -> tuple[list[PodInfo], int]:
    """The pods of a node that the pod may displace, in the order in which they are put back: first those (so many)
    whose disruption budgets would be broken, then the others; of each the most important first."""
    lower = [p for p in table.by_node.get(node, {}).values() if p.priority < pod.priority]
    lower.sort(key=lambda p: p.importance)
    broken = table.violating(lower)
    if any(broken):
        lower = [p for p, b in zip(lower, broken, strict=True) if b] + [
            p for p, b in zip(lower, broken, strict=True) if not b
        ]
    return lower, sum(broken)


def _victims_by_room(
    pod: PodInfo, table: NodeTable, fit: NodeResourcesFit, node: str, others: Sequence[PodInfo]
) -> Victims | None:
    """As :func:`_victims`, where only room matters. ``others`` will be there, too."""
    (lower, protected), row = _lower(pod, table, node), table.rows[node]
    spare = {r: table.free_at(r, row) - n + sum(p.requests.get(r, 0) for p in lower) for r, n in fit.requests(pod)}
    for other in others:
        for r in spare:
            spare[r] -= other.requests.get(r, 0)
    if any(n < 0 for n in spare.values()):
        return None
    victims = []
    for candidate in lower:
        if all(candidate.requests.get(r, 0) <= n for r, n in spare.items()):
            for r in spare:
                spare[r] -= candidate.requests.get(r, 0)
        else:
            victims.append(candidate)
    return victims, _broken(victims, lower, protected)


def _victims(pod: PodInfo, table: NodeTable, ranking: Ranked, row: int) -> Victims | None:
    """Those pods of a row that must go, and how many of them break budgets; None if not even all are enough."""
    node = ranking.names[row]
    lower, protected = _lower(pod, table, node)

    def fits() -> bool:
        return bool(Ranking(pod, table, ranking.profile).refused[row] == 0)

    table.trying += 1
    for victim in lower:
        table.remove_pod(victim.uid)
    victims = list(lower)
    try:
        if not fits():
            return None
        for candidate in lower:
            table.add_pod(candidate, node)
            victims.remove(candidate)
            if not fits():
                table.remove_pod(candidate.uid)
                victims.append(candidate)
        return list(victims), _broken(victims, lower, protected)
    finally:
        for victim in victims:
            table.add_pod(victim, node)
        table.tried()


def _broken(victims: list[PodInfo], lower: list[PodInfo], protected: int) -> int:
    """How many of the victims are among the first so many of ``lower``."""
    if not protected:
        return 0
    protected_uids = {p.uid for p in lower[:protected]}
    return sum(v.uid in protected_uids for v in victims)


def _cost(victims: list[PodInfo], broken: int) -> tuple[float, ...]:
    """Smaller is better: broken budgets, the highest priority, the sum of priorities, the number, and then the younger
    its most important pods."""
    highest = max(v.priority for v in victims) if victims else -(2**31)
    # Priorities may be negative: counted from the lowest there can be, so that more victims never cost less.
    total = sum(v.priority + 2**31 for v in victims)
    latest = min((v.started for v in victims if v.priority == highest), default=0.0)
    return broken, highest, total, len(victims), -latest
