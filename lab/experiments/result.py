"""The result of one run: measures and the hash of the recording, and how its files are called."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Result(NamedTuple):
    """One run. ``error`` says why there is nothing else; a measure that has no value is nan."""

    levels: Mapping[str, str]
    seed: int
    measures: Mapping[str, float]
    digest: str
    virtual: float
    timeouts: Sequence[str]
    error: str = ""
    curves: Mapping[str, Sequence[tuple[float, float]]] = {}
    """By the name of the plot: its points."""

    @property
    def name(self) -> str:
        return run_name(self.levels, self.seed)


def run_name(levels: Mapping[str, str], seed: int) -> str:
    """A file's name: readable if it is short, and never that of another run."""
    text = "_".join([*(f"{k}-{v}" for k, v in levels.items()), f"seed-{seed}"])
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
    if plain == text and len(text) <= 120:
        return text
    return f"{plain[:100]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
