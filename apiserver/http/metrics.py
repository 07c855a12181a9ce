"""Counters of requests, under Kubernetes' metric names. The hot path only adds to a dict; /metrics turns it into text."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from apiserver.request import RequestInfo

BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 60.0)
_LABELS = ("verb", "group", "version", "resource", "subresource")


class Metrics:
    """``text()`` is what /metrics answers."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, str, str, str, int], int] = {}
        self.durations: dict[tuple[str, str, str, str, str], list[float]] = {}  # counts a bucket, then the sum
        self.sources: list[Callable[[], Iterable[str]]] = []  # lines of other parts of the server

    def request(self, info: RequestInfo, code: int, seconds: float) -> None:
        labels = (info.verb.upper(), info.group, info.version, info.resource, info.subresource)
        key = (*labels, code)
        self.requests[key] = self.requests.get(key, 0) + 1
        if info.verb == "watch":
            return
        counts = self.durations.get(labels)
        if counts is None:
            counts = self.durations[labels] = [0.0] * (len(BUCKETS) + 2)
        counts[bisect_left(BUCKETS, seconds)] += 1
        counts[-1] += seconds

    def text(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "# HELP apiserver_request_total Requests by verb, resource and status code."
        yield "# TYPE apiserver_request_total counter"
        for (*labels, code), count in sorted(self.requests.items()):
            yield f'apiserver_request_total{{{_pairs(labels)},code="{code}"}} {count}'
        name = "apiserver_request_duration_seconds"
        yield f"# HELP {name} How long requests took, watches aside."
        yield f"# TYPE {name} histogram"
        for labels_, counts in sorted(self.durations.items()):
            shown, total = _pairs(labels_), 0.0
            for limit, in_bucket in zip((*BUCKETS, "+Inf"), counts, strict=False):
                total += in_bucket
                yield f'{name}_bucket{{{shown},le="{limit}"}} {total:.0f}'
            yield f"{name}_sum{{{shown}}} {counts[-1]:.6f}"
            yield f"{name}_count{{{shown}}} {total:.0f}"
        for source in self.sources:
            yield from source()


def _pairs(values: tuple[str, ...] | list[str]) -> str:
    return ",".join(f'{label}="{value}"' for label, value in zip(_LABELS, values, strict=True))
