"""One row for each node, time from left to right, how full it is as a shade. Columns: row, time and end (s), value (0 to 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .canvas import HEAT, PAGE, Row, bare, figure, flags, grouped, seconds_axis


def draw(rows: Sequence[Row], width: float = PAGE, begin: float = 0.0, end: float = 1.0, label: str = "") -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    boxes = [r for r in rows if r["how"] == "box"]
    names = list(grouped(boxes, "row"))
    unit = 0.2 if len(names) <= 16 else 0.12 if len(names) <= 40 else 0.075
    drawn, (axis,) = figure(width, 0.95 + unit * len(names))
    shades = LinearSegmentedColormap.from_list("full", HEAT)
    most = max(float(r["value"]) for r in boxes)
    scale = Normalize(0.0, next((edge for edge in (0.25, 0.5, 1.0) if most <= edge), most))
    polygons = []
    for r in boxes:
        y, a, b = names.index(r["row"]), float(r["time"]), float(r["end"])
        polygons.append([(a, y - 0.46), (b, y - 0.46), (b, y + 0.46), (a, y + 0.46)])
    colours = [shades(scale(float(r["value"]))) for r in boxes]
    axis.add_collection(PolyCollection(polygons, facecolors=colours, edgecolors=colours, linewidths=0.2), autolim=False)
    axis.set_xlim(begin, end)
    axis.set_ylim(len(names) - 0.5, -0.5)
    every = max(1, len(names) // 40)
    axis.set_yticks(range(0, len(names), every), names[::every], fontsize=7 if len(names) <= 20 else 5.5)
    bare(axis)
    bar = drawn.colorbar(ScalarMappable(scale, shades), ax=axis, fraction=0.03, pad=0.02, aspect=18)
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=7.5)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    flags([axis], [r for r in rows if r["how"] == "flag"], width)
    seconds_axis(axis)
    return drawn
