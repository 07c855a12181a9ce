"""The numbers of a report: a row for each measure and cell. Pure, and drawn from a fixed seed where chance is used."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lab.experiments.expect import interval, number
from lab.experiments.expressions import Expression
from lab.experiments.sweep import Result


def cell_name(levels: Mapping[str, str]) -> str:
    return ", ".join(f"{k}={v}" for k, v in levels.items()) or "all runs"


def cells_of(listed: Sequence[Result]) -> dict[str, list[Result]]:
    """Results by cell, in order."""
    out: dict[str, list[Result]] = {}
    for r in listed:
        out.setdefault(cell_name(r.levels), []).append(r)
    return out


def short_names(by_cell: Mapping[str, Sequence[Result]]) -> dict[str, str]:
    """The level alone, where there is but one factor: its name adds nothing."""
    return {
        name: next(iter(runs[0].levels.values())) if runs and len(runs[0].levels) == 1 else name
        for name, runs in by_cell.items()
    }


def summary(listed: Sequence[Result]) -> list[dict[str, Any]]:
    """A row for each measure and cell: n, mean with its 95 % bootstrap interval, median, least and most; the difference to the
    first cell paired by seed, with its interval; and Cliff's delta, the effect size."""
    cells = cells_of([r for r in listed if not r.error])
    rows: list[dict[str, Any]] = []
    first = next(iter(cells.values()), [])
    for measure in first[0].measures if first else ():
        base = {r.seed: r.measures.get(measure, math.nan) for r in first}
        for name, runs in cells.items():
            values = [v for r in runs if not math.isnan(v := r.measures.get(measure, math.nan))]
            row: dict[str, Any] = {"measure": measure, "cell": name, "n": len(values)}
            if values:
                mean, low, high = interval(values)
                row |= {"mean": mean, "low": low, "high": high, "median": statistics.median(values)}
                row |= {"min": min(values), "max": max(values)}
            differences = [r.measures[measure] - base[r.seed] for r in runs if r.seed in base and measure in r.measures]
            differences = [d for d in differences if not math.isnan(d)]
            if runs is not first and differences:
                mean, low, high = interval(differences)
                row |= {"difference": mean, "difference_low": low, "difference_high": high}
                row["effect"] = cliffs_delta(values, [v for v in base.values() if not math.isnan(v)])
            rows.append(row)
    return rows


def cliffs_delta(a: Sequence[float], b: Sequence[float]) -> float:
    """Of all pairs of a run of ``a`` and one of ``b``, the share in which a is more, less the share in which it is less:
    1 if every run of a is above every run of b, 0 if neither tends to be."""
    return sum((x > y) - (x < y) for x in a for y in b) / (len(a) * len(b)) if a and b else math.nan


def effect_word(delta: float) -> str:
    """The usual words for the size of Cliff's delta (Romano et al. 2006)."""
    size = abs(delta)
    return "none" if size < 0.147 else "small" if size < 0.33 else "medium" if size < 0.474 else "large"


def late(tree: Mapping[str, Any], listed: Sequence[Result]) -> set[tuple[str, str]]:
    """(cell, measure) of which some run tells "at least" only: the measure uses a mark of a step that timed out, or of a later
    one."""
    out = set()
    for name, runs in cells_of(listed).items():
        for r in runs:
            steps = [int(text[6 : text.index("]")]) for text in r.timeouts if text.startswith("steps[")]
            if not steps:
                continue
            marks = {s.get("mark") for s in (tree.get("steps") or ())[min(steps) :]} | {"finish"}
            for measure, text in (tree.get("measure") or {}).items():
                if Expression(str(text)).names & marks:
                    marks.add(measure)
                    out.add((name, measure))
    return out


def signed(value: float) -> str:
    """A difference with its sign, to four digits."""
    return f"+{number(value)}" if value > 0 else number(value).replace("-", "−")


def front(points: Mapping[str, tuple[float, float]], more: tuple[bool, bool] = (False, False)) -> list[str]:
    """The names on the Pareto front: no other is better in one and as good in the other. Less is better, unless ``more``."""
    signs = [-1 if m else 1 for m in more]
    costs = {n: (signs[0] * x, signs[1] * y) for n, (x, y) in points.items() if not math.isnan(x) and not math.isnan(y)}
    return [
        name for name, (x, y) in costs.items()
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in costs.values())
    ]  # fmt: skip
