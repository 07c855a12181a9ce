"""An answer in one sentence for each expectation of an experiment. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lab.experiments.expect import Row, Verdict, interval, number, paired
from lab.experiments.expressions import Expression
from lab.experiments.file import Expectation


def sentence(expectation: str | Expectation, verdict: Verdict, rows: Sequence[Row]) -> str:
    """Says what came of an expectation, with the numbers that it speaks of."""
    one = Expectation(expr=expectation) if isinstance(expectation, str) else expectation
    picked = [r for r in rows if all(str(r[0].get(k)) == str(v) for k, v in one.where.items())]
    where = " and ".join(f"{k} is {v}" for k, v in one.where.items())
    if verdict.good is None or not picked:
        return f"Not judged: {verdict.why}."
    if one.compare:
        return _compared(one, verdict, picked, where)
    if one.reference:
        close = "is" if verdict.good else "is not always"
        return f"{one.reference} {close} within {number(one.deviations)} standard deviations of the reference: {verdict.why}."
    runs = len(picked)
    names = sorted(Expression(one.expr).names)
    words = ", ".join(f"{name} {_range([m[name] for _, _, m in picked if name in m])}" for name in names)
    how = "in the mean of each cell" if one.of == "mean" else "in the only run" if runs == 1 else f"in all {runs} runs"
    if verdict.good:
        return f"Holds {how}{' where ' + where if where else ''}: {words}."
    return f"Does not hold{' where ' + where if where else ''}, {verdict.why}; over all {runs} runs: {words}."


def _compared(one: Expectation, verdict: Verdict, rows: Sequence[Row], where: str) -> str:
    differences = paired(rows, one.compare, one.factor, str(one.less), str(one.than))
    if not differences:
        return "No two runs differ in this alone, so nothing can be said."
    if one.times != 1:
        share = f"{'' if verdict.good else 'not '}at most {number(one.times)} times as much"
        return f"{one.compare} is {share} with {one.factor}={one.less} as with {one.than}: {verdict.why}."
    mean, low, high = interval(differences)
    word = "less" if mean < 0 else "more" if mean > 0 else "neither less nor more"
    amount = f"{number(abs(mean))} " if mean else ""
    words = f"{one.compare} is {amount}{word} on average with {one.factor}={one.less} than with {one.than}"
    words += f", where {where}" if where else ""
    if len(differences) == 1:
        return f"{words}; of one pair of runs, so it may be chance."
    between = f"95 % interval of the difference {minus(low)} to {minus(high)}, {len(differences)} pairs of runs"
    sure = low > 0 or high < 0
    return f"{words} ({between})." if sure else f"{words}, but it may be chance ({between})."


def minus(value: float) -> str:
    """A number with a minus sign that is no hyphen."""
    return number(value).replace("-", "−") if value < 0 else number(value)


def _range(values: Sequence[float]) -> str:
    valid = [v for v in values if not math.isnan(v)]
    if not valid:
        return "has no value"
    low, high = number(min(valid)), number(max(valid))
    return f"is {low}" if low == high else f"is {low} to {high}"
