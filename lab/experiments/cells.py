"""Combinations of an experiment's factors: each cell is the file with one level of every factor put in. Pure."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lab.experiments.expressions import meant
from lab.experiments.model import DESIGNS
from lab.experiments.schema import Problem, WrongFile

PARTS = ("scheduler", "cluster", "behaviour", "stages", "workload", "steps")
"""Keys of a level that are parts of the file, which the level changes, and no values; ``scheduler`` is cluster.scheduler."""


class Cell(NamedTuple):
    """One combination of levels, and what the file says with it."""

    levels: Mapping[str, str]
    tree: dict[str, Any]

    @property
    def name(self) -> str:
        return ",".join(f"{k}={v}" for k, v in self.levels.items()) or "all"


def cells(tree: dict[str, Any]) -> list[Cell]:
    """All combinations of the factors' levels that the design asks for. Raises WrongFile."""
    problems: list[Problem] = []
    factors = tree.get("factors") or {}
    levels: dict[str, dict[str, Any]] = {}
    for name, levels_of in factors.items() if isinstance(factors, dict) else ():
        if isinstance(levels_of, list) and levels_of:
            levels[name] = {str(v): v for v in levels_of}
        elif isinstance(levels_of, dict) and levels_of:
            levels[name] = {str(k): v for k, v in levels_of.items()}
        else:
            text = "needs at least one level: a list of values, or a mapping of level to patch"
            problems.append(Problem(f"factors.{name}", text))
    design = tree.get("design", "full")
    if design not in DESIGNS and not isinstance(design, list):
        problems.append(Problem("design", f"there is no design {design!r}{meant(str(design), DESIGNS)}"))
    if problems:
        raise WrongFile(problems)
    if design == "full":
        combinations = [dict(zip(levels, choice, strict=True)) for choice in itertools.product(*(v for v in levels.values()))]
    elif design == "one-at-a-time":
        first = {name: next(iter(of_factor)) for name, of_factor in levels.items()}
        combinations = [first, *(first | {n: v} for n, of_factor in levels.items() for v in list(of_factor)[1:])]
    elif design == "pairs":
        combinations = pairs({name: list(of_factor) for name, of_factor in levels.items()})
    else:
        combinations = _points(design, levels, problems)
        if problems:
            raise WrongFile(problems)
    out = []
    for combination in combinations:
        base = copy.deepcopy({k: v for k, v in tree.items() if k != "factors"})
        values: dict[str, Any] = {}
        for name, level in combination.items():
            value = levels[name][level]
            if isinstance(value, dict):
                patch = value.get("patch")
                for one in ({k: v for k, v in value.items() if k in PARTS}, patch if isinstance(patch, dict) else {}):
                    scheduler = {"cluster": {"scheduler": one["scheduler"]}} if "scheduler" in one else {}
                    _merge(base, {k: v for k, v in one.items() if k != "scheduler"})
                    _merge(base, scheduler)
                values |= {f"{name}.{k}": v for k, v in value.items() if k != "patch" and k not in PARTS}
            values[name] = level if isinstance(value, dict) else value
        out.append(Cell(combination, _substituted(base, values, "", problems)))
    if problems:
        raise WrongFile(list(dict.fromkeys(problems)))
    return out


def pairs(levels: Mapping[str, list[str]]) -> list[dict[str, str]]:
    """Few combinations in which every two levels of two factors meet at least once: the next one is always that which has the
    most pairs that have not met, the first in order among equals."""
    names = list(levels)
    open_: set[tuple[tuple[str, str], tuple[str, str]]] = {
        ((a, x), (b, y)) for n, a in enumerate(names) for b in names[n + 1 :] for x in levels[a] for y in levels[b]
    }
    if len(names) < 2:
        return [{n: v} for n in names for v in levels[n]] or [{}]

    def meets(one: Mapping[str, str]) -> set[tuple[tuple[str, str], tuple[str, str]]]:
        listed = [(n, one[n]) for n in names if n in one]
        return {(a, b) for k, a in enumerate(listed) for b in listed[k + 1 :]} & open_

    out = []
    while open_:
        chosen: dict[str, str] = dict(min(open_, key=lambda pair: [(names.index(n), levels[n].index(v)) for n, v in pair]))
        for name in names:
            if name not in chosen:
                chosen[name] = max(levels[name], key=lambda v: (len(meets(chosen | {name: v})), -levels[name].index(v)))
        out.append({n: chosen[n] for n in names})
        open_ -= meets(chosen)
    return out


def _points(rows: list[Any], levels: Mapping[str, Mapping[str, Any]], problems: list[Problem]) -> list[dict[str, str]]:
    """The combinations that a file of points lists: a column a factor. They were read as ``design``."""
    out: list[dict[str, str]] = []
    for n, row in enumerate(rows):
        one = {str(k): str(v) for k, v in row.items()} if isinstance(row, dict) else {}
        for name in levels:
            if name not in one:
                problems.append(Problem(f"design[{n}]", f"has no level for the factor {name}"))
            elif one[name] not in levels[name]:
                text = f"there is no level {one[name]!r}{meant(one[name], levels[name])}"
                problems.append(Problem(f"design[{n}].{name}", text))
        for name in set(one) - set(levels):
            problems.append(Problem(f"design[{n}].{name}", f"there is no such factor{meant(name, levels)}"))
        out.append({name: one.get(name, "") for name in levels})
    if not out:
        problems.append(Problem("design", "has no points"))
    return list({tuple(one.items()): one for one in out}.values())


def _merge(tree: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = copy.deepcopy(value)


_VARIABLE = re.compile(r"\$\{([\w.-]+)\}")


def _substituted(tree: Any, values: Mapping[str, Any], path: str, problems: list[Problem]) -> Any:
    if isinstance(tree, dict):
        return {k: _substituted(v, values, f"{path}.{k}".lstrip("."), problems) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_substituted(v, values, f"{path}[{n}]", problems) for n, v in enumerate(tree)]
    if not isinstance(tree, str):
        return tree

    def value(match: re.Match[str]) -> str:
        if match[1].startswith(("draw.", "n")) and match[1] not in values:
            return match[0]  # of arrivals
        if match[1] not in values:
            problems.append(Problem(path, f"there is no factor {match[1]!r}{meant(match[1], values)}"))
        return str(values.get(match[1], ""))

    whole = _VARIABLE.fullmatch(tree)
    if whole and whole[1] in values:
        return values[whole[1]]
    return _VARIABLE.sub(value, tree)
