"""The tables of a report as Markdown and LaTeX, for a README and a paper. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lab.experiments.expect import number, within
from lab.reports.statistics import effect_word, signed


def overview(rows: Sequence[Mapping[str, Any]], atleast: set[tuple[str, str]]) -> tuple[list[str], list[list[str]]]:
    """Mean and half of its interval, by cell and measure: the head, and the rows."""
    measures = list(dict.fromkeys(r["measure"] for r in rows))
    single = all(r["cell"].count("=") == 1 for r in rows)  # there is but one factor: its name adds nothing
    body: dict[str, list[str]] = {}
    for r in rows:
        text = "-"
        if "mean" in r:
            sign = "≥ " if (r["cell"], r["measure"]) in atleast else ""
            text = sign + within((r["mean"], r["low"], r["high"]))
        body.setdefault(r["cell"], [r["cell"].partition("=")[2] if single else r["cell"]]).append(text)
    if len(measures) > len(body):  # the longer side goes down the page
        turned = list(zip(*body.values(), strict=True))
        return ["", *turned[0]], [[m, *row] for m, row in zip(measures, turned[1:], strict=True)]
    return ["", *measures], list(body.values())


DETAILS = (
    "cell", "n", "mean", "95 % interval", "median", "least", "most", "difference to the first", "95 % interval", "effect",
)  # fmt: skip


def details(rows: Sequence[Mapping[str, Any]], atleast: set[tuple[str, str]]) -> dict[str, list[list[str]]]:
    """By measure, a row for each cell under the heads of DETAILS."""
    out: dict[str, list[list[str]]] = {}
    for r in rows:
        between = f"{number(r['low'])} to {number(r['high'])}" if "mean" in r else "-"
        more = ["", "", ""]
        if "difference" in r:
            delta = r["effect"]
            size = "" if math.isnan(delta) else f"{signed(round(delta, 2))} ({effect_word(delta)})"
            more = [signed(r["difference"]), f"{number(r['difference_low'])} to {number(r['difference_high'])}", size]
        sign = "≥ " if (r["cell"], r["measure"]) in atleast else ""
        out.setdefault(r["measure"], []).append([
            r["cell"], str(r["n"]), sign + number(r.get("mean", math.nan)), between, number(r.get("median", math.nan)),
            number(r.get("min", math.nan)), number(r.get("max", math.nan)), *more,
        ])  # fmt: skip
    return out


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)]) + "\n"


def latex(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    def cell(text: str) -> str:
        for old, new in (("_", r"\_"), ("%", r"\%"), ("&", r"\&"), ("±", r"$\pm$"), ("≥", r"$\geq$")):
            text = text.replace(old, new)
        return text

    lines = [" & ".join(map(cell, row)) + r" \\" for row in (head, *body)]
    return "\n".join([
        r"\begin{tabular}{l" + "r" * (len(head) - 1) + "}", r"\hline", lines[0], r"\hline", *lines[1:], r"\hline",
        r"\end{tabular}",
    ]) + "\n"  # fmt: skip
