"""The answer of a rehearsal, in words and numbers. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from lab.experiments.expressions import Expression, ExpressionError
from lab.twin.findings import Findings, Low
from lab.twin.rehearsal import Rehearsed
from navarch.api.durations import human_duration

NAMES = ("duration", "evicted", "preempted", "pending", "blocked", "converged", "refused", "lost")
FUNCTIONS = ("available", "below")
MAX_LINES = 12


def spread(values: Sequence[float], unit: str = "") -> str:
    """Median, and range where there is one: ``12.6 s (11.0 to 14.2)``."""
    low, high, middle = min(values), max(values), statistics.median(values)
    text = f"{_number(middle)}{unit}"
    return text if _number(low) == _number(high) else f"{text} ({_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) or value >= 100 else f"{value:.1f}"


def lines(done: Sequence[Rehearsed], seconds: float) -> list[str]:
    """Says what happens, line by line, over all seeds that did not fail."""
    good = [r.findings for r in done if r.findings is not None]
    if not good:
        return []
    out = _duration(good, seconds)
    out += _workloads(good)
    out += _pods("evicted", [f.evicted for f in good])
    out += _pods("preempted", [f.preempted for f in good])
    out += _pods("deleted with their node", [f.tainted for f in good])
    if orphans := sorted({pod for f in good for pod in f.orphans}):
        out.append(f"gone for good, for nobody makes them anew: {_some(orphans)}")
    for node in dict.fromkeys(n for f in good for n in f.noticed):
        times = [f.noticed[node] for f in good if node in f.noticed]
        out.append(
            f"{node} is NotReady after {spread(times, ' s')}; until then its pods count as available, and are not"
        )
    blocked: dict[str, list[int]] = {}
    for f in good:
        for text, count in f.blocked.items():
            blocked.setdefault(text, []).append(count)
    for text, counts in blocked.items():
        out.append(f"blocks evictions, {spread(counts)} times refused: {text}")
    out += [f"quota: {text}" for text in dict.fromkeys(t for f in good for t in f.quotas)]
    out += [f"the server would refuse: {text}" for text in dict.fromkeys(t for f in good for t in f.refused)]
    pending: dict[str, list[list[str]]] = {}  # reason -> the pods of each run that has some: their names differ
    for f in good:
        for why in dict.fromkeys(f.pending.values()):
            pending.setdefault(why, []).append(sorted(pod for pod, reason in f.pending.items() if reason == why))
    for why, runs in pending.items():
        mean = sum(map(len, runs)) / len(good)
        out.append(f"Pending: {mean:.3g} pods ({_some(runs[0])}): {why}")
    return out


def _duration(good: Sequence[Findings], seconds: float) -> list[str]:
    ended = [f.seconds for f in good if f.seconds is not None]
    out = []
    if len(ended) == len(good):
        out.append(f"done after {spread(ended, ' s')}")
    else:
        never = len(good) - len(ended)
        of = f" in {never} of {len(good)} runs" if ended else ""
        out.append(
            f"NOT done within {human_duration(seconds)}{of}" + (f"; else after {spread(ended, ' s')}" if ended else "")
        )
        for name, why in {n: w for f in good for n, w in f.restless.items()}.items():
            out.append(f"  {name}: {why}")
    return out


HEAD = ("workload", "available", "fewest", "for how long", "in the end")


def workload_rows(good: Sequence[Findings]) -> list[tuple[str, ...]]:
    """A row under HEAD for each workload that is touched."""
    names = sorted({n for f in good for n in f.workloads})
    rows: list[tuple[str, ...]] = []
    for name in names:
        lows = [f.workloads.get(name, Low()) for f in good]
        fewest = spread([low.fewest for low in lows])
        below = spread([low.below for low in lows], " s")
        now, then = lows[0].before, spread([low.after for low in lows])
        rows.append((name, str(now), fewest, below, f"{then} of {lows[0].desired}"))
    return rows


def _workloads(good: Sequence[Findings]) -> list[str]:
    rows = workload_rows(good)
    if not rows:
        return ["no workload is touched"]
    widths = [max(len(row[n]) for row in (HEAD, *rows)) for n in range(len(HEAD))]
    listed = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in (HEAD, *rows)]
    more = len(listed) - 1 - MAX_LINES
    return ["", *listed[: MAX_LINES + 1], *([f"and {more} more workloads"] if more > 0 else []), ""]


def _pods(title: str, results: Sequence[dict[str, str]]) -> list[str]:
    if not any(results):
        return []
    counts = spread([len(pods) for pods in results])
    workloads: dict[str, None] = {}
    for pods in results:
        workloads |= dict.fromkeys(pods.values())
    named = [w if not w.startswith("Pod ") else f"{w} (which nobody makes anew)" for w in workloads]
    return [f"{title}: {counts} pods of {_some(named)}"]


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def values(results: Findings) -> dict[str, Any]:
    """The names that ``--assert`` may use."""
    return {
        "duration": math.inf if results.seconds is None else results.seconds,
        "evicted": len(results.evicted),
        "preempted": len(results.preempted),
        "pending": len(results.pending),
        "blocked": sum(results.blocked.values()),
        "converged": results.seconds is not None,
        "refused": len(results.refused),
        "lost": len(results.orphans),
    }


def functions(results: Findings) -> dict[str, Callable[[str], float]]:
    """``available(deployment/web)``: fewest at any time; ``below(...)``: seconds with fewer than before."""

    def low(reference: str) -> Low:
        namespace, _, rest = reference.rpartition(":")
        kind, _, name = rest.partition("/")
        full = f"{namespace or 'default'}/{name}"
        for touched, one in results.workloads.items():
            if touched.lower() == f"{kind} {full}".lower():
                return one
        raise ExpressionError(
            f"{reference} is not touched by this change; touched: {', '.join(results.workloads) or 'nothing'}"
        )

    return {"available": lambda r: low(r).fewest, "below": lambda r: low(r).below}


def checked(text: str) -> Expression:
    """An expression for ``--assert``. Raises ExpressionError."""
    expression = Expression(text)
    expression.check(FUNCTIONS, NAMES)
    return expression


def verdicts(expression: Expression, done: Sequence[Rehearsed]) -> list[tuple[int, dict[str, Any]]]:
    """The seeds for which the expression is not true, with the values of its names and calls. A seed that failed is one."""
    out: list[tuple[int, dict[str, Any]]] = []
    for one in done:
        if one.findings is None:
            out.append((one.seed, {"failed": one.error}))
        elif not expression.evaluate(calls := functions(one.findings), names := values(one.findings)):
            out.append((one.seed, expression.parts(calls, names)))
    return out
