"""Why a pod is where it is, or nowhere: the last decision of each recent pod, told on request.

A decision keeps its ranking and how many changes had been noted in it then; pods that are alike share one ranking, so a
thousand of them cost little more than one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from scheduler.framework.blame import Fault
from scheduler.framework.cycle import Decision
from scheduler.framework.plugin import Plan
from scheduler.state.pods import PodInfo

MAX_BYTES = 32 << 20
MAX_KEPT = 2000
SHOWN = 10


class Record(NamedTuple):
    decision: Decision
    when: float  # Unix time
    message: str
    plan: Plan


class Failure(NamedTuple):
    """An attempt that came to no decision."""

    pod: PodInfo
    when: float  # Unix time
    fault: Fault


class Recent:
    """The decisions about the pods seen last, as many as fit; and what went wrong since."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._rankings: dict[int, list[int]] = {}  # id of a ranking -> how many decisions keep it, its bytes
        self._bytes = 0
        self._failures: OrderedDict[str, Failure] = OrderedDict()

    def fail(self, pod: PodInfo, when: float, fault: Fault) -> None:
        """The latest attempt to place the pod ended in an exception."""
        self._failures[pod.key] = Failure(pod, when, fault)
        self._failures.move_to_end(pod.key)
        if len(self._failures) > MAX_KEPT:
            self._failures.popitem(last=False)

    def failure(self, key: str) -> Failure | None:
        """By ``namespace/name``: what went wrong after the last decision, if anything."""
        return self._failures.get(key)

    def add(self, decision: Decision, when: float, message: str = "", plan: Plan | None = None) -> None:
        key = decision.pod.key
        self._failures.pop(key, None)
        if key in self._records:
            self._drop(key)
        decision.ranking.keep()
        self._records[key] = Record(decision, when, message, plan or Plan())
        entry = self._rankings.setdefault(id(decision.ranking), [0, 0])
        if not entry[0]:
            entry[1] = decision.ranking.nbytes
            self._bytes += entry[1]
        entry[0] += 1
        while self._bytes > MAX_BYTES or len(self._records) > MAX_KEPT:
            self._drop(next(iter(self._records)))

    def _drop(self, key: str) -> None:
        ranking = id(self._records.pop(key).decision.ranking)
        entry = self._rankings[ranking]
        entry[0] -= 1
        if not entry[0]:
            self._bytes -= entry[1]
            del self._rankings[ranking]

    def get(self, key: str) -> Record | None:
        """By ``namespace/name``."""
        return self._records.get(key)

    def __len__(self) -> int:
        return len(self._records)


def explain(record: Record, node: str = "", top: int = SHOWN) -> dict[str, Any]:
    """A JSON tree: what was decided, what refused how many nodes, how the best nodes scored; of ``node`` all there is."""
    decision = record.decision
    ranking, pod = decision.ranking, decision.pod
    refused, parts = ranking.as_of(decision.notes)
    scorers = ranking.profile.scorers
    weights = np.array([s.weight for s in scorers])
    total = weights @ parts if len(scorers) else np.zeros(len(refused))
    if ranking.extra is not None:
        total = total + ranking.extra
    used = np.array([bool(name) for name in ranking.names] + [False] * (len(refused) - len(ranking.names)))
    feasible = np.flatnonzero(used & (refused == 0)) if not ranking.rejection else np.zeros(0, np.intp)

    def row_tree(row: int) -> dict[str, Any]:
        out: dict[str, Any] = {"node": ranking.names[row]}
        if ranking.rejection:
            out["refused"] = [{"plugin": ranking.rejected_by, "reason": ranking.rejection}]
        elif refused[row]:
            bits = int(refused[row])
            # Sorted: the order in which a ranking met its reasons depends on which nodes it looked at first.
            why = sorted((r for n, r in enumerate(ranking.reasons) if bits >> n & 1), key=lambda r: (r.plugin, r.text))
            out["refused"] = [{"plugin": r.plugin, "reason": r.text, "preemptionMayHelp": r.resolvable} for r in why]
        else:
            out["total"] = float(total[row])
            if ranking.extra is not None:
                out["extenders"] = float(ranking.extra[row])
            out["scores"] = {
                s.plugin.name: {"score": int(parts[n, row]), "weight": s.weight} for n, s in enumerate(scorers)
            }
        return out

    order = feasible[np.argsort(-total[feasible], kind="stable")]
    if decision.row in order:
        order = np.concatenate([[decision.row], order[order != decision.row]])
    reasons = []
    for n, reason in enumerate(ranking.reasons):
        hit = int(np.count_nonzero(refused & np.uint32(1 << n)))
        if hit:
            reasons.append({"plugin": reason.plugin, "reason": reason.text, "nodes": hit})
    reasons.sort(key=lambda r: (-int(str(r["nodes"])), str(r["reason"])))
    if decision.rejection:
        reasons = [{"plugin": decision.rejection_by, "reason": decision.rejection, "nodes": ranking.nodes}]
    out: dict[str, Any] = {
        "pod": pod.pod.metadata.name,
        "namespace": pod.namespace,
        "uid": pod.uid,
        "scheduler": ranking.profile.name,
        "time": record.when,
        "node": decision.node,
        "nodes": ranking.nodes,
        "feasible": len(feasible),
        "refused": reasons,
        "best": [row_tree(int(row)) for row in order[:top]],
    }
    if record.message:
        out["message"] = record.message
    if decision.node and len(order) > 1:
        runner = int(order[1])
        out["runnerUp"] = ranking.names[runner]
        out["margin"] = float(total[decision.row] - total[runner])
        out["ties"] = int(np.count_nonzero(total[feasible] == total[decision.row]))
    if record.plan.node:
        out["preemption"] = {"node": record.plan.node, "victims": [v.key for v in record.plan.victims]}
    if node:
        row = ranking.names.index(node) if node in ranking.names else -1
        out["asked"] = row_tree(row) if row >= 0 else {"node": node, "unknown": True}
    return out


def explain_failure(failure: Failure) -> dict[str, Any]:
    """A JSON tree of the same form: there is no decision, and why."""
    pod, fault = failure.pod, failure.fault
    return {
        "pod": pod.pod.metadata.name,
        "namespace": pod.namespace,
        "uid": pod.uid,
        "scheduler": pod.profile,
        "time": failure.when,
        "node": "",
        "nodes": 0,
        "feasible": 0,
        "refused": [],
        "best": [],
        "changes": [],
        "message": str(fault),
        "failed": {"plugin": fault.plugin, "extensionPoint": fault.point, "error": fault.error},
    }
