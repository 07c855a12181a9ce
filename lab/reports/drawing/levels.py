"""Every run as a point, by level, over a box of the quartiles. Columns: cell, seed, value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .bars import short
from .canvas import COLOURS, INK, PAGE, Row, bare, figure, grouped, numbers


def draw(rows: Sequence[Row], label: str = "", width: float = PAGE / 2) -> Any:
    cells = grouped(rows, "cell")
    drawn, (axis,) = figure(width, 0.6 + 0.3 * len(cells))
    values = [[v for v in numbers(listed, "value") if v == v] for listed in cells.values()]
    axis.boxplot(values, orientation="horizontal", widths=0.5, showfliers=False, patch_artist=True,
                 boxprops={"facecolor": "#f1f3f5", "edgecolor": "#b6bdc5", "linewidth": 0.7},
                 medianprops={"color": INK, "linewidth": 1.2}, whiskerprops={"color": "#b6bdc5", "linewidth": 0.7},
                 capprops={"linewidth": 0})  # fmt: skip
    for n, points in enumerate(values, 1):
        offsets = [((k * 37) % 21 - 10) / 60 for k in range(len(points))]
        axis.plot(points, [n + o for o in offsets], "o", markersize=3.4, alpha=0.7, markeredgewidth=0,
                  color=COLOURS[(n - 1) % len(COLOURS)])  # fmt: skip
    axis.set_yticks(range(1, len(cells) + 1), [short(c, 34) for c in cells])
    axis.set_ylim(len(cells) + 0.5, 0.5)
    bare(axis)
    axis.grid(visible=True, axis="x")
    axis.set_xlabel(label)
    return drawn
