"""Measures of load: requests that were sent, answered, failed and tried again, and how long answers took."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lab.experiments.expressions import ExpressionError, meant
from lab.experiments.library.base import Base, unit
from lab.experiments.recording import Sample
from lab.experiments.series import Series, Span

WHAT = ("sent", "ok", "failed", "retries")


class Loads(Base):
    def _samples(self, service: str, span: Span | None = None) -> Iterator[Sample]:
        samples = [s for s in self.recording.samples if s.name == f"load/{service}"]
        if not samples:
            names = sorted({s.name[5:] for s in self.recording.samples if s.name.startswith("load/")})
            raise ExpressionError(f"there is no load on a service {service!r}; there is on: {', '.join(names) or 'none'}")
        return (s for s in samples if span is None or span.begin < s.time <= span.end)

    def _load(self, service: str, value: str, span: Span | None) -> float:
        return sum(s.values.get(value, 0) for s in self._samples(service, span))

    @unit("requests")
    def sent(self, service: str, span: Span | None = None) -> float:
        """Requests that clients made."""
        return self._load(service, "sent", span)

    @unit("requests")
    def ok(self, service: str, span: Span | None = None) -> float:
        """Requests that were answered in time, at the first try or a later one."""
        return self._load(service, "ok", span)

    @unit("requests")
    def failed(self, service: str, span: Span | None = None) -> float:
        """Requests that failed, with all of their tries."""
        return self._load(service, "failed", span)

    @unit("tries")
    def retries(self, service: str, span: Span | None = None) -> float:
        """Tries after the first."""
        return self._load(service, "retries", span)

    @unit("share")
    def failures(self, service: str, span: Span | None = None) -> float:
        """`failed` over `sent`; nan if none were sent."""
        sent = self.sent(service, span)
        return self.failed(service, span) / sent if sent else math.nan

    @unit("requests a second, over time")
    def rate(self, service: str, what: str = "sent") -> Series:
        """Of the samples' "sent", "ok", "failed" or "retries", each for the second before it was taken."""
        if what not in WHAT:
            raise ExpressionError(f"there is no rate of {what!r}{meant(what, WHAT)}")
        points = [(max(0.0, s.time - 1.0), float(s.values.get(what, 0))) for s in self._samples(service)]
        return Series.of([(0.0, 0.0), *points, (self.recording.end, 0.0)])

    @unit("seconds")
    def latency(self, service: str, q: float, span: Span | None = None) -> float:
        """A quantile of the answers that came, tries and waits between them included: the upper bound of its bucket in the
        samples' histograms."""
        if not 0 <= q <= 1:
            raise ExpressionError(f"{q} is no quantile: a number from 0 to 1, such as 0.99")
        buckets: dict[str, float] = {}
        for sample in self._samples(service, span):
            for name, count in sample.values.items():
                if name.startswith("le_"):
                    buckets[name] = buckets.get(name, 0) + count
        ordered = sorted((float(name[3:]), count) for name, count in buckets.items())
        rank, total = q * sum(c for _, c in ordered), 0.0
        for bound, count in ordered:
            total += count
            if total >= rank and count:
                return bound
        return math.nan
