"""One plot of a report: rows, and how they are drawn. Its files are CSV, SVG, and a script that makes one of the other."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Value = str | float | int


class Figure(NamedTuple):
    """``kind``: a module of lab/reports/drawing. ``wide``: needs the whole width of a page."""

    name: str
    caption: str
    kind: str
    rows: Sequence[Mapping[str, Value]]
    options: Mapping[str, Any] = {}
    wide: bool = True

    def table(self) -> list[dict[str, str]]:
        """The rows as the CSV file has them: six digits, so that drawing from the file gives the same plot."""
        columns = list(dict.fromkeys(k for row in self.rows for k in row))
        return [{c: text(row.get(c, "")) for c in columns} for row in self.rows]

    def csv(self) -> str:
        rows = self.table()
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]) if rows else ["nothing"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()

    def script(self) -> str:
        """Draws the plot from its CSV; lies beside the folder ``drawing``."""
        options = "".join(f",\n    {key}={value!r}" for key, value in self.options.items())
        return (
            f'"""{self.caption}\n\nDraws {self.name}.svg, .png and .pdf from {self.name}.csv; needs matplotlib only."""\n\n'
            "from pathlib import Path\n\nfrom drawing.canvas import write\n\n"
            f"write(\n    {self.kind!r}, Path(__file__).with_suffix('.csv'){options},\n)\n"
        )


def text(value: Value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
