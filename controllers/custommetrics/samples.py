"""Values of pods over the last half minute, and the rates that follow from them: pure, times in seconds since the epoch.

A counter ``http_requests_total`` is served as ``http_requests_per_second``, and as ``http_requests`` too, as Prometheus'
adapter names it, unless the pod has a gauge of that name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from controllers.custommetrics.exposition import Labels, Series
from navarch.api.selectors import LabelSelector

WINDOW = 30.0  # seconds over which rates are measured
STALE = 120.0  # seconds after which a value is not served any more
PER_SECOND = "_per_second"


class Reading(NamedTuple):
    """``window``: seconds that a rate covers, None for a gauge."""

    value: float
    time: float
    window: float | None


@dataclass
class Track:
    """One series. ``points`` of a counter are (time, increase since the first look, restarts of the pod's count included)."""

    labels: dict[str, str]
    last: float
    points: deque[tuple[float, float]] = field(default_factory=deque)

    def follow(self, now: float, value: float) -> None:
        """A counter's next value. One that is lower than before began anew, from zero."""
        total = self.points[-1][1] + (value - self.last if value >= self.last else value)
        self.last = value
        self.points.append((now, total))
        while len(self.points) > 2 and self.points[1][0] <= now - WINDOW:
            self.points.popleft()

    def rate(self) -> tuple[float, float] | None:
        """Increase a second, and over how many seconds; None after one look only."""
        (begin, low), (end, high) = self.points[0], self.points[-1]
        return ((high - low) / (end - begin), end - begin) if end > begin else None


class _Page:
    """The last page of a pod."""

    def __init__(self, time: float) -> None:
        self.time = time
        self.gauges: dict[str, list[Track]] = {}
        self.counters: dict[tuple[str, Labels], Track] = {}
        self.rates: dict[str, list[Track]] = {}

    def tracks(self, metric: str) -> tuple[list[Track], bool]:
        """The series of a metric, and whether they are counters."""
        if metric in self.gauges:
            return self.gauges[metric], False
        return self.rates.get(metric.removesuffix(PER_SECOND)) or self.rates.get(metric) or [], True

    def names(self) -> list[str]:
        return [*self.gauges, *(name + PER_SECOND for name in self.rates), *(n for n in self.rates if n not in self.gauges)]


class Samples:
    """By the uid of pods. ``most`` series are kept in all."""

    def __init__(self, most: int) -> None:
        self._most, self.count = most, 0
        self._pages: dict[str, _Page] = {}
        self._sizes: dict[str, int] = {}

    def take(self, uid: str, now: float, series: Sequence[Series]) -> bool:
        """Takes a pod's page. Returns false, and keeps the old one, if it would be too much in all."""
        if self.count - self._sizes.get(uid, 0) + len(series) > self._most:
            return False
        old, page = self._pages.get(uid), _Page(now)
        if old is not None and now - old.time > STALE:
            old = None  # too long ago for a rate
        for one in series:
            if not one.grows:
                page.gauges.setdefault(one.name, []).append(Track(dict(one.labels), one.value))
                continue
            key = one.name, one.labels
            if key in page.counters:
                continue
            track = old.counters.get(key) if old is not None else None
            if track is not None:
                track.follow(now, one.value)
            elif old is None:
                track = Track(dict(one.labels), one.value, deque([(now, 0.0)]))
            else:  # born since the last look, at zero
                track = Track(dict(one.labels), one.value, deque([(old.time, 0.0), (now, one.value)]))
            page.counters[key] = track
            page.rates.setdefault(one.name, []).append(track)
        self.drop(uid)
        self._pages[uid], self._sizes[uid] = page, len(series)
        self.count += len(series)
        return True

    def drop(self, uid: str) -> None:
        self._pages.pop(uid, None)
        self.count -= self._sizes.pop(uid, 0)

    def metrics(self, uid: str) -> list[str]:
        page = self._pages.get(uid)
        return page.names() if page is not None else []

    def reading(self, uid: str, metric: str, selector: LabelSelector, now: float) -> Reading | str:
        """The sum of the pod's series of this metric that the selector of labels selects; or why there is none."""
        page = self._pages.get(uid)
        if page is None:
            return "not scraped yet"
        if now - page.time > STALE:
            return f"its last page is {now - page.time:.0f} s old"
        tracks, grows = page.tracks(metric)
        if not tracks:
            return f"its page has no such metric ({len(page.names())} others)"
        tracks = [track for track in tracks if selector.matches(track.labels)]
        if not tracks:
            return f"none of its series has labels {selector}"
        return _sum(tracks, grows, page.time) or "a rate needs two looks, and there was one"

    def series(self, uid: str, metric: str, selector: LabelSelector, now: float) -> Iterable[tuple[dict[str, str], Reading]]:
        """The series of a metric one by one: labels and reading."""
        page = self._pages.get(uid)
        if page is None or now - page.time > STALE:
            return
        tracks, grows = page.tracks(metric)
        for track in tracks:
            if selector.matches(track.labels) and (reading := _sum([track], grows, page.time)) is not None:
                yield track.labels, reading


def _sum(tracks: Sequence[Track], grows: bool, time: float) -> Reading | None:
    if not grows:
        return Reading(sum(track.last for track in tracks), time, None)
    rates = [rate for track in tracks if (rate := track.rate()) is not None]
    return Reading(sum(r for r, _ in rates), time, max(w for _, w in rates)) if rates else None
