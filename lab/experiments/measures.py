"""Measures on a recording: all functions that expressions may call, and the values of a file's expressions. Pure.

The functions are in lab/experiments/library, a file a subject. Some give a value over time, some a list (a number a pod), some
a number; the reducers make a number of the former.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from lab.experiments.expressions import Expression, ExpressionError
from lab.experiments.library import own
from lab.experiments.library.base import UNIT
from lab.experiments.library.control import Control
from lab.experiments.library.lives import Life
from lab.experiments.library.loads import Loads
from lab.experiments.library.nodegroups import NodeGroups
from lab.experiments.library.nodes import Nodes
from lab.experiments.library.pods import Pods
from lab.experiments.library.reducers import TEXTS, percent_name, quantile, reducers
from lab.experiments.library.rollouts import Rollouts
from lab.experiments.recording import Recording
from lab.experiments.series import Series, Span, along

__all__ = ["FUNCTIONS", "Life", "Measures", "curve", "measure", "names_of", "quantile", "table"]


class Measures(Pods, Nodes, NodeGroups, Rollouts, Loads, Control):
    """The functions on one recording. What is worked out once is kept."""


RESOURCES = ("cpu", "memory", "pods")
"""Names that stand for themselves: ``requested(cpu)``. So do services with a load: ``failed(web)``."""
SUBJECTS = {
    "Pods": Pods, "Rollouts": Rollouts, "Nodes": Nodes, "Node groups": NodeGroups, "Load": Loads, "Control plane": Control,
}  # fmt: skip
METHODS = [n for subject in SUBJECTS.values() for n, f in vars(subject).items() if hasattr(f, UNIT)]
FUNCTIONS = (*METHODS, *TEXTS)


def table() -> list[tuple[str, str, str, str]]:
    """Of each function: its subject, how it is called, its unit, and what it is."""
    out = []
    for subject, kind in SUBJECTS.items():
        for name, f in vars(kind).items():
            if hasattr(f, UNIT):
                parameters = list(inspect.signature(f).parameters.values())[1:]
                words = [_parameter(p) for p in parameters]
                text = " ".join((f.__doc__ or "").split())
                out.append((subject, f"{name}({', '.join(words)})", getattr(f, UNIT), text))
    return [*out, *(("Of these", name, "", text) for name, text in TEXTS.items())]


def _parameter(parameter: inspect.Parameter) -> str:
    name = {"reference": "ref", "span": "a..b"}.get(parameter.name, parameter.name)
    return name if parameter.default is inspect.Parameter.empty else f"[{name}]"


def names_of(name: str, text: Any) -> list[str]:
    """The names that a measure of the file gives values: ``wait`` of quantiles gives ``wait.p50`` and so on."""
    try:
        levels = None if own.named(text) else Expression(text).listed("quantiles", 1)
    except ExpressionError:
        return [name]  # told elsewhere
    return [name] if levels is None else [f"{name}.{percent_name(q)}" for q in levels]


def measure(recording: Recording, expressions: Mapping[str, str], series: Mapping[str, str] = {}) -> dict[str, float]:
    """The values of all expressions. Marks are names for their times (nan if they were not reached), ``begin`` and ``finish``
    those of the whole run; ``series`` and earlier measures are names, too. Raises ExpressionError."""
    names, functions = names_of_run(recording, series)
    out: dict[str, float] = {}
    for name, text in expressions.items():
        call = own.function(text)
        value = own.number(call, text, recording) if call else Expression(text).evaluate(functions, names)
        values = numbers(name, text, value)
        out |= values
        names |= values
    return out


def numbers(name: str, text: str, value: Any) -> dict[str, float]:
    """The values that a measure gives, by name. Raises ExpressionError if it is no number."""
    values = {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    if not all(isinstance(one, int | float) for one in values.values()):
        raise ExpressionError(f"measure {name!r}: {text!r} is no number; take min, max, mean, last ... of it")
    return {key: float(one) for key, one in values.items()}


def curve(recording: Recording, y: str, x: str, step: float, series: Mapping[str, str] = {}) -> list[tuple[float, float]]:
    """Points of one series over another, or over time (``x`` is ""), in steps of x. Raises ExpressionError."""
    names, functions = names_of_run(recording, series)
    over = Expression(y).evaluate(functions, names)
    whole = Span(names["begin"], names["finish"])
    if not isinstance(over, Series):
        raise ExpressionError(f"{y!r} is no series, so it cannot be drawn")
    if x:
        place = Expression(x).evaluate(functions, names)
        if not isinstance(place, Series):
            raise ExpressionError(f"{x!r} is no series, so nothing can be drawn over it")
        return along(over, place, whole, step)
    count = min(1000, int((whole.end - whole.begin) / step) + 1)
    return [(n * step, over.at(whole.begin + n * step)) for n in range(count)]


def names_of_run(
    recording: Recording, series: Mapping[str, str]
) -> tuple[dict[str, Any], Mapping[str, Callable[..., Any]]]:
    """The names and functions that expressions may use of a run."""
    measures = Measures(recording)
    whole = Span(recording.mark("begin") or 0.0, recording.end)
    functions = {**{n: getattr(measures, n) for n in METHODS}, **reducers(whole)}
    names: dict[str, Any] = {"begin": whole.begin, "finish": whole.end, **{r: r for r in RESOURCES}}
    names |= {name: name for s in recording.samples if s.name.startswith("load/") and (name := s.name[5:]).isidentifier()}
    declared = recording.header.get("marks") or ()
    names |= {name: math.nan if (at := recording.mark(name)) is None else at for name in declared}
    for name, text in series.items():
        call = own.function(text)
        names[name] = own.series(call, text, recording) if call else Expression(text).evaluate(functions, names)
        if not isinstance(names[name], Series):
            raise ExpressionError(f"series {name!r}: {text!r} is a number; it belongs to measure")
    return names, functions
