"""Reads a pod's page of metrics in Prometheus' text format, or OpenMetrics: pure.

Gauges stay what they are. Counters (and what ends in _total), and the _count and _sum of histograms and summaries, grow,
and are served as rates. Buckets, quantiles, _created and values that no Quantity can say (NaN, infinite, huge) are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_format

Labels = tuple[tuple[str, str], ...]
MAX_VALUE = 2.0**63 / 1000  # a Quantity is an int64 of thousandths
TOTAL = "_total"


class BadPage(ValueError):
    """The page cannot be used; the text says why."""


class Series(NamedTuple):
    """``name`` is a counter's without _total; ``labels`` are sorted by name."""

    name: str
    grows: bool
    labels: Labels
    value: float


def read(body: bytes, content_type: str, most: int) -> list[Series]:
    """The usable series of a page. Raises BadPage if it is malformed, or has more than ``most`` series."""
    parse = open_metrics if content_type.startswith("application/openmetrics-text") else text_format
    try:
        families = parse(body.decode())
        out = list(itertools.islice(_usable(families), most + 1))
    except Exception as error:  # the parser reads a stranger's text, and does not say all that it raises
        raise BadPage(f"malformed page: {error}"[:200]) from None
    if len(out) > most:
        raise BadPage(f"more than {most} series")
    return out


def _usable(families: Iterable[Metric]) -> Iterable[Series]:
    for family in families:
        for sample in family.samples:
            kind = _kind(family, sample.name)
            if kind is not None and abs(sample.value) < MAX_VALUE:  # which NaN is not
                yield Series(*kind, tuple(sorted(sample.labels.items())), float(sample.value))


def _kind(family: Metric, name: str) -> tuple[str, bool] | None:
    """The name under which a sample is kept, and whether it grows; None if it is left out."""
    if family.type in ("histogram", "summary", "gaugehistogram"):
        return (name, True) if name.endswith(("_count", "_sum")) and family.type != "gaugehistogram" else None
    if family.type == "counter" or (family.type in ("unknown", "untyped") and name.endswith(TOTAL)):
        return None if name.endswith("_created") else (name.removesuffix(TOTAL), True)
    return name, False
