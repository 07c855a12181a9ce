"""Whether what was expected of an experiment came true, and the statistics that a report tells. Pure."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lab.experiments.expressions import Expression
from lab.experiments.file import Expectation, Reference
from lab.experiments.schema import part_of
from navarch.world import chance

Row = tuple[Mapping[str, str], int, Mapping[str, float]]
"""Levels, seed, measures of one run."""


class Verdict(NamedTuple):
    """``good`` is None if it was not judged: the runs that it speaks of were left out."""

    text: str
    good: bool | None
    why: str

    @property
    def word(self) -> str:
        return "not judged" if self.good is None else "true" if self.good else "NOT TRUE"


class Published(NamedTuple):
    """A result of others: of the cells with these levels."""

    levels: Mapping[str, str]
    measure: str
    mean: float
    deviation: float


def published(reference: Reference | None, factors: Sequence[str]) -> list[Published]:
    """The rows of a reference. Raises OSError, ValueError."""
    if reference is None:
        return []
    out = []
    with open(reference.file, newline="") as file:
        for n, row in enumerate(csv.DictReader(file), 2):
            try:
                levels = {f: row[f] for f in factors if row.get(f)}
                out.append(Published(levels, row["measure"], float(row["mean"]), float(row.get("deviation") or 0)))
            except (KeyError, ValueError) as error:
                raise ValueError(f"{reference.file}, line {n}: needs measure, mean, deviation: {error}") from error
    return out


def judge(
    expectation: str | Expectation, rows: Sequence[Row], references: Sequence[Published] = (),
    left_out: Sequence[Mapping[str, str]] = (),
) -> Verdict:  # fmt: skip
    """Of no runs nothing is true. ``left_out``: the cells that nobody asked to run; what depends on them is not judged."""
    one = Expectation(expr=expectation) if isinstance(expectation, str) else expectation

    def speaks_of(levels: Mapping[str, str]) -> bool:
        return all(str(levels.get(k)) == str(v) for k, v in one.where.items())

    picked = [r for r in rows if speaks_of(r[0])]
    absent = [levels for levels in left_out if speaks_of(levels)]
    where = "".join(f" where {k} is {v}" for k, v in one.where.items())
    if one.reference:
        return _near(one, picked, references, where, absent)
    if one.compare:
        return _compare(one, picked, where, absent)
    text = f"{one.expr}{where}{' in the mean' if one.of == 'mean' else ''}"
    if not picked:
        return Verdict(text, None, _not_run(absent)) if absent else Verdict(text, False, "there are no such runs")
    expression = Expression(one.expr)
    if one.of == "mean":
        groups: dict[str, list[Mapping[str, float]]] = {}
        for levels, _, measures in picked:
            groups.setdefault(", ".join(f"{k}={v}" for k, v in levels.items()) or "all runs", []).append(measures)
        cases = [(name, {k: statistics.fmean(m[k] for m in runs) for k in runs[0]}) for name, runs in groups.items()]
    else:
        cases = [(", ".join([*(f"{k}={v}" for k, v in lv.items()), f"seed {s}"]), dict(m)) for lv, s, m in picked]
    wrong = [(name, values) for name, values in cases if not expression.evaluate({}, values)]
    if not wrong:
        return Verdict(text, True, f"in all {len(cases)}")
    name, values = wrong[0]
    shown = ", ".join(f"{n} = {number(values[n])}" for n in sorted(expression.names))
    return Verdict(text, False, f"not in {len(wrong)} of {len(cases)}; first {name}: {shown}")


def _not_run(absent: Sequence[Mapping[str, str]]) -> str:
    name = ", ".join(f"{k}={v}" for k, v in absent[0].items()) or "it"
    more = f" (and {len(absent) - 1} more cells)" if len(absent) > 1 else ""
    return f"{name}{more} was not run"


def _compare(one: Expectation, rows: Sequence[Row], where: str, absent: Sequence[Mapping[str, str]]) -> Verdict:
    is_, sure = "is less than" if one.times == 1 else f"is at most {number(one.times)} times", ""
    if one.confidence:
        sure = f" with {one.confidence} confidence"
    text = f"{one.compare}: {one.factor}={one.less} {is_} {one.than}{where}{sure}"
    differences = paired(rows, one.compare, one.factor, str(one.less), str(one.than), one.times)
    if not differences:
        sides = [f"{one.factor}={side}" for side in (one.less, one.than)
                 if any(str(levels.get(one.factor)) == str(side) for levels in absent)]  # fmt: skip
        if sides:
            return Verdict(text, None, f"{' and '.join(sides)} {'was' if len(sides) == 1 else 'were'} not run")
        return Verdict(text, False, "there are no pairs of runs that differ in this alone")
    if one.confidence and len(differences) < 2:
        return Verdict(text, False, "one pair of runs tells nothing of the spread: more seeds are needed")
    mean, low, high = interval(differences, part_of(one.confidence) if one.confidence else 0.95)
    judged = high if one.confidence else mean
    good = judged < 0 or (judged == 0 and one.times != 1)
    return Verdict(text, good, f"mean difference {number(mean)} [{number(low)}, {number(high)}], n = {len(differences)}")


def _near(
    one: Expectation, rows: Sequence[Row], references: Sequence[Published], where: str, absent: Sequence[Mapping[str, str]]
) -> Verdict:
    text = f"{one.reference} is within {number(one.deviations)} deviations of the reference{where}"
    wrong, right = [], 0
    for ref in references:
        values = [m[one.reference] for lv, _, m in rows if all(lv.get(k) == v for k, v in ref.levels.items())]
        if ref.measure != one.reference or not values:
            continue
        mean, name = statistics.fmean(values), ", ".join(f"{k}={v}" for k, v in ref.levels.items()) or "all runs"
        if abs(mean - ref.mean) <= one.deviations * ref.deviation:
            right += 1
        else:
            wrong.append(f"{name}: {number(mean)}, reference {number(ref.mean)} ± {number(ref.deviation)}")
    if not wrong and not right and absent:
        return Verdict(text, None, _not_run(absent))
    if not wrong and not right:
        return Verdict(text, False, "the reference has no such measure of these cells")
    if not wrong:
        return Verdict(text, True, f"in all {right}")
    return Verdict(text, False, f"not in {len(wrong)} of {len(wrong) + right}; {'; '.join(wrong)}")


def paired(rows: Sequence[Row], measure: str, factor: str, a: str, b: str, times: float = 1.0) -> list[float]:
    """``a`` less so many times ``b``, for each two runs that differ in this factor only (common random numbers)."""
    by: dict[tuple[object, ...], dict[str, float]] = {}
    for levels, seed, measures in rows:
        rest = tuple((k, v) for k, v in levels.items() if k != factor)
        by.setdefault((rest, seed), {})[str(levels.get(factor))] = measures.get(measure, math.nan)
    differences = [pair[a] - times * pair[b] for pair in by.values() if a in pair and b in pair]
    return [d for d in differences if not math.isnan(d)]


def interval(values: Sequence[float], confidence: float = 0.95, draws: int = 1000) -> tuple[float, float, float]:
    """Mean, and a bootstrap interval of it (percentiles; drawn from a fixed seed, so that it repeats)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, mean, mean
    own = chance("bootstrap")
    means = sorted(statistics.fmean(own.choices(values, k=len(values))) for _ in range(draws))
    low = int(draws * (1 - confidence) / 2)
    return mean, means[low], means[draws - 1 - low]


def within(measured: tuple[float, float, float]) -> str:
    """A mean with half of its interval, told to two digits of the latter."""
    mean, low, high = measured
    half = (high - low) / 2
    if not 0 < half < math.inf:
        return number(mean)
    digits = max(0, 1 - math.floor(math.log10(half)))
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"
