"""Prometheus' text format for metrics that are kept as plain numbers.

The API server and the node agent write it themselves: docs/decisions.md, D66. Label values are escaped here and nowhere
else: a quote or a line break in one would make the whole page unreadable.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

Source = Callable[[], Iterable[str]]  # the lines of one part of a server


class Histogram:
    """``counts`` has one more place than ``buckets``, for what is above them."""

    __slots__ = ("buckets", "counts", "total")

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.buckets, self.counts, self.total = buckets, [0] * (len(buckets) + 1), 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.buckets, value)] += 1
        self.total += value

    def lines(self, name: str, labelled: str, at_zero: int = 0) -> Iterator[str]:
        """``labelled``: what :func:`labels` gives. ``at_zero``: more values, which were too small to be observed one by one."""
        total = at_zero
        for limit, count in zip((*self.buckets, "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labelled},le="{limit}"}} {total}'
        yield f"{name}_sum{{{labelled}}} {self.total:.6f}"
        yield f"{name}_count{{{labelled}}} {total}"


def head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def labels(pairs: Iterable[tuple[str, object]]) -> str:
    """Labels as they stand between braces."""
    return ",".join(f'{name}="{_escaped(str(value))}"' for name, value in pairs)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
