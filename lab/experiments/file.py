"""The file of an experiment: ``load`` reads it whole, ``cells`` are its combinations of levels, ``parse`` checks one.

The struct is in model.py, the mistakes in checks.py and stepchecks.py; this is the door to all of them.
"""

from __future__ import annotations

from typing import Any

from lab.experiments.cells import Cell, cells, pairs
from lab.experiments.checks import check
from lab.experiments.inlining import inlined, load
from lab.experiments.model import (
    CONDITIONS,
    DEEDS,
    DESIGNS,
    FAULTS,
    KIND,
    MODES,
    VERSION,
    Arrivals,
    ClusterPart,
    Expectation,
    Experiment,
    Generate,
    Load,
    Metadata,
    Nodes,
    Plot,
    Reference,
    SchedulerPart,
    Step,
    Taint,
    Trace,
    Work,
)
from lab.experiments.schema import Problem, WrongFile, part_of, rate_of, read

__all__ = [
    "CONDITIONS", "DEEDS", "DESIGNS", "FAULTS", "KIND", "MODES", "VERSION", "Arrivals", "Cell", "ClusterPart", "Expectation",
    "Experiment", "Generate", "Load", "Metadata", "Nodes", "Plot", "Reference", "SchedulerPart", "Step", "Taint", "Trace",
    "Work", "cells", "inlined", "load", "pairs", "parse", "part_of", "rate_of",
]  # fmt: skip


def parse(tree: dict[str, Any]) -> Experiment:
    """One cell's tree as an Experiment. Raises WrongFile with every mistake."""
    experiment, problems = examined(tree)
    if experiment is None or problems:
        raise WrongFile(problems)
    return experiment


def examined(tree: dict[str, Any]) -> tuple[Experiment | None, list[Problem]]:
    """One cell's tree as an Experiment, unless types are wrong, and all that is wrong with it."""
    problems: list[Problem] = []
    experiment = read(Experiment, {"api-version" if k == "apiVersion" else k: v for k, v in tree.items()}, "", problems)
    if experiment is not None:
        check(experiment, problems)
    return experiment, problems
