"""Questions about a pod that is not there, or not where it is: where would it go now, and what would change that?

Everything is asked of the live table and changes nothing in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scheduler.explain.explain import Record, explain
from scheduler.framework.cycle import Decision
from scheduler.framework.outcomes import Rejected
from scheduler.framework.plugin import Attempt, Plan, Profile
from scheduler.plugins.node_resources import NodeResourcesFit
from scheduler.ranking.ranking import Ranking
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo


def ask(pod: PodInfo, table: NodeTable, profile: Profile, now: float, node: str = "") -> dict[str, Any]:
    """An explanation as of a decision, for the state of now; with ``changes`` if the pod fits nowhere.

    A pod that is on a node is looked at as if it were not. Among the best nodes the first is told, not drawn.
    """
    counted = table.pods.get(pod.uid)
    table.trying += 1
    if counted is not None:
        table.remove_pod(pod.uid)
    try:
        ranking = Ranking(pod, table, profile)
        decision, plan = Decision(pod, ranking), Plan()
        if ranking.feasible:
            row = int(ranking.best()[0])
            decision.row, decision.node = row, ranking.names[row]
        else:
            plan = _preemption(pod, table, ranking, profile)
        message = "" if decision.node else decision.message()
        out = explain(Record(decision, now, message, plan), node)
        if not decision.node:
            out["changes"] = changes(pod, table, profile)
        out["live"] = True
        return out
    finally:
        if counted is not None:
            table.add_pod(*counted)
        table.tried()


def _preemption(pod: PodInfo, table: NodeTable, ranking: Ranking, profile: Profile) -> Plan:
    plans = [p.post_filter(pod, table, ranking, Attempt(dry=True)) for p in profile.post_filters]
    return next((plan for plan in plans if plan.node), Plan(message=", ".join(p.message for p in plans if p.message)))


def changes(pod: PodInfo, table: NodeTable, profile: Profile) -> list[dict[str, Any]]:
    """Lists single changes that make the pod fit: plugins whose refusals, and no others, keep it from some nodes."""
    out: list[dict[str, Any]] = []
    if not len(table):
        return [{"change": "add a node"}]
    for plugin in profile.pre_enqueuers:
        try:
            plugin.pre_enqueue(pod)
        except Rejected as rejected:
            out.append({"plugin": plugin.name, "change": str(rejected)})
    whole = Ranking(pod, table, profile)
    refusing = whole.refused_by()
    for name in refusing:
        if name == "Unsupported":
            continue
        others = Profile(
            profile.name,
            [p for p in profile.plugins if p.name != name],
            [],
            {"pre_filter": [p for p in profile.pre_filters if p.name != name],
             "filter": [p for p in profile.filters if p.name != name]},
        )  # fmt: skip
        ranking = Ranking(pod, table, others)
        if not ranking.feasible:
            continue
        entry: dict[str, Any] = {"plugin": name, "nodes": ranking.feasible}
        rows = np.flatnonzero(ranking.total > -np.inf)
        plugin = next(p for p in profile.plugins if p.name == name)
        if isinstance(plugin, NodeResourcesFit):
            entry["change"] = _smaller(pod, table, rows)
        else:
            refusals = {whole.rejection} if whole.rejection else set[str]()
            for row in () if whole.rejection else rows.tolist():
                refusals |= set(plugin.refuses(ranking.state, pod, table, row))
            why = sorted(refusals)[:3]
            entry["change"] = (
                f"without {name} ({'; '.join(why) or 'see its rules'}) it would fit on {ranking.feasible} nodes"
            )
        out.append(entry)
    return out


def _smaller(pod: PodInfo, table: NodeTable, rows: np.ndarray) -> str:
    """Requests that would fit on the node that lacks least."""
    requests = {r: n for r, n in pod.requests.items() if n > 0}
    lacks = np.zeros(len(rows))
    for resource, amount in requests.items():
        lacks += np.maximum(0, amount - table.free_of(resource)[rows]) / amount
    row = int(rows[int(np.argmin(lacks))])
    parts = []
    for resource, amount in requests.items():
        free = max(0, table.free_at(resource, row))
        if free < amount:
            if resource == "pods":
                parts.append("room for one pod more")
            else:
                parts.append(f"{resource} {_amount(resource, free)} instead of {_amount(resource, amount)}")
    return f"with {' and '.join(parts)} it would fit on {table.names()[row]}"


def _amount(resource: str, amount: int) -> str:
    if resource == "cpu":
        return f"{amount}m" if amount % 1000 else str(amount // 1000)
    for unit, size in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if resource != "pods" and amount >= size and resource in ("memory", "ephemeral-storage"):
            return f"{amount // size}{unit}"
    return str(amount)
