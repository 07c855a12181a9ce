"""How full nodes are over time, as shades: a row for each node or group of nodes; a panel for each cell, if any.

Columns: how (box, flag), panel, row, time and end (s), value (0 to 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .bars import short
from .canvas import HEAT, PAGE, Row, bare, figure, flags, grouped, seconds_axis


def draw(
    rows: Sequence[Row], width: float = PAGE, begin: float = 0.0, end: float = 1.0, label: str = "", x_label: str = "",
    per_row: int = 1,
) -> Any:  # fmt: skip
    """``per_row``: nodes that share a row; with more than one, rows are numbered and have no names."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    boxes = [r for r in rows if r["how"] == "box"]
    panels = grouped(boxes, "panel") if boxes[0].get("panel") else {"": boxes}
    across = min(3, len(panels))
    lines = math.ceil(len(panels) / across)
    count = max(len(grouped(listed, "row")) for listed in panels.values())
    unit = 0.2 if count <= 16 else 0.12 if count <= 40 else 0.075
    high = 0.95 + unit * count if len(panels) == 1 else 0.5 + lines * min(0.55 + unit * count, 2.1)
    drawn, axes = figure(width, high, lines, across, sharex=True, sharey=True)
    most = max(float(r["value"]) for r in boxes)
    scale = Normalize(0.0, next((edge for edge in (0.25, 0.5, 1.0) if most <= edge), most))
    shades = LinearSegmentedColormap.from_list("full", HEAT)
    for axis, (panel, listed) in zip(axes, panels.items(), strict=False):
        _panel(axis, listed, lambda value: shades(scale(value)), 0.46 if per_row == 1 else 0.5)
        axis.set_title(short(panel, 40))
    names = list(grouped(max(panels.values(), key=lambda listed: len(grouped(listed, "row"))), "row"))
    axes[0].set_xlim(begin, end)
    axes[0].set_ylim(count - 0.5, -0.5)
    for axis in axes:
        bare(axis)
    if per_row > 1:
        step = next(s for s in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10**9) if s * 7 >= count * per_row)
        places = [1, *range(step, count * per_row + 1, step)]
        axes[0].set_yticks([(p - 0.5) / per_row - 0.5 for p in places], [f"{p:,}" for p in places])
        for axis in axes[::across]:
            axis.set_ylabel("nodes, fullest first")
    else:
        every = max(1, count // (40 if len(panels) == 1 else 12))
        axes[0].set_yticks(range(0, count, every), names[::every], fontsize=7 if count <= 20 else 5.5)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    bar = drawn.colorbar(ScalarMappable(scale, shades), ax=axes, fraction=0.03, pad=0.02, aspect=18 * lines)
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=7.5)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    flags([axes[0]], [r for r in rows if r["how"] == "flag"], width)
    for n in range(len(panels)):
        if n + across >= len(panels):  # nothing below it
            seconds_axis(axes[n])
            axes[n].set_xlabel(x_label or axes[n].get_xlabel())
            axes[n].tick_params(labelbottom=True)
    return drawn


def _panel(axis: Any, boxes: Sequence[Row], shade: Any, half: float) -> None:
    from matplotlib.collections import PolyCollection

    names = {name: n for n, name in enumerate(grouped(boxes, "row"))}
    polygons = []
    for r in boxes:
        y, a, b = names[r["row"]], float(r["time"]), float(r["end"])
        polygons.append([(a, y - half), (b, y - half), (b, y + half), (a, y + half)])
    colours = [shade(float(r["value"])) for r in boxes]
    axis.add_collection(PolyCollection(polygons, facecolors=colours, edgecolors=colours, linewidths=0.2), autolim=False)
