"""The commands that make the runs of a folder again: what made the file another, and the cells and seeds that ran."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.experiments.file import cells
from lab.experiments.sweep import Result


def commands(folder: Path, locked: Mapping[str, Any], listed: Sequence[Result]) -> list[str]:
    """The lines, one for each of several parts if one cannot name them all."""
    tree = locked["file"]
    out = ["sh reproduce.sh   # in this folder: runs all and compares the hashes"] if (folder / "reproduce.sh").exists() else []
    begin = ["navarch", "experiment", "run", *(locked.get("command") or [f"{tree['metadata']['name']}.yaml"])]
    return [*out, *(shlex.join([*begin, *part, "--out", "again"]) for part in _parts(tree, listed))]


def _parts(tree: Mapping[str, Any], listed: Sequence[Result]) -> list[list[str]]:
    """By command, ``--only`` and ``--seeds`` for the cells and seeds that ran."""
    by_cell: dict[tuple[tuple[str, str], ...], set[int]] = {}
    for r in listed:
        by_cell.setdefault(tuple(r.levels.items()), set()).add(r.seed)
    every = [tuple(cell.levels.items()) for cell in cells(dict(tree))]
    common = {frozenset(seeds) for seeds in by_cell.values()}
    if len(common) != 1:  # each cell has its own seeds
        return [[*_only(dict(cell)), *words] for cell, seeds in by_cell.items() for words in _seeds(tree, seeds)]
    seeds = set(next(iter(common)))
    present = {name: {dict(cell)[name] for cell in by_cell} for name, _ in next(iter(by_cell))}
    single = {name: next(iter(levels)) for name, levels in present.items() if len(levels) == 1}
    covered = {cell for cell in every if all(dict(cell).get(k) == v for k, v in single.items())}
    if covered != set(by_cell):
        return [[*_only(dict(cell)), *words] for cell in by_cell for words in _seeds(tree, seeds)]
    needed = {k: v for k, v in single.items() if any(dict(cell).get(k) != v for cell in every)}
    return [[*_only(needed), *words] for words in _seeds(tree, seeds)]


def _only(levels: Mapping[str, str]) -> list[str]:
    return [word for k, v in levels.items() for word in ("--only", f"{k}={v}")]


def _seeds(tree: Mapping[str, Any], seeds: set[int]) -> list[list[str]]:
    most, said = max(seeds), int(tree.get("seeds", 1))
    if seeds == set(range(1, most + 1)):
        return [[] if most == said else ["--seeds", str(most)]]
    return [["--only", f"seed={n}", *(["--seeds", str(n)] if n > said else [])] for n in sorted(seeds)]
