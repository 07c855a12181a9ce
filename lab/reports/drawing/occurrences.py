"""Events over time, a row for each reason; a larger dot is more of them at once.

Columns: how (event, flag), series, time, value, text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .canvas import BLUE, ORANGE, PAGE, Row, bare, figure, flags, grouped, numbers, seconds_axis


def draw(rows: Sequence[Row], width: float = PAGE, begin: float = 0.0, end: float = 1.0) -> Any:
    events = [r for r in rows if r["how"] == "event"]
    reasons = grouped(events, "series")
    drawn, (axis,) = figure(width, 0.8 + 0.17 * len(reasons))
    for n, listed in enumerate(reasons.values()):
        counts = numbers(listed, "value")
        colour = ORANGE if listed[0]["text"] == "Warning" else BLUE
        axis.scatter(numbers(listed, "time"), [n] * len(listed), s=[7 + 9 * math.log2(c) for c in counts], color=colour,
                     alpha=0.6, linewidths=0)  # fmt: skip
        total = f"{sum(counts):.0f}"
        axis.annotate(total, (1.0, n), xytext=(4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                      va="center", fontsize=7, color=colour, annotation_clip=False)  # fmt: skip
    axis.set_yticks(range(len(reasons)), list(reasons))
    axis.set_ylim(len(reasons) - 0.4, -0.6)
    axis.set_xlim(begin, end)
    bare(axis)
    axis.grid(visible=True, axis="y")
    flags([axis], [r for r in rows if r["how"] == "flag"], width)
    seconds_axis(axis)
    return drawn
