"""Pods as bars over time, by group: a Gantt of nodes or ReplicaSets, or the swimlanes of a rollout.

Columns: how (bar, line, tick, flag), group, row, colour (what shares a colour), phase (waiting, starting, ready, unready,
stopping, ended), time and end (s), value, text. Lines and ticks stand in a lane of their own above the bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .canvas import BLUE, COLOURS, PAGE, RED, Row, bare, end_labels, figure, flags, grouped, numbers, seconds_axis

SHADES = {"waiting": 0.14, "starting": 0.4, "ready": 1.0, "unready": 0.25, "stopping": 0.2, "ended": 0.55}
NAMED = {"waiting": "waits for a node", "starting": "starts", "ready": "ready", "unready": "not ready", "stopping": "stops",
         "ended": "ended"}  # fmt: skip


def draw(rows: Sequence[Row], width: float = PAGE, begin: float = 0.0, end: float = 1.0, of: str = "") -> Any:
    """``of``: what a colour stands for."""
    from matplotlib.collections import PolyCollection

    bars = [r for r in rows if r["how"] == "bar"]
    lines = [r for r in rows if r["how"] in ("line", "tick")]
    places: dict[tuple[str, str], float] = {}
    labels: list[tuple[float, str]] = []
    edges = []
    top = 0.0
    for group, of_group in grouped(bars, "group").items():
        start = top
        for name in grouped(of_group, "row"):
            places[group, name] = top
            top += 1.0
        labels.append(((start + top - 1) / 2, group))
        edges.append(top - 0.25)
        top += 0.5
    unit = 0.11 if top <= 60 else 0.075 if top <= 120 else 0.05
    body = max(1.0, 0.25 + unit * top)
    ratios = [1.0, body] if lines else [body]
    drawn, axes = figure(width, sum(ratios) + 0.85, len(ratios), sharex=True, height_ratios=ratios)
    axis = axes[-1]
    colours = {c: COLOURS[n % len(COLOURS)] for n, c in enumerate(grouped(bars, "colour"))}
    by_look: dict[tuple[str, str], list[Row]] = {}
    for r in bars:
        by_look.setdefault((r["colour"], r["phase"]), []).append(r)
    for (colour, phase), listed in by_look.items():
        boxes = []
        for r in listed:
            y, a, b = places[r["group"], r["row"]], float(r["time"]), float(r["end"])
            boxes.append([(a, y - 0.4), (b, y - 0.4), (b, y + 0.4), (a, y + 0.4)])
        shade = mixed(colours[colour], SHADES[phase])
        edge = {"edgecolors": colours[colour], "linewidths": 0.4} if phase in ("stopping", "unready") else {"linewidths": 0}
        axis.add_collection(PolyCollection(boxes, facecolors=shade, **edge), autolim=False)
    for y in edges[:-1]:
        axis.axhline(y, color="#e3e6ea", linewidth=0.6, zorder=0)
    axis.set_ylim(top - 0.6, -0.7)
    axis.set_xlim(begin, end)
    axis.set_yticks([y for y, _ in labels], [short(text) for _, text in labels])
    bare(axis)
    if lines:
        _lane(axes[0], lines)
    flags(axes, [r for r in rows if r["how"] == "flag"], width)
    seconds_axis(axis)
    long = {r["phase"] for r in bars if float(r["end"]) - float(r["time"]) > 0.003 * (end - begin)}
    _key(drawn, colours, long, of)
    return drawn


def _lane(axis: Any, rows: Sequence[Row]) -> None:
    ends = []
    for n, (series, points) in enumerate(grouped([r for r in rows if r["how"] == "line"], "text").items()):
        colour = (BLUE, "#444444")[n % 2]
        values = numbers(points, "value")
        axis.step(numbers(points, "time"), values, where="post", color=colour, linestyle="-" if n == 0 else (0, (4, 1.5)))
        ends.append((values[-1], series, colour))
    axis.set_ylim(0, 1.08 * max(numbers([r for r in rows if r["how"] == "line"], "value"), default=1.0) or 1.0)
    ticks = [r for r in rows if r["how"] == "tick"]
    if ticks:
        axis.plot(numbers(ticks, "time"), [axis.get_ylim()[1] * 0.04] * len(ticks), "|", color=RED, markersize=6)
        ends.append((0.0, "failed requests", RED))
    axis.set_ylabel("pods")
    end_labels(axis, ends, 0.8)


def _key(drawn: Any, colours: dict[str, str], phases: set[str], of: str) -> None:
    """Explains colours and shades in one line below."""
    from matplotlib.patches import Patch

    few = list(colours.items())[:6]
    handles = [Patch(facecolor=c, label=short(name)) for name, c in few] if len(colours) > 1 else []
    if len(colours) > len(few):
        handles.append(Patch(facecolor="none", label=f"and {len(colours) - len(few)} more {of}".rstrip()))
    handles += [
        Patch(facecolor=mixed("#555555", SHADES[p]), edgecolor="#555555" if p in ("stopping", "unready") else "none",
              linewidth=0.4, label=NAMED[p]) for p in SHADES if p in phases
    ]  # fmt: skip
    drawn.legend(handles=handles, loc="outside lower center", ncols=min(8, len(handles)), fontsize=7, handlelength=1.1)


def mixed(colour: str, share: float) -> str:
    """A colour with white in it."""
    parts = [int(colour[n : n + 2], 16) for n in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - (255 - p) * share):02x}" for p in parts)


def short(text: str, most: int = 26) -> str:
    return text if len(text) <= most else f"{text[: most - 10]}…{text[-8:]}"
