"""Counters of requests, under Kubernetes' metric names. The hot path only adds to a dict; /metrics turns it into text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from apiserver.request import RequestInfo
from navarch.exposition import Histogram, Source, head, labels

BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 60.0)
_LABELS = ("verb", "group", "version", "resource", "subresource")


class Metrics:
    """``text()`` is what /metrics answers. Requests for resources and subresources that are not served count together:
    anybody can make up names, also without a login, and each name would cost a histogram for ever."""

    def __init__(self) -> None:
        self.is_served: Callable[[RequestInfo], bool] = lambda info: True
        self.requests: dict[tuple[str, str, str, str, str, int], int] = {}
        self.durations: dict[tuple[str, str, str, str, str], Histogram] = {}
        self.sources: list[Source] = []  # lines of other parts of the server

    def request(self, info: RequestInfo, code: int, seconds: float) -> None:
        series = (info.verb.upper(), info.group, info.version, info.resource, info.subresource)
        count = self.requests.get((*series, code))
        if count is None:
            if info.is_resource and not self.is_served(info):
                series = (series[0], "", "", "", "")
            count = self.requests.get((*series, code), 0)
        self.requests[*series, code] = count + 1
        if info.verb == "watch":
            return
        histogram = self.durations.get(series)
        if histogram is None:
            histogram = self.durations[series] = Histogram(BUCKETS)
        histogram.observe(seconds)

    def text(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from head("apiserver_request_total", "counter", "Requests by verb, resource and status code.")
        for (*series, code), count in sorted(self.requests.items()):
            yield f'apiserver_request_total{{{_labels(series)},code="{code}"}} {count}'
        name = "apiserver_request_duration_seconds"
        yield from head(name, "histogram", "How long requests took, watches aside.")
        for series_ in sorted(self.durations):
            yield from self.durations[series_].lines(name, _labels(series_))
        for source in self.sources:
            yield from source()


def _labels(series: Sequence[str]) -> str:
    return labels(zip(_LABELS, series, strict=True))
