"""Means over two factors as a table of shades, a panel for each measure. Columns: measure, row, column, value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .bars import short
from .canvas import HEAT, INK, PAGE, Row, figure, grouped


def draw(rows: Sequence[Row], row_label: str = "", column_label: str = "", width: float = PAGE) -> Any:
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    panels = grouped(rows, "measure")
    names, heads = list(grouped(rows, "row")), list(grouped(rows, "column"))
    across = max(1, min(len(panels), 3, int(12 // max(1, len(heads))) or 1))
    lines = math.ceil(len(panels) / across)
    drawn, axes = figure(width, lines * (0.8 + 0.26 * len(names)), lines, across)
    shades = LinearSegmentedColormap.from_list("less to more", HEAT[:5])
    for axis, (measure, listed) in zip(axes, panels.items(), strict=False):
        values = [float(r["value"]) for r in listed if r["value"] not in ("", "nan")]
        scale = Normalize(min(values, default=0.0), max(values, default=1.0))
        for r in listed:
            if r["value"] in ("", "nan"):
                continue
            x, y, value = heads.index(r["column"]), names.index(r["row"]), float(r["value"])
            axis.fill_between([x - 0.48, x + 0.48], y - 0.47, y + 0.47, color=shades(scale(value)), linewidth=0)
            dark = scale(value) > 0.62
            axis.text(x, y, f"{value:.3g}", ha="center", va="center", fontsize=7, color="white" if dark else INK)
        axis.set_title(measure)
        axis.set_xticks(range(len(heads)), [short(h, 14) for h in heads])
        axis.set_yticks(range(len(names)), [short(n, 20) for n in names])
        axis.set_xlim(-0.5, len(heads) - 0.5)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.grid(visible=False)
        axis.tick_params(length=0)
        for side in ("left", "bottom"):
            axis.spines[side].set_visible(False)
        axis.set_xlabel(column_label)
        axis.set_ylabel(row_label)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return drawn
