"""Lanes over time, one above another: lines in steps, points, and flags of what was done.

Columns: lane, series, how (line, points, bars, flag), time (s), value, text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .canvas import (
    BLUE,
    COLOURS,
    ORANGE,
    PAGE,
    RED,
    SKY,
    Row,
    end_labels,
    figure,
    flags,
    grouped,
    numbers,
    seconds_axis,
)

MEANT = {"failed": RED, "ok": BLUE, "p50": BLUE, "p99": ORANGE, "pending": ORANGE, "ready": BLUE, "desired": "#444444",
         "available": SKY}  # fmt: skip
DASHED = {"desired": (0, (4, 1.5)), "available": (0, (1.2, 1)), "p99": (0, (4, 1.5))}


def draw(rows: Sequence[Row], width: float = PAGE, lane_height: float = 1.35, begin: float = 0.0, end: float = 1.0) -> Any:
    """``begin`` and ``end``: what is shown, in seconds."""
    lanes = grouped([r for r in rows if r["how"] != "flag"], "lane")
    drawn, axes = figure(width, 0.65 + lane_height * len(lanes), len(lanes), sharex=True)
    for axis, (name, of_lane) in zip(axes, lanes.items(), strict=True):
        ends = []
        spare = iter(c for c in COLOURS if c not in {MEANT.get(s) for s in grouped(of_lane, "series")})
        for series, points in grouped(of_lane, "series").items():
            colour = MEANT.get(series) or next(spare, "#777777")
            times, values = numbers(points, "time"), numbers(points, "value")
            if points[0]["how"] == "line":
                axis.step(times, values, where="post", color=colour, linestyle=DASHED.get(series, "-"),
                          zorder=3 if series in DASHED else 2)  # fmt: skip
            elif points[0]["how"] == "bars":
                axis.vlines(times, 0, values, color=colour, linewidth=1.1)
            else:
                axis.plot(times, values, "o", color=colour, markersize=2.6, alpha=0.55, markeredgewidth=0)
            last = next((v for v in reversed(values) if v == v), 0.0)
            ends.append((last, series, colour))
        axis.set_ylabel(name)
        axis.set_ylim(0, 1.06 * max(numbers(of_lane, "value"), default=0.0) or 1.0)
        axis.set_xlim(begin, end)
        end_labels(axis, ends, lane_height * 0.7)
    flags(axes, [r for r in rows if r["how"] == "flag"], width)
    seconds_axis(axes[-1])
    return drawn
