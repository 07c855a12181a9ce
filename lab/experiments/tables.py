"""Recordings as tables: a row a pod, a node, a decision of the scheduler, or a change. Pure.

Rows are plain dicts with equal keys, so that they become CSV, Parquet or DataFrames alike. Times are seconds since the start of
the recording; None stands for an event that did not happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lab.experiments.measures import Measures
from lab.experiments.recording import Recording
from lab.experiments.series import Series, Span
from lab.experiments.state import condition
from navarch.api import quantity
from navarch.api.pods import TERMINAL_PHASES
from navarch.api.wellknown import ZONE

Row = dict[str, Any]


def pods(recording: Recording) -> list[Row]:
    """A row a pod, in the order in which they were made."""
    return [life._asdict() for life in Measures(recording).lives()]


def decisions(recording: Recording) -> list[Row]:
    """A row for each pod that was bound, and for each reason that one was told why it fits nowhere; ``waited`` in seconds since
    the pod was made."""
    out: list[Row] = []
    created: dict[str, float] = {}
    bound: set[str] = set()
    messages: dict[str, str] = {}
    for change in recording.of("pods"):
        meta, uid = change.object["metadata"], change.object["metadata"].get("uid", change.key)
        begin = created.setdefault(uid, change.time)
        node, message = change.object["spec"].get("nodeName", ""), _refusal(change.object)
        if uid in bound or not (node or (message and messages.get(uid) != message)):
            continue
        messages[uid] = message
        if node:
            bound.add(uid)
        out.append({
            "time": change.time, "pod": f"{meta.get('namespace', 'default')}/{meta['name']}", "node": node,
            "waited": round(change.time - begin, 6), "message": "" if node else message,
        })  # fmt: skip
    return out


def _refusal(pod: Mapping[str, Any]) -> str:
    """The message of the condition PodScheduled, if it is False."""
    for one in pod.get("status", {}).get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return str(one.get("message", ""))
    return ""


def nodes(recording: Recording) -> list[Row]:
    """A row a node: what it offers (cores, bytes), how much of it was requested (parts of 1), how many pods it was given, and
    for how many seconds it was not Ready; from the mark ``begin`` on."""
    span = Span(recording.mark("begin") or 0.0, recording.end)
    latest: dict[str, Mapping[str, Any]] = {}
    unready: dict[str, list[tuple[float, float]]] = {}
    for change in recording.of("nodes"):
        name = change.object["metadata"]["name"]
        latest[name] = change.object
        points = unready.setdefault(name, [(0.0, 0.0)])
        points.append((change.time, float(change.type == "DELETED" or condition(dict(change.object), "Ready") != "True")))
    counts: dict[str, int] = {}
    for decision in decisions(recording):
        if node_name := decision["node"]:
            counts[node_name] = counts.get(node_name, 0) + 1
    requested = {resource: _requested(recording, resource) for resource in ("cpu", "memory")}
    out: list[Row] = []
    for name, node in latest.items():
        labels = node["metadata"].get("labels") or {}
        row: Row = {"name": name, "zone": labels.get(ZONE, ""), "pods": counts.get(name, 0)}
        for resource, by_node in requested.items():
            offer = float(quantity.parse(str((node["status"].get("allocatable") or {}).get(resource, "0"))))
            used = by_node.get(name)
            row[resource] = offer
            row[f"{resource}_mean"] = used.mean(span) / offer if used and offer else 0.0
            row[f"{resource}_max"] = used.maximum(span) / offer if used and offer else 0.0
        row["not_ready"] = Series.of(unready[name]).integral(span)
        out.append(row)
    return out


def _requested(recording: Recording, resource: str) -> dict[str, Series]:
    """By node, the sum of the requests of the pods that are on it and have not ended."""
    where: dict[str, tuple[str, float]] = {}
    totals: dict[str, float] = {}
    points: dict[str, list[tuple[float, float]]] = {}
    for change in recording.of("pods"):
        pod = change.object
        ended = change.type == "DELETED" or pod.get("status", {}).get("phase") in TERMINAL_PHASES
        node = "" if ended else pod["spec"].get("nodeName", "")
        old = where.get(change.key, ("", 0.0))
        new = (node, _requests(pod, resource) if node else 0.0)
        if new == old:
            continue
        where[change.key] = new
        for name, more in ((old[0], -old[1]), (new[0], new[1])):
            if name:
                totals[name] = totals.get(name, 0.0) + more
                points.setdefault(name, [(0.0, 0.0)]).append((change.time, totals[name]))
    return {name: Series.of(of_node) for name, of_node in points.items()}


def _requests(pod: Mapping[str, Any], resource: str) -> float:
    listed = [(c.get("resources") or {}).get("requests") or {} for c in pod["spec"]["containers"]]
    return sum(float(quantity.parse(str(one[resource]))) for one in listed if resource in one)


def changes(recording: Recording) -> list[Row]:
    """A row a change, without the objects."""
    return [{"time": c.time, "type": c.type, "key": c.key, "revision": c.revision} for c in recording.changes]


def events(recording: Recording) -> list[Row]:
    """A row for each Event object that was written or repeated, as ``kubectl get events`` lists them."""
    out: list[Row] = []
    for change in recording.of("events"):
        one = change.object
        if change.type == "DELETED":
            continue
        about = one.get("involvedObject") or one.get("regarding") or {}
        out.append({
            "time": change.time, "type": one.get("type", ""), "reason": one.get("reason", ""),
            "object": f"{about.get('kind', '')}/{about.get('name', '')}", "count": int(one.get("count") or 1),
            "message": one.get("message") or one.get("note") or "",
        })  # fmt: skip
    return out


TABLES: dict[str, Callable[[Recording], list[Row]]] = {"pods": pods, "nodes": nodes, "decisions": decisions}
"""The tables that a folder of results has for every run."""
KINDS = TABLES | {"changes": changes, "events": events}


def frame(recording: Recording, name: str = "pods") -> Any:
    """A table of ``KINDS`` as a pandas DataFrame."""
    import pandas

    return pandas.DataFrame(KINDS[name](recording))
