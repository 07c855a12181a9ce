"""Tables for people: columns three spaces apart, as kubectl's, with colour where somebody looks at them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

GREEN, YELLOW, RED, DIM = "32", "33", "31", "2"
STATES = {
    "running": GREEN, "Running": GREEN, "Ready": GREEN, "up": GREEN, "on": GREEN,
    "starting": YELLOW, "Pending": YELLOW, "partitioned": YELLOW, "unhealthy": RED,
    "silent": RED, "ended": RED, "Failed": RED, "NotReady": RED, "off": DIM, "down": DIM,
}  # fmt: skip


def coloured() -> bool:
    """Whether standard output is a terminal whose owner did not ask for none (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints left-aligned columns."""
    text = [list(header), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(header))]
    colour = coloured()
    for number, row in enumerate(text):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[-1] = cells[-1].rstrip()
        line = "   ".join(cells).rstrip()
        if colour and number == 0:
            line = paint(line, "1")
        elif colour:
            line = "   ".join(_painted(cell) for cell in cells)
        print(line)


def _painted(cell: str) -> str:
    colour = STATES.get(cell.strip())
    return paint(cell, colour) if colour else cell
