"""Two measures of every cell, the best of which are named and joined. Columns: cell, x, y, best (1 or 0)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .bars import short
from .canvas import BLUE, PAGE, Row, figure


def draw(rows: Sequence[Row], x_label: str = "", y_label: str = "", width: float = PAGE, height: float = 3.0) -> Any:
    drawn, (axis,) = figure(width, height)
    best = sorted((float(r["x"]), float(r["y"]), r["cell"]) for r in rows if r["best"] == "1")
    others = [(float(r["x"]), float(r["y"])) for r in rows if r["best"] != "1"]
    axis.plot([x for x, _ in others], [y for _, y in others], "o", color="#a7adb4", markersize=4, markeredgewidth=0)
    axis.plot([x for x, _, _ in best], [y for _, y, _ in best], "-o", color=BLUE, markersize=5.5, linewidth=1.0)
    for n, (x, y, name) in enumerate(best):
        axis.annotate(short(name, 44), (x, y), xytext=(6, 6 if n % 2 == 0 else -9), textcoords="offset points", fontsize=7,
                      color=BLUE, annotation_clip=False)  # fmt: skip
    axis.margins(0.12)
    axis.grid(visible=True, axis="both")
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    return drawn
