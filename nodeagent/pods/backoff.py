"""Exponential back-off the way kubelet counts it: from the moment something ended, not from the last attempt.

10 s, 20 s, ... 300 s; an entry that was not renewed for twice the longest delay is forgotten.
Pure: ``now`` is an input. CrashLoopBackOff is decided in machine.py, ImagePullBackOff in pulling.py.
"""

from __future__ import annotations

FIRST_DELAY, MAX_DELAY = 10.0, 300.0


class BackoffTable:
    """Delays by key. ``until(key, since)`` gives the time before which nothing may be tried again."""

    def __init__(self, first: float = FIRST_DELAY, most: float = MAX_DELAY) -> None:
        self.first, self.most = first, most
        self._entries: dict[str, tuple[float, float]] = {}  # key -> (delay, time of the last attempt)

    def delay(self, key: str) -> float:
        """The present delay in seconds, 0 without an entry."""
        return self._entries.get(key, (0.0, 0.0))[0]

    def until(self, key: str, since: float) -> float:
        """When the back-off of an attempt that ended at ``since`` is over; 0 when there is none."""
        entry = self._entries.get(key)
        if entry is None or since - entry[1] > 2 * self.most:
            return 0.0
        return since + entry[0]

    def next(self, key: str, since: float, now: float) -> None:
        """Counts an attempt made ``now`` after the previous one ended at ``since``."""
        entry = self._entries.get(key)
        if entry is None or since - entry[1] > 2 * self.most:
            self._entries[key] = (self.first, now)
        else:
            self._entries[key] = (min(entry[0] * 2, self.most), now)

    def forget(self, key: str) -> None:
        self._entries.pop(key, None)
