"""Figures over all runs: levels, differences, waits, queues, utilisation, Pareto front, factors by each other. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lab.experiments.file import Plot
from lab.experiments.sweep import Result
from lab.reports.facts import Facts, shared
from lab.reports.figure import Figure
from lab.reports.statistics import cells_of, front, short_names

MAX_CELLS = 12  # lines in a plot; a sweep of hundreds has its table and its shades
MAX_ECDF = 400


def declared(plots: Sequence[Plot], good: Sequence[Result]) -> list[Figure]:
    """The plots that the file itself names: a line for each cell, a band over the seeds."""
    by_cell = cells_of(good)
    names = short_names(by_cell)
    out = []
    for plot in plots:
        rows: list[dict[str, Any]] = []
        for cell, runs in by_cell.items():
            curves = [r.curves[plot.name] for r in runs if plot.name in r.curves]
            rows += [{"cell": names[cell], **point} for point in shared(curves)]
        if rows:
            x_label = plot.x_label or plot.x or "seconds since the start"
            options: dict[str, Any] = {"x_label": x_label, "y_label": plot.y_label or plot.y}
            options |= {k: list(v) for k, v in (("x_range", plot.x_range), ("y_range", plot.y_range)) if v}
            out.append(Figure(plot.name, (plot.title or plot.name) + _band(good), "lines", rows, options))
    return out


def _band(good: Sequence[Result]) -> str:
    seeds = len({r.seed for r in good})
    return f": mean of {seeds} seeds; the band is from the least to the most" if seeds > 1 else ""


def levels(good: Sequence[Result]) -> list[Figure]:
    """Of each measure that differs between seeds (of the others the table tells all): every run as a point."""
    by_cell = cells_of(good)
    names = short_names(by_cell)
    out = []
    for measure in good[0].measures if len(good) > 1 else ():
        rows: list[dict[str, Any]] = [
            {"cell": names[cell], "seed": r.seed, "value": r.measures[measure]}
            for cell, runs in by_cell.items() for r in runs if not math.isnan(r.measures.get(measure, math.nan))
        ]  # fmt: skip
        spread = len({(row["cell"], row["value"]) for row in rows}) > len({row["cell"] for row in rows})
        if spread and len(by_cell) <= 3 * MAX_CELLS:
            out.append(Figure(f"level-{measure}", f"{measure}: every run, by cell", "levels", rows, {"label": measure}, False))
    return out


def differences(summary: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Paired differences to the first cell, of each measure that has some."""
    cells = list(dict.fromkeys(str(row["cell"]) for row in summary))
    single = all(c.count("=") == 1 for c in cells)
    names = {c: c.partition("=")[2] if single else c for c in cells}
    rows = [
        {"measure": row["measure"], "cell": names[row["cell"]], "mean": row["difference"], "low": row["difference_low"],
         "high": row["difference_high"], "n": row["n"]} for row in summary if "difference" in row
    ]  # fmt: skip
    differing = {r["measure"] for r in rows if r["low"] or r["high"]}
    rows = [r for r in rows if r["measure"] in differing]
    if not rows or len(cells) > 3 * MAX_CELLS:
        return []
    base = names[cells[0]]
    return [Figure("differences", f"paired differences to {base} (same seeds), mean and 95 % interval; hollow: may be none",
                   "forest", rows, {"base": base})]  # fmt: skip


def waits(by_run: Mapping[str, Facts], good: Sequence[Result], short: float) -> list[Figure]:
    """How long pods waited for a node; nothing if none waited longer than ``short`` seconds."""
    by_cell = cells_of(good)
    names = short_names(by_cell)
    rows: list[dict[str, Any]] = []
    longest = 0.0
    for cell, runs in list(by_cell.items())[:MAX_CELLS]:
        values = sorted(w for r in runs if r.name in by_run for w in by_run[r.name].waits)
        longest = max([longest, *values])
        step = max(1, len(values) // MAX_ECDF)
        places = [n for n in range(len(values)) if n % step == 0 or n == len(values) - 1]
        rows += [{"cell": names[cell], "seconds": values[n], "share": (n + 1) / len(values)} for n in places]
    if longest <= short:
        return []
    caption = "how long pods waited for a node (all seeds): the share of pods that had one after so long"
    return [Figure("waits", caption, "ecdf", rows, {"label": "seconds from created to bound"})]


def over_time(by_run: Mapping[str, Facts], good: Sequence[Result]) -> list[Figure]:
    """Pods that wait, and the share requested of the whole cluster: a line for each cell, a band over the seeds."""
    by_cell = cells_of(good)
    names = short_names(by_cell)
    resource = next((f.resource for f in by_run.values() if f.resource), "")
    out = []
    for name, field, label, caption in (
        ("queue", "queue", "pods that wait for a node", "queue length over time"),
        ("used", "used", f"{resource} requested, share of all", f"utilisation ({resource}) over time"),
    ):
        rows: list[dict[str, Any]] = []
        for cell, runs in list(by_cell.items())[:MAX_CELLS]:
            curves = [getattr(by_run[r.name], field) for r in runs if r.name in by_run]
            rows += [{"cell": names[cell], **point} for point in shared(curves)]
        if max((row["most"] for row in rows), default=0.0) > (0.5 if field == "queue" else 0.0):
            options = {"x_label": "seconds since the start", "y_label": label, "steps": True}
            out.append(Figure(name, caption + _band(good), "lines", rows, options))
    return out


def factors(good: Sequence[Result], factor_names: Sequence[str]) -> list[Figure]:
    """Means over the first two factors (of a sweep over more: over all levels of the rest)."""
    if len(factor_names) < 2:
        return []
    down, across = factor_names[0], factor_names[1]
    rows: list[dict[str, Any]] = []
    for measure in good[0].measures if good else ():
        values: dict[tuple[str, str], list[float]] = {}
        for r in good:
            value = r.measures.get(measure, math.nan)
            if not math.isnan(value):
                values.setdefault((r.levels[down], r.levels[across]), []).append(value)
        if len({v for listed in values.values() for v in listed}) > 1:
            rows += [{"measure": measure, "row": a, "column": b, "value": statistics.fmean(v)} for (a, b), v in values.items()]
    more = f", over all levels of {', '.join(factor_names[2:])}" if len(factor_names) > 2 else ""
    caption = f"means by {down} and {across}{more}; dark is more"
    return [Figure("factors", caption, "grid", rows, {"row_label": down, "column_label": across})] if rows else []


def pareto(good: Sequence[Result], goals: Mapping[str, str]) -> list[Figure]:
    """Two measures of every cell (means), as ``goals`` names them: measure to least or most."""
    if len(goals) != 2 or not good:
        return []
    (a, b), wishes = list(goals), list(goals.values())
    points = {}
    for cell, runs in cells_of(good).items():
        pairs = [(r.measures.get(a, math.nan), r.measures.get(b, math.nan)) for r in runs]
        points[cell] = (statistics.fmean(x for x, _ in pairs), statistics.fmean(y for _, y in pairs))
    best = front(points, (wishes[0] == "most", wishes[1] == "most"))
    names = short_names(cells_of(good))
    rows: list[dict[str, Any]] = [{"cell": names[n], "x": x, "y": y, "best": int(n in best)} for n, (x, y) in points.items()
            if not math.isnan(x) and not math.isnan(y)]  # fmt: skip
    words = [f"{m} ({'more' if w == 'most' else 'less'} is better)" for m, w in goals.items()]
    caption = f"{words[0]} against {words[1]}; named: the cells that none beats in both"
    return [Figure("pareto", caption, "pareto", rows, {"x_label": words[0], "y_label": words[1]})] if rows else []
