"""A value over time, as steps: what it is from one change to the next. Pure."""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

Number = float


class Span(NamedTuple):
    """A part of a run, in seconds since the start."""

    begin: float
    end: float


class Series:
    """``times`` grow; ``values[n]`` holds from ``times[n]`` until the next. It is 0 before the first."""

    def __init__(self, times: Sequence[float], values: Sequence[Number]) -> None:
        self.times, self.values = list(times), list(values)

    @classmethod
    def of(cls, points: Sequence[tuple[float, Number]]) -> Series:
        """From points in order; of several at one time the last counts, and only changes are kept."""
        times: list[float] = []
        values: list[Number] = []
        for at, value in points:
            if times and times[-1] == at:
                values[-1] = value
            elif not values or values[-1] != value:
                times.append(at)
                values.append(value)
        return cls(times, values)

    def at(self, time: float) -> Number:
        n = bisect_right(self.times, time)
        return self.values[n - 1] if n else 0.0

    def pieces(self, span: Span) -> list[tuple[float, float, Number]]:
        """(from, to, value) within a span; one piece without length if the span has none."""
        inside = [t for t in self.times if span.begin < t < span.end]
        edges = [span.begin, *inside, max(span.end, span.begin)]
        return [(a, b, self.at(a)) for a, b in pairwise(edges)]

    def minimum(self, span: Span) -> Number:
        return min(v for _, _, v in self.pieces(span))

    def maximum(self, span: Span) -> Number:
        return max(v for _, _, v in self.pieces(span))

    def integral(self, span: Span) -> float:
        """In units times seconds."""
        return sum((b - a) * v for a, b, v in self.pieces(span))

    def mean(self, span: Span) -> float:
        """Over time."""
        length = span.end - span.begin
        return self.integral(span) / length if length > 0 else float(self.at(span.begin))

    def seconds(self, span: Span) -> float:
        """How long it is not 0."""
        return sum(b - a for a, b, v in self.pieces(span) if v)

    def _with(self, other: Series | Number, how: Callable[[Number, Number], Number]) -> Series:
        if not isinstance(other, Series):
            return Series(self.times, [how(v, other) for v in self.values])
        return Series.of([(t, how(a, b)) for t, a, b in together(self, other)])

    def __add__(self, other: Series | Number) -> Series:
        return self._with(other, operator.add)

    def __sub__(self, other: Series | Number) -> Series:
        return self._with(other, operator.sub)

    def __mul__(self, other: Series | Number) -> Series:
        return self._with(other, operator.mul)

    def __truediv__(self, other: Series | Number) -> Series:
        return self._with(other, lambda a, b: a / b if b else 0.0)

    def __radd__(self, other: Number) -> Series:
        return self + other

    def __rsub__(self, other: Number) -> Series:
        return self._with(other, lambda a, b: b - a)

    def __rmul__(self, other: Number) -> Series:
        return self * other

    def __rtruediv__(self, other: Number) -> Series:
        return self._with(other, lambda a, b: b / a if a else 0.0)

    def __neg__(self) -> Series:
        return self * -1

    def compare(self, how: Callable[[Number, Number], bool], other: Series | Number) -> Series:
        """1 while a comparison holds, else 0."""
        return self._with(other, lambda a, b: float(how(a, b)))


def together(a: Series, b: Series) -> list[tuple[float, Number, Number]]:
    """The times at which either changes, with the values of both from then on."""
    out: list[tuple[float, Number, Number]] = []
    n = m = 0
    left = right = 0.0
    while n < len(a.times) or m < len(b.times):
        at = min(a.times[n] if n < len(a.times) else math.inf, b.times[m] if m < len(b.times) else math.inf)
        if n < len(a.times) and a.times[n] == at:
            left, n = a.values[n], n + 1
        if m < len(b.times) and b.times[m] == at:
            right, m = b.values[m], m + 1
        out.append((at, left, right))
    return out


def along(y: Series, x: Series, span: Span, step: float = 1.0) -> list[tuple[float, float]]:
    """``y`` against ``x``: for each multiple of ``step``, the mean over time of y while x rounds to it."""
    sums: dict[int, tuple[float, float]] = {}
    points = together(y, x)
    for n, (at, value, place) in enumerate(points):
        end = points[n + 1][0] if n + 1 < len(points) else span.end
        length = min(end, span.end) - max(at, span.begin)
        if length > 0:
            number = round(place / step)
            total, weight = sums.get(number, (0.0, 0.0))
            sums[number] = total + length * value, weight + length
    return [(number * step, total / weight) for number, (total, weight) in sorted(sums.items())]
