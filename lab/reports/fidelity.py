"""Simulated against real, as a part of a report: the tables of lab/experiments/fidelity.py, and a plot. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from lab.experiments.expect import number
from lab.experiments.fidelity import Fidelity, Row, spread_text
from lab.reports.figure import Figure
from lab.reports.style import escape, table

WORDS = {True: "yes", False: "<b>no</b>", None: "one real run only"}


def section(fidelity: Fidelity, simulated: str, real: str) -> str:
    """HTML. ``simulated`` and ``real`` name the folders that were compared."""
    head = ["cell", "measure", "simulated", "real", "ratio", "where one more real run would be (95 %)", "within"]
    rows = [_row(row) for row in fidelity.rows]
    out = [
        f"<p>Medians over the runs of {escape(simulated)} and {escape(real)}, with the smallest and the largest. A simulated "
        "median is within if one more real run could have given it.</p>",
        table(head, rows, text=[1, 5, 6]),
    ]
    head = ["cell", "same order, simulated against real", "smallest between two real runs", "counts"]
    rows = []
    for order in fidelity.orders:
        said = "<br>".join(map(escape, order.differing)) or f"the same, of {len(order.counts)} kinds of happenings"
        rows.append([escape(order.cell), _share(order.agreement), _share(order.among_real), said])
    out += ["<p>The share of all pairs of happenings of which the same one came first.</p>", table(head, rows, text=[3])]
    if fidelity.correlations:
        rows = [[escape(measure), f"{value:.2f}"] for measure, value in fidelity.correlations.items()]
        out += ["<p>Do simulated and real cells rank alike?</p>", table(["measure", "Spearman's rank correlation"], rows)]
    return "\n".join(out)


def plot(fidelity: Fidelity) -> Figure:
    """A panel a measure, a point a cell: medians, with the range over the runs."""
    rows: list[dict[str, str | float]] = []
    for r in fidelity.rows:
        one: dict[str, str | float] = {"measure": r.measure, "cell": r.cell}
        for name, values in (("simulated", r.simulated), ("real", r.real)):
            one |= {name: statistics.median(values), f"{name}_low": min(values), f"{name}_high": max(values)}
        rows.append(one)
    return Figure("against", "medians and ranges over the runs; on the line both are equal", "against", rows)


def _row(row: Row) -> list[str]:
    between = "" if math.isnan(row.low) else f"{number(row.low)} to {number(row.high)}"
    ratio = "" if math.isnan(row.ratio) else f"{row.ratio:.2f}"
    cells: Sequence[str] = (row.cell, row.measure, spread_text(row.simulated), spread_text(row.real), ratio, between)
    return [*map(escape, cells), WORDS[row.is_within]]


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1%}"
