"""Counters of requests, under Kubernetes' metric names. The hot path only adds to a dict; /metrics turns it into text."""

from __future__ import annotations

from collections.abc import Iterator

from apiserver.request import RequestInfo
from apiserver.wire.exposition import Histogram, Source, head

BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 60.0)
_LABELS = ("verb", "group", "version", "resource", "subresource")


class Metrics:
    """``text()`` is what /metrics answers."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, str, str, str, int], int] = {}
        self.durations: dict[tuple[str, str, str, str, str], Histogram] = {}
        self.sources: list[Source] = []  # lines of other parts of the server

    def request(self, info: RequestInfo, code: int, seconds: float) -> None:
        labels = (info.verb.upper(), info.group, info.version, info.resource, info.subresource)
        key = (*labels, code)
        self.requests[key] = self.requests.get(key, 0) + 1
        if info.verb == "watch":
            return
        histogram = self.durations.get(labels)
        if histogram is None:
            histogram = self.durations[labels] = Histogram(BUCKETS)
        histogram.observe(seconds)

    def text(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from head("apiserver_request_total", "counter", "Requests by verb, resource and status code.")
        for (*labels, code), count in sorted(self.requests.items()):
            yield f'apiserver_request_total{{{_pairs(labels)},code="{code}"}} {count}'
        name = "apiserver_request_duration_seconds"
        yield from head(name, "histogram", "How long requests took, watches aside.")
        for labels_ in sorted(self.durations):
            yield from self.durations[labels_].lines(name, _pairs(labels_))
        for source in self.sources:
            yield from source()


def _pairs(values: tuple[str, ...] | list[str]) -> str:
    return ",".join(f'{label}="{value}"' for label, value in zip(_LABELS, values, strict=True))
