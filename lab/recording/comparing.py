"""Two recordings in words: how their pods fared, and where they part. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lab.experiments.measures import Life, Measures, quantile
from lab.experiments.recording import Recording
from lab.experiments.series import Series, Span
from lab.experiments.telling import parting

BEGIN = "begin"
MAX_MOVES = 5


def compare(a: Recording, b: Recording, names: tuple[str, str] = ("first", "second")) -> list[str]:
    """Lines that say what differs; measured over the time that both cover. Times in seconds."""
    begin = max(r.mark(BEGIN) or 0.0 for r in (a, b))
    span = Span(begin, min(a.end, b.end))
    both = [Measures(r) for r in (a, b)]
    pods = [[p for p in m.lives() if p.created > begin] for m in both]
    rows: list[tuple[str, list[float]]] = [
        ("pods that arrived", [len(p) for p in pods]),
        ("of them never bound", [sum(x.bound is None for x in p) for p in pods]),
        ("seconds until bound, median", [quantile(_waits(p), 0.5) for p in pods]),
        ("seconds until bound, p95", [quantile(_waits(p), 0.95) for p in pods]),
        ("seconds from bound to ready, median", [quantile(_starts(p), 0.5) for p in pods]),
        ("evicted or preempted", [sum(x.evicted for x in p) for p in pods]),
        ("restarts", [sum(x.restarts for x in p) for p in pods]),
        ("pending pods, mean", [m.pending().mean(span) for m in both]),
        ("ready pods, mean", [m.ready().mean(span) for m in both]),
        ("fewest ready pods", [m.ready().minimum(span) for m in both]),
        ("nodes with pods, mean", [m.nodes_used().mean(span) for m in both]),
        ("share of CPU requested, mean", [_share(m, "cpu").mean(span) for m in both]),
    ]
    width = max(len(name) for name, _ in rows)
    out = [f"{'':{width}}  {names[0]:>12}  {names[1]:>12}"]
    for name, (one, other) in rows:
        out.append(f"{name:{width}}  {_shown(one):>12}  {_shown(other):>12}{_verdict(one, other)}")
    places = [{p.name: p.node for p in arrived} for arrived in pods]
    moves = [n for n, node in places[0].items() if n in places[1] and places[1][n] != node]
    if moves:
        few = ", ".join(f"{n} ({places[0][n] or 'none'}, {places[1][n] or 'none'})" for n in moves[:MAX_MOVES])
        out.append(f"{len(moves)} of {len(places[0])} pods are on other nodes: {few}")
    if not any(_differs(*values) for _, values in rows) and not moves:
        out.append("no measure differs")
    return out + parting(a, b)


def _waits(pods: Sequence[Life]) -> list[float]:
    return [p.bound - p.created for p in pods if p.bound is not None]


def _starts(pods: Sequence[Life]) -> list[float]:
    return [p.ready - p.bound for p in pods if p.ready is not None and p.bound is not None]


def _share(measures: Measures, resource: str) -> Series:
    return measures.requested(resource) / measures.allocatable(resource)


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _differs(one: float, other: float) -> bool:
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) != math.isnan(other)
    return not math.isclose(one, other, rel_tol=0.02, abs_tol=0.005)


def _verdict(one: float, other: float) -> str:
    """In words, for differences of more than 2 %."""
    if not _differs(one, other) or math.isnan(one) or math.isnan(other):
        return ""
    if one == 0:
        return f"  {_shown(other - one)} more"
    ratio = other / one - 1
    return f"  {abs(ratio):.0%} {'more' if ratio > 0 else 'less'}"
