"""How large a share of the pods had waited at most so long. Columns: cell, seconds, share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .canvas import PAGE, Row, figure, grouped, numbers
from .lines import keyed


def draw(rows: Sequence[Row], label: str = "seconds", width: float = PAGE, height: float = 2.4) -> Any:
    drawn, (axis,) = figure(width, height)
    cells = grouped(rows, "cell")
    handles = keyed(cells)
    for name, listed in cells.items():
        axis.step(numbers(listed, "seconds"), numbers(listed, "share"), where="post", **handles[name])
    axis.set_ylim(0, 1.02)
    positive = [v for v in numbers(rows, "seconds") if v > 0]
    if positive and max(positive) > 50 * sorted(positive)[len(positive) // 2]:
        axis.set_xscale("symlog", linthresh=max(min(positive), 1e-3))
    axis.set_xlim(0, None)
    axis.set_xlabel(label)
    axis.set_ylabel("share of pods")
    axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    if len(cells) > 1:
        drawn.legend(loc="outside right center")
    return drawn
