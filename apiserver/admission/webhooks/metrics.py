"""Metrics of webhooks: answers and durations, under Kubernetes' metric names. Costs nothing where none is asked."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.exposition import Histogram, head, labels

BUCKETS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0)
CALLING, NO_ERROR = "calling_webhook_error", "no_error"
_START = "apiserver_admission_webhook_"
Labels = tuple[tuple[str, str], ...]


class WebhookMetrics:
    """``kind`` is admit or validating, ``name`` the webhook's."""

    def __init__(self) -> None:
        self.durations: dict[Labels, Histogram] = {}
        self.rejections: dict[Labels, int] = {}
        self.failed_open: dict[Labels, int] = {}

    def observe(self, kind: str, name: str, operation: str, rejected: bool, seconds: float) -> None:
        pairs = _labels(type=kind, name=name, operation=operation, rejected=str(rejected).lower())
        histogram = self.durations.get(pairs)
        if histogram is None:
            histogram = self.durations[pairs] = Histogram(BUCKETS)
        histogram.observe(seconds)

    def rejected(self, kind: str, name: str, operation: str, error: str, code: int) -> None:
        """``error``: why, if the webhook did not just say no; ``code``: what it said, 0 if nothing."""
        pairs = _labels(type=kind, name=name, operation=operation, error_type=error, rejection_code=str(code))
        self.rejections[pairs] = self.rejections.get(pairs, 0) + 1

    def ignored(self, kind: str, name: str) -> None:
        """A webhook failed, and that was ignored."""
        pairs = _labels(type=kind, name=name)
        self.failed_open[pairs] = self.failed_open.get(pairs, 0) + 1

    def lines(self) -> Iterator[str]:
        """The text for /metrics, line by line."""
        name = f"{_START}admission_duration_seconds"
        yield from head(name, "histogram", "How long webhooks took to answer.")
        for pairs in sorted(self.durations):
            yield from self.durations[pairs].lines(name, labels(pairs))
        for name, counts, text in (
            ("rejection_count", self.rejections, "Requests that webhooks refused."),
            ("fail_open_count", self.failed_open, "Failures of webhooks that were ignored."),
        ):
            yield from head(_START + name, "counter", text)
            for pairs, count in sorted(counts.items()):
                yield f"{_START}{name}{{{labels(pairs)}}} {count}"


def _labels(**labels: str) -> Labels:
    return tuple(sorted(labels.items()))
