"""Warnings that keep a reader from believing too much. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lab.experiments.sweep import Result
from lab.reports.statistics import cells_of

Decisions = Mapping[str, Sequence[tuple[Any, str]]]
"""By the name of a run: each pod's identity and its node, in order."""


def warnings(
    listed: Sequence[Result], decisions: Decisions = MappingProxyType({}), machine: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """All of them. ``machine``: by the name of a real run, what was wrong with the machine meanwhile."""
    good = [r for r in listed if not r.error]
    return [
        *_failures(listed, good), *_same_seeds(good), *_same_levels(good, decisions),
        *(f"{name}: {text}" for name, text in machine.items()),
    ]  # fmt: skip


def _failures(listed: Sequence[Result], good: Sequence[Result]) -> list[str]:
    out = []
    failed = [r for r in listed if r.error]
    if failed:
        first = f"{failed[0].name}: {failed[0].error.splitlines()[0]}"
        out.append(f"{len(failed)} of {len(listed)} runs failed; the first: {first}")
    slow = [r for r in good if r.timeouts]
    if slow:
        text = "had a step that did not end in time; what they measure from there on is \"at least\" (≥)"
        out.append(f"{len(slow)} of {len(listed)} runs {text}. The first: {slow[0].name}: {slow[0].timeouts[0]}")
    return out


def _same_seeds(good: Sequence[Result]) -> list[str]:
    out = []
    same = [n for n, runs in cells_of(good).items() if len(runs) > 1 and len({values_of(r) for r in runs}) == 1]
    for name in same if len(same) < len(cells_of(good)) else ():
        out.append(f"{name}: all {len(cells_of(good)[name])} seeds gave the same. Nothing in this cell is random.")
    if same and not out:
        seeds = len({r.seed for r in good})
        out.append(f"In every cell all {seeds} seeds gave the same. Nothing in this experiment is random.")
    alone = [name for name, of_cell in cells_of(good).items() if len(of_cell) == 1]
    if alone:
        more = f" and {len(alone) - 1} more cells" if len(alone) > 1 else ""
        out.append(f"{alone[0]}{more}: one seed only, so nothing is known of the spread.")
    return out


def _same_levels(good: Sequence[Result], decisions: Decisions) -> list[str]:
    """Factors that changed no run; and pairs of levels that gave the same, or whose every pod went to the same node."""
    out = []
    for factor in dict.fromkeys(k for r in good for k in r.levels):
        levels = list(dict.fromkeys(r.levels[factor] for r in good))
        by: dict[Any, dict[str, Result]] = {}
        for r in good:
            rest = tuple((k, v) for k, v in r.levels.items() if k != factor)
            by.setdefault((rest, r.seed), {})[r.levels[factor]] = r
        pairs = {
            (a, b): [(p[a], p[b]) for p in by.values() if a in p and b in p] for n, b in enumerate(levels) for a in levels[:n]
        }
        equal = [names for names, both in pairs.items() if both and all(values_of(a) == values_of(b) for a, b in both)]
        if len(levels) > 1 and len(equal) == len(pairs):
            out.append(f"{factor} changed no run: all its levels gave the same.")
            continue
        for names, both in pairs.items():
            if names in equal:
                out.append(f"{factor}: {names[0]} and {names[1]} gave the same in every run.")
            elif both and all(decisions.get(a.name) and decisions.get(a.name) == decisions.get(b.name) for a, b in both):
                out.append(f"{factor}: {names[0]} and {names[1]} made the same decisions in every run: "
                           "each pod went to the same node.")  # fmt: skip
    return out


def values_of(r: Result) -> tuple[float, ...]:
    return tuple(-1.0 if math.isnan(v) else v for v in r.measures.values())
