"""Mistakes in what an experiment measures, draws and expects: each expression is tried on a run in which nothing happens."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from lab.experiments import measures
from lab.experiments.blank import Blank, try_expectation
from lab.experiments.expressions import ExpressionError, meant
from lab.experiments.library import own
from lab.experiments.model import Experiment
from lab.experiments.schema import Problem, expression, one_of, part_of


def check_measures(e: Experiment, marks: list[str], problems: list[Problem]) -> None:
    """Series, plots and measures, each of which may name those before it."""
    services = [work.load.service for work in e.workload if work.load is not None]
    names = ["begin", "finish", *marks, *measures.RESOURCES, *services]
    blank = Blank(e, marks)
    for name, text in e.series.items():
        _try(text, f"series.{name}", names, partial(blank.series, name, text), problems)
        names.append(name)
    for n, plot in enumerate(e.plots):
        path = f"plots[{n}]"
        for key in ("y", "x"):
            if text := getattr(plot, key):
                _try(text, f"{path}.{key}", names, partial(blank.over_time, text), problems)
        for key in ("x_range", "y_range"):
            if (limits := getattr(plot, key)) and (len(limits) != 2 or limits[0] >= limits[1]):
                problems.append(Problem(f"{path}.{key.replace('_', '-')}", "needs two numbers, the smaller one first"))
        if plot.step <= 0:
            problems.append(Problem(f"{path}.step", "must be above 0"))
        if not re.fullmatch(r"[\w-]+", plot.name) or plot.name in [p.name for p in e.plots[:n]]:
            problems.append(Problem(f"{path}.name", "must be a name of its own: letters, digits, hyphens"))
    for name, text in e.measure.items():
        _try(text, f"measure.{name}", names, partial(blank.measure, name, text), problems)
        names += measures.names_of(name, text)


def _try(text: str, path: str, names: list[str], try_: Callable[[], Any], problems: list[Problem]) -> None:
    before = len(problems)
    try:
        if own.function(text) is None:
            expression(text, path, measures.FUNCTIONS, names, problems)
        if len(problems) == before:
            try_()
    except ExpressionError as error:
        problems.append(Problem(path, str(error)))


def check_expectations(e: Experiment, problems: list[Problem]) -> None:
    """Expectations speak of measures, and are true or false."""
    values = [n for name, text in e.measure.items() for n in measures.names_of(name, text)]

    def bad(path: str, text: str) -> None:
        problems.append(Problem(path, text))

    def truth(text: str, path: str) -> None:
        before = len(problems)
        expression(text, path, (), values, problems)
        if len(problems) == before:
            try:
                try_expectation(text, values)
            except ExpressionError as error:
                bad(path, str(error))

    for n, one in enumerate(e.expect):
        path = f"expect[{n}]"
        if isinstance(one, str):
            truth(one, path)
        elif sum(map(bool, (one.expr, one.compare, one.reference))) != 1:
            bad(path, "needs exactly one of expr, compare and reference")
        elif one.reference:
            if e.reference is None:
                bad(f"{path}.reference", "there is no reference in this file")
            if one.reference not in values:
                bad(f"{path}.reference", f"there is no measure {one.reference!r}{meant(one.reference, values)}")
        elif one.expr:
            truth(one.expr, f"{path}.expr")
            one_of(f"{path}.of", one.of, ("every", "mean"), problems)
        elif one.compare not in values:
            bad(f"{path}.compare", f"there is no measure {one.compare!r}{meant(one.compare, values)}")
        elif one.confidence and not _is_share(one.confidence):
            bad(f"{path}.confidence", f"{one.confidence!r} is no confidence such as 95%")


def _is_share(value: Any) -> bool:
    try:
        return part_of(value) < 1
    except ValueError:
        return False
