"""A run in which nothing happens: expressions are tried on it before any run, so that what cannot be worked out is told.

``ready(deployment/web, 5)``, ``nodes_ready() + "a"`` or a measure that is a value over time would else end each run at its end.
"""

from __future__ import annotations

import math
from typing import Any

from lab.experiments import measures
from lab.experiments.expressions import Expression, ExpressionError
from lab.experiments.library import own
from lab.experiments.model import COMPONENTS, CONDITIONS, Experiment
from lab.experiments.recording import FORMAT, Recording
from lab.experiments.series import Series
from lab.experiments.state import State

_NOTHING = Series.of([(0.0, 0.0)])


class Blank:
    """All functions on such a run, and the names for marks, services, series and measures, which grow as they are tried."""

    def __init__(self, e: Experiment, marks: list[str]) -> None:
        recording = Recording({"recording": FORMAT, "marks": marks}, _lines(e, marks))
        self.names, self._functions = measures.names_of_run(recording, {})

    def series(self, name: str, text: str) -> None:
        """Tries a series, which is a name from then on. Raises ExpressionError."""
        value = _NOTHING if own.named(text) else Expression(text).try_all(self._functions, self.names)
        self.names[name] = _NOTHING  # whatever comes of it, others that use it are no mistakes
        if not isinstance(value, Series):
            raise ExpressionError(f"{text!r} is a number; it belongs to measure")

    def measure(self, name: str, text: str) -> None:
        """Tries a measure; its values are names from then on. Raises ExpressionError."""
        try:
            if not own.named(text):
                Expression(text).listed("quantiles", 1)
                measures.numbers(name, text, Expression(text).try_all(self._functions, self.names))
        finally:
            self.names |= dict.fromkeys(measures.names_of(name, text), math.nan)

    def over_time(self, text: str) -> None:
        """Tries what a plot draws. Raises ExpressionError unless it is a value over time."""
        if not isinstance(Expression(text).try_all(self._functions, self.names), Series):
            raise ExpressionError(f"{text!r} is no value over time, so it cannot be drawn")


def _lines(e: Experiment, marks: list[str]) -> list[dict[str, Any]]:
    gauges = {str(name): 0.0 for text in (*e.series.values(), *e.measure.values()) for name in _gauges(text)}
    samples: dict[str, dict[str, float]] = {f"requests/{c}": {"writes": 0, "reads": 0} for c in COMPONENTS}
    samples |= {f"load/{w.load.service}": {"sent": 0} for w in e.workload if w.load is not None}
    groups = e.cluster.autoscaler.groups if e.cluster.autoscaler else ()
    samples |= {f"nodegroups/{g.name}": {"nodes": 0, "booting": 0, "price": 0} for g in groups}
    samples |= {"gauges": gauges} if gauges else {}
    at = {"begin": 0, **{name: n for n, name in enumerate(marks, 1)}}
    lines = [{"t": t, "mark": name} for name, t in at.items()]
    return [*lines, *({"t": 0, "sample": k, "values": v} for k, v in samples.items()), {"t": len(at), "end": True}]


def _gauges(text: str) -> list[Any]:
    try:
        return [] if own.named(text) else Expression(text).constants("gauge", 0)
    except ExpressionError:
        return []  # told elsewhere


TRUTHS = tuple(n for n in CONDITIONS if getattr(State, n).__annotations__["return"] == "bool")
"""Conditions that are true or false; the others count."""


def try_condition(text: str) -> None:
    """Tries what ``until`` or ``when`` says on a cluster without objects. Raises ExpressionError."""
    expression, state = Expression(text), State()
    expression.check_truth(TRUTHS)
    expression.try_all({name: getattr(state, name) for name in CONDITIONS}, {})


def try_expectation(text: str, measured: list[str]) -> None:
    """Tries an expectation on numbers. Raises ExpressionError."""
    expression = Expression(text)
    expression.check_truth()
    expression.try_all({}, dict.fromkeys(measured, math.nan))
