"""Functions that make a number of a value over time, or of a list: means, extremes, quantiles, fairness."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lab.experiments.series import Series, Span, along

TEXTS = {
    "min": "the smallest of a value over time, of a list, or of numbers",
    "max": "the largest of these",
    "mean": "the mean: over time, or of a list",
    "integral": "of a value over time: units times seconds",
    "seconds": "for how long a value over time is not 0",
    "last": "a value over time, at the end of the run",
    "along": "`along(y, x, at)`: the mean of y while x rounds to `at`",
    "quantile": "`quantile(list, 0.95)`: linear between the two nearest",
    "quantiles": "`quantiles(list, [0.5, 0.95])`, as a whole measure `wait`: makes the measures `wait.p50` and `wait.p95`",
    "deviation": "standard deviation of a list",
    "sum": "of a list",
    "count": "how many a list has",
    "jain": "Jain's fairness index of a list: 1 if all are equal, 1/n if one has everything",
    "span": "`span(a, b)`, which is also written `a..b`: a part of the run, between two times",
}
"""By name: an entry of the reference. Those of values over time take a span as their second argument."""


def quantile(values: Iterable[float], q: float) -> float:
    """Linear between the two nearest; nan of nothing."""
    if not 0 <= q <= 1:
        raise ValueError(f"{q} is no quantile: a number from 0 to 1, such as 0.95")
    ordered = sorted(values)
    if not ordered:
        return math.nan
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def percent_name(q: float) -> str:
    """``p95`` of 0.95, ``p999`` of 0.999."""
    return "p" + f"{q * 100:.6g}".replace(".", "")


def jain(values: Sequence[float]) -> float:
    """Jain's index: the square of the sum over n times the sum of squares; nan of nothing."""
    squares = math.fsum(v * v for v in values)
    return math.fsum(values) ** 2 / (len(values) * squares) if squares else math.nan


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of the whole; nan of nothing."""
    if not values:
        return math.nan
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))


def reducers(whole: Span) -> Mapping[str, Callable[..., Any]]:
    """By name; a value over time is reduced over the ``whole`` run if no span is said."""

    def over(name: str, of_list: Callable[[Sequence[float]], float]) -> Callable[..., Any]:
        def reduce(value: Any, *more: Any) -> Any:
            if isinstance(value, Series):
                if len(more) > 1 or not all(isinstance(m, Span) for m in more):
                    raise TypeError("after a value over time comes a span such as start..end, and nothing else")
                return getattr(value, name)(more[0] if more else whole)
            if isinstance(value, list) and more:
                raise TypeError("after a list comes nothing else")
            if isinstance(value, list):
                return of_list(value) if value else math.nan
            if wrong := [m for m in (value, *more) if not isinstance(m, int | float)]:
                raise TypeError(f"{wrong[0]!r} is neither a value over time, nor a list, nor a number")
            return of_list([value, *more])

        return reduce

    def integral(series: Series, span: Span = whole) -> float:
        return series.integral(span)

    def seconds(series: Series, span: Span = whole) -> float:
        return series.seconds(span)

    def last(series: Series) -> float:
        return series.at(whole.end)

    def at_(y: Series, x: Series, at: float) -> float:
        return dict(along(y, x, whole)).get(float(at), math.nan)

    def quantile_of(values: list, q: float) -> float:  # type: ignore[type-arg]
        return quantile(values, q)

    def quantiles(values: list, at: list) -> dict[str, float]:  # type: ignore[type-arg]
        return {percent_name(q): quantile(values, q) for q in at}

    def of_list(function: Callable[[Any], float]) -> Callable[..., float]:
        def call(values: list) -> float:  # type: ignore[type-arg]
            return function(values)

        return call

    return {
        "min": over("minimum", min), "max": over("maximum", max), "mean": over("mean", lambda v: math.fsum(v) / len(v)),
        "integral": integral, "seconds": seconds, "last": last, "along": at_, "quantile": quantile_of,
        "quantiles": quantiles, "deviation": of_list(deviation), "sum": of_list(math.fsum), "count": of_list(len),
        "jain": of_list(jain), "span": Span,
    }  # fmt: skip
