"""The cost of an experiment before it is run: one run of its first cell, which may take so much CPU and no more."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import NamedTuple

from lab.experiments.drivers.modes import run_of
from lab.experiments.file import Cell, parse
from lab.experiments.folder import digest_of
from lab.experiments.recording import listener
from lab.experiments.sweep import ONE_AT_A_TIME, of_run

BUDGET = 10.0  # seconds of CPU


class Cost(NamedTuple):
    """Of one run: CPU and virtual time in seconds, bytes of its recording. ``ended``: it came to its end within the budget."""

    cpu: float
    virtual: float
    size: int
    ended: bool


class Enough(BaseException):
    """The budget is spent. No Exception, so that nothing in a run takes it for an error of its own."""


def cost_of(cell: Cell, seed: int = 1, budget: float = BUDGET) -> Cost | None:
    """Runs a cell; None for a mode on a real clock. Raises whatever the run raises."""
    experiment = parse(cell.tree)
    if experiment.cluster.mode in ONE_AT_A_TIME:
        return None
    spending = Spending(budget)
    token = listener.set(spending)
    try:
        outcome = run_of(experiment, seed)
        return Cost(spending.cpu, outcome.virtual, len(outcome.recorder.content), True)
    except Enough:
        return Cost(spending.cpu, spending.virtual, 0, False)
    except BaseExceptionGroup as group:
        if group.subgroup(Enough) is None:
            raise
        return Cost(spending.cpu, spending.virtual, 0, False)
    finally:
        listener.reset(token)


class Spending:
    """Listens to a run (lab/experiments/recording.py) and raises Enough once it has taken ``budget`` seconds of CPU."""

    def __init__(self, budget: float) -> None:
        self.budget, self.virtual, self._lines, self._began = budget, 0.0, 0, cpu_spent()

    @property
    def cpu(self) -> float:
        """In seconds, since the beginning."""
        return cpu_spent() - self._began

    def line(self, time: float) -> None:
        self._lines, self.virtual = self._lines + 1, time
        if self._lines & 63 == 0 and self.cpu > self.budget:
            raise Enough

    def at(self, time: float) -> None:
        self.virtual = time

    def say(self, what: str) -> None:
        pass


def cpu_spent() -> float:
    """By this process, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def idle_factors(listed: Sequence[Cell]) -> list[str]:
    """Factors whose level changes nothing: with all others as they are, every level gives the same run."""
    digests = [(cell.levels, digest_of(of_run(cell.tree))) for cell in listed]
    out = []
    for factor in listed[0].levels:
        groups: dict[tuple[tuple[str, str], ...], set[str]] = {}
        counts: dict[tuple[tuple[str, str], ...], int] = {}
        for levels, digest in digests:
            rest = tuple((k, v) for k, v in levels.items() if k != factor)
            groups.setdefault(rest, set()).add(digest)
            counts[rest] = counts.get(rest, 0) + 1
        if max(counts.values()) > 1 and all(len(of_rest) == 1 for of_rest in groups.values()):
            out.append(factor)
    return out
