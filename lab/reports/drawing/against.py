"""Simulated against real: a panel for each measure, a point for each cell, on the line where both are equal.

Columns: measure, cell, simulated, simulated_low, simulated_high, real, real_low, real_high.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .canvas import BLUE, PAGE, SOFT, Row, figure, grouped


def draw(rows: Sequence[Row], width: float = PAGE) -> Any:
    panels = grouped(rows, "measure")
    across = min(3, len(panels))
    lines = math.ceil(len(panels) / across)
    drawn, axes = figure(width, 0.3 + lines * 2.2, lines, across)
    for axis, (measure, listed) in zip(axes, panels.items(), strict=False):
        for r in listed:
            x, y = float(r["real"]), float(r["simulated"])
            axis.plot([float(r["real_low"]), float(r["real_high"])], [y, y], color=BLUE, linewidth=0.9, alpha=0.6)
            axis.plot([x, x], [float(r["simulated_low"]), float(r["simulated_high"])], color=BLUE, linewidth=0.9, alpha=0.6)
            axis.plot([x], [y], "o", color=BLUE, markersize=4)
            axis.annotate(r["cell"], (x, y), xytext=(4, 3), textcoords="offset points", fontsize=6.5, color=SOFT)
        places = [float(r[k]) for r in listed for k in ("real_low", "real_high", "simulated_low", "simulated_high")]
        low, high = min(places), max(places)
        edge = (high - low or abs(high) or 1.0) * 0.12
        axis.plot([low - edge, high + edge], [low - edge, high + edge], color="#b6bdc5", linewidth=0.8, zorder=0)
        axis.set_xlim(low - edge, high + edge)
        axis.set_ylim(low - edge, high + edge)
        axis.set_title(measure)
        axis.grid(visible=False)
        axis.set_xlabel("real")
        axis.set_ylabel("simulated")
        axis.locator_params(nbins=4)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return drawn
