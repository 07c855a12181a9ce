"""Two folders of results against each other, paired by seed: in words, and as a page. Pure, but for the page's drawing."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from lab.experiments.expect import interval, number, paired
from lab.experiments.sweep import Result
from lab.reports.drawing.canvas import draw
from lab.reports.figure import Figure
from lab.reports.statistics import cells_of, cliffs_delta, effect_word, signed
from lab.reports.style import escape, facts, figure, page, table, warned


class Difference(NamedTuple):
    """One measure of one cell: the means of both, the second less the first with its interval, pairs of runs, effect size."""

    cell: str
    measure: str
    first: float
    second: float
    mean: float
    low: float
    high: float
    pairs: int
    effect: float

    @property
    def beyond(self) -> bool:
        """Whether it is more than the spread explains."""
        return self.low > 0 or self.high < 0

    @property
    def words(self) -> str:
        if not self.beyond:
            return f"{self.measure} does not differ beyond the spread [{number(self.low)}, {number(self.high)}]"
        word = "more" if self.mean > 0 else "less"
        return f"{self.measure} is {number(abs(self.mean))} {word} in the second [{number(self.low)}, {number(self.high)}]"


def differences(a: Sequence[Result], b: Sequence[Result]) -> list[Difference]:
    """Of every measure of every cell that both have."""
    left, right = cells_of([r for r in a if not r.error]), cells_of([r for r in b if not r.error])
    out = []
    for name in (n for n in left if n in right):
        for measure in left[name][0].measures:
            sides = (("a", left[name]), ("b", right[name]))
            rows = [({"side": s}, r.seed, r.measures) for s, runs in sides for r in runs]
            pairs = paired(rows, measure, "side", "b", "a")
            if pairs:
                values = [[v for r in runs if (v := r.measures.get(measure, float("nan"))) == v] for _, runs in sides]
                means = [statistics.fmean(v) for v in values]
                effect = cliffs_delta(values[1], values[0])
                out.append(Difference(name, measure, means[0], means[1], *interval(pairs), len(pairs), effect))
    return out


def only_in_one(a: Sequence[Result], b: Sequence[Result]) -> list[str]:
    left, right = cells_of([r for r in a if not r.error]), cells_of([r for r in b if not r.error])
    alone = [f"{n}: only in the first" for n in left if n not in right]
    return alone + [f"{n}: only in the second" for n in right if n not in left]


def compare(a: Sequence[Result], b: Sequence[Result]) -> list[str]:
    """In words: how cells of two folders differ, measure by measure, beyond the spread."""
    return [*(f"{d.cell}: {d.words}" for d in differences(a, b)), *only_in_one(a, b)]


def forest(listed: Sequence[Difference], first: str) -> Figure:
    rows: list[dict[str, Any]] = [
        {"measure": d.measure, "cell": d.cell, "mean": d.mean, "low": d.low, "high": d.high, "n": d.pairs} for d in listed
    ]
    caption = "the second less the first, paired by seed: mean and 95 % interval; hollow: may be none"
    return Figure("differences", caption, "forest", rows, {"base": first if len(first) <= 24 else "the first"})


def comparison(a: Sequence[Result], b: Sequence[Result], names: tuple[str, str]) -> str:
    """The page. ``names``: of the two folders."""
    listed = differences(a, b)
    beyond = [d for d in listed if d.beyond]
    counts = [
        (len(beyond), "differences beyond the spread"), (len(listed), "measures compared"), (len(a), "runs in the first"),
        (len(b), "runs in the second"),
    ]  # fmt: skip
    said = "".join(f"<li>{escape(d.cell)}: {escape(d.words)}</li>" for d in beyond)
    body = [
        "<h1>Comparison</h1>",
        f'<p class="question">What differs beyond the spread over the seeds, from {escape(names[0])} (the first) to '
        f"{escape(names[1])} (the second)?</p>", facts(counts),
        "<h2>In words</h2>", f"<ul>{said}</ul>" if said else "<p>Nothing differs beyond the spread.</p>",
        warned(only_in_one(a, b)),
    ]  # fmt: skip
    if any(d.low or d.high for d in listed):
        one = forest([d for d in listed if any(e.measure == d.measure and (e.low or e.high) for e in listed)], names[0])
        drawn = draw(one.kind, one.table(), one.options)["svg"].decode()
        body += ["<h2>Differences</h2>", figure(drawn, escape(one.caption))]
    head = ["cell", "measure", "first", "second", "difference", "95 % interval", "pairs", "effect"]
    rows = []
    for d in listed:
        effect = f"{signed(round(d.effect, 2))} ({effect_word(d.effect)})"
        between = f"{number(d.low)} to {number(d.high)}"
        cells = [d.cell, d.measure, number(d.first), number(d.second), signed(d.mean), between, str(d.pairs), effect]
        rows.append([f"<b>{escape(c)}</b>" if d.beyond and n == 4 else escape(c) for n, c in enumerate(cells)])
    body += ["<h2>Numbers</h2>", table(head, rows, text=[1])]
    return page(f"{names[0]} and {names[1]}", "\n".join(body))
