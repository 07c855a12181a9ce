"""Paired differences to the first cell, with their intervals: a panel for each measure.

Columns: measure, cell, mean, low, high.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .bars import short
from .canvas import BLUE, PAGE, SOFT, Row, bare, figure, grouped


def draw(rows: Sequence[Row], base: str = "", width: float = PAGE) -> Any:
    """Filled: the interval has no zero in it."""
    panels = grouped(rows, "measure")
    cells = list(grouped(rows, "cell"))
    columns = len(panels) if len(panels) <= 4 else 3
    lines = math.ceil(len(panels) / columns)
    drawn, axes = figure(width, 0.35 + lines * (0.55 + 0.21 * len(cells)), lines, columns, sharey=True)
    for axis, (measure, listed) in zip(axes, panels.items(), strict=False):
        axis.axvline(0.0, color=SOFT, linewidth=0.8)
        for r in listed:
            y, mean, low, high = cells.index(r["cell"]), float(r["mean"]), float(r["low"]), float(r["high"])
            sure = low > 0 or high < 0
            axis.plot([low, high], [y, y], color=BLUE, linewidth=1.6, solid_capstyle="butt")
            axis.plot([mean], [y], "o", markersize=4.5, color=BLUE, markerfacecolor=BLUE if sure else "white")
        axis.set_title(measure)
        axis.margins(x=0.1)
        axis.set_yticks(range(len(cells)), [short(c, 30) for c in cells])
        axis.set_ylim(len(cells) - 0.5, -0.5)
        axis.locator_params(axis="x", nbins=5)
        bare(axis)
        axis.grid(visible=True, axis="x")
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    drawn.supxlabel(f"less {base}  ←  difference  →  more than {base}" if base else "difference", fontsize=7.5, color=SOFT)
    return drawn
