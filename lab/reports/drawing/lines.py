"""A line for each cell with a band from the least to the most run. Columns: cell, x, mean, least, most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .bars import short
from .canvas import COLOURS, DASHES, PAGE, Row, end_labels, figure, grouped, numbers


def keyed(cells: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and dashes of each cell: told apart without colours, too."""
    return {
        name: {"color": COLOURS[n % len(COLOURS)], "linestyle": DASHES[n % len(DASHES)], "label": short(name, 34)}
        for n, name in enumerate(cells)
    }


def draw(
    rows: Sequence[Row], x_label: str = "", y_label: str = "", x_range: Sequence[float] = (), y_range: Sequence[float] = (),
    steps: bool = False, width: float = PAGE, height: float = 2.6,
) -> Any:  # fmt: skip
    """``steps``: values stay until they change."""
    drawn, (axis,) = figure(width, height)
    cells = grouped(rows, "cell")
    looks = keyed(cells)
    where = "post" if steps else None
    ends = []
    for name, listed in cells.items():
        xs, means = numbers(listed, "x"), numbers(listed, "mean")
        axis.fill_between(xs, numbers(listed, "least"), numbers(listed, "most"), color=looks[name]["color"], alpha=0.14,
                          linewidth=0, step=where)  # fmt: skip
        axis.plot(xs, means, drawstyle="steps-post" if steps else "default", **looks[name])
        ends.append((means[-1], looks[name]["label"], looks[name]["color"]))
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.margins(x=0)
    axis.locator_params(axis="y", nbins=6)  # of four nodes no halves
    if x_range:
        axis.set_xlim(*x_range)
    if y_range:
        axis.set_ylim(*y_range)
    elif min(numbers(rows, "least"), default=0.0) >= 0:
        axis.set_ylim(0, None)
    if len(cells) > 6 or (x_range and len(cells) > 1):
        drawn.legend(loc="outside right center")
    elif len(cells) > 1:
        end_labels(axis, ends, height * 0.75)
    return drawn
