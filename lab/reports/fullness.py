"""Figures of how full nodes are over time, as heat maps: of one run, and of a run of each cell side by side. Pure.

Many nodes share rows: those that are about equally full, the fullest first. By name, a row would be the mean of full nodes
and empty ones, and all rows would look alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lab.experiments.recording import Recording
from lab.experiments.series import Series, Span
from lab.reports.figure import Figure
from lab.reports.overtime import Row, flags, span
from lab.reports.placements import natural
from navarch.api import quantity
from navarch.api.pods import TERMINAL_PHASES

MAX_ROWS = 48
MAX_PIECES = 100
PANEL_PIECES = 60


class Grid(NamedTuple):
    """Boxes of one recording: a row for each ``size`` nodes."""

    rows: list[Row]
    resource: str
    size: int


def utilisation(recording: Recording) -> list[Figure]:
    """How much of each node is requested, over time."""
    shown = span(recording)
    one = grid(recording, shown, MAX_PIECES)
    if not one.rows:
        return []
    many = f" ({one.size} nodes a row, the fullest first)" if one.size > 1 else ""
    caption = f"{one.resource} requested on each node, of what it has{many}"
    options = {**shown, "label": f"{one.resource} requested", "per_row": one.size}
    name = f"utilisation-{one.resource.replace('/', '-')}"
    return [Figure(name, caption, "heatmap", [*one.rows, *flags(recording)], options)]


def side_by_side(recordings: Mapping[str, Recording], x_label: str = "") -> list[Figure]:
    """A heat map for each cell, all on one scale of time."""
    rows: list[Row] = []
    spans = [span(one) for one in recordings.values()]
    shown = {"begin": min(s["begin"] for s in spans), "end": max(s["end"] for s in spans)} if spans else {}
    for cell, recording in recordings.items():
        one = grid(recording, shown, PANEL_PIECES)
        rows += [{"panel": cell, **row} for row in one.rows]
    if not rows or len({row["panel"] for row in rows}) < 2:
        return []
    many = f" ({one.size} nodes a row, the fullest first)" if one.size > 1 else ""
    options = {**shown, "label": f"{one.resource} requested", "per_row": one.size, "x_label": x_label}
    caption = f"how full the nodes are: {one.resource} requested, of what they have{many}; one run of each cell"
    return [Figure("nodes", caption, "heatmap", rows, options)]


def main_resource(recording: Recording) -> str:
    """The resource of which a run is about: an extended one that pods ask for, else cpu, else memory; "" if none."""
    resources: dict[str, None] = {}
    for change in recording.of("pods"):
        for container in change.object["spec"]["containers"]:
            resources |= dict.fromkeys((container.get("resources") or {}).get("requests") or ())
    extended = [r for r in resources if "/" in r]
    return next((r for r in (*extended, "cpu", "memory") if r in resources), "")


def grid(recording: Recording, shown: Mapping[str, float], pieces: int) -> Grid:
    """The share that is requested of each node, or of each group of nodes, in so many pieces of time."""
    resource = main_resource(recording)
    nodes: dict[str, float] = {}
    for change in recording.of("nodes"):
        listed = change.object.get("status", {}).get("allocatable") or {}
        nodes[change.object["metadata"]["name"]] = _amount(listed, resource)
    names = sorted((n for n, amount in nodes.items() if amount > 0), key=natural)
    if not resource or not names:
        return Grid([], resource, 1)
    used = _used(recording, resource, {name: name for name in names})
    size = -(-len(names) // MAX_ROWS)
    if size > 1:
        whole = Span(shown["begin"], shown["end"])
        share = {name: Series.of([(0.0, 0.0), *used.get(name, [])]).mean(whole) / nodes[name] for name in names}
        names.sort(key=lambda name: -share[name])  # names of equal share stay in order
        used = _used(recording, resource, {name: names[n // size * size] for n, name in enumerate(names)})
    rows: list[Row] = []
    for n in range(0, len(names), size):
        group = names[n : n + size]
        row = names[n] if size == 1 else f"{n + 1} to {n + len(group)}"
        rows += _boxes(row, Series.of([(0.0, 0.0), *used.get(names[n], [])]), sum(nodes[m] for m in group), shown, pieces)
    return Grid(rows, resource, size)


def _boxes(row: str, series: Series, capacity: float, shown: Mapping[str, float], pieces: int) -> list[Row]:
    """The shades of one row; neighbours of the same shade, of fifty, are one box."""
    width = (shown["end"] - shown["begin"]) / pieces or 1.0
    boxes: list[list[float]] = []
    for k in range(pieces):
        a = shown["begin"] + k * width
        value = round(50 * series.at(a + width / 2) / capacity) / 50
        if boxes and boxes[-1][2] == value:
            boxes[-1][1] = a + width
        else:
            boxes.append([a, a + width, value])
    return [{"how": "box", "row": row, "time": a, "end": b, "value": value} for a, b, value in boxes]


def _amount(listed: Mapping[str, str], resource: str) -> float:
    return float(quantity.parse(str(listed[resource]))) if resource in listed else 0.0


def _used(recording: Recording, resource: str, group_of: Mapping[str, str]) -> dict[str, list[tuple[float, float]]]:
    """(time, requested) of each group of nodes."""
    where: dict[str, tuple[str, float]] = {}
    totals: dict[str, float] = {}
    out: dict[str, list[tuple[float, float]]] = {}
    for change in recording.of("pods"):
        tree = change.object
        over = change.type == "DELETED" or tree.get("status", {}).get("phase") in TERMINAL_PHASES
        group = None if over else group_of.get(tree["spec"].get("nodeName", ""))
        if (group is not None) == (change.key in where):
            continue
        if group is None:
            old, amount = where.pop(change.key)
            totals[old] -= amount
            out[old].append((change.time, totals[old]))
        else:
            requests = ((c.get("resources") or {}).get("requests") or {} for c in tree["spec"]["containers"])
            amount = sum(_amount(one, resource) for one in requests)
            where[change.key] = (group, amount)
            totals[group] = totals.get(group, 0.0) + amount
            out.setdefault(group, []).append((change.time, totals[group]))
    return out
