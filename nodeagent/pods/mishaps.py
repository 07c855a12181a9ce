"""Exceptions that nobody had foreseen, in the work for one pod: told, counted, and tried again later and later.

They are our own mistakes, or inputs that no rule has refused; either way the pod alone pays for them, and it shows.
"""

from __future__ import annotations

import logging

from navarch.api.types import core_v1
from navarch.client.events import EventRecorder
from navarch.world import Backoff, World
from nodeagent.node.counters import UNEXPECTED, Counters

log = logging.getLogger(__name__)
FIRST, MAX = 10.0, 300.0  # seconds, as kubelet's back-off of containers


def words(error: BaseException) -> str:
    """An exception in one line."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:1000] if text else type(error).__name__


class Mishaps:
    """Back-off by what failed (a container's name, "sandbox", ...)."""

    def __init__(self, world: World, counters: Counters) -> None:
        self._world, self._counters = world, counters
        self._backoffs: dict[str, Backoff] = {}

    def note(self, pod: core_v1.Pod, doing: str, key: str, error: BaseException) -> float:
        """Logs and counts one; seconds until the next attempt. ``doing`` is the metric's label."""
        log.error("pod %s/%s: %s", pod.metadata.namespace, pod.metadata.name, doing, exc_info=error)
        self._counters.add(UNEXPECTED, doing=doing)
        return self.delay(key)

    def delay(self, key: str) -> float:
        """Seconds until the next attempt at ``key``, more each time."""
        backoff = self._backoffs.get(key)
        if backoff is None:
            backoff = self._backoffs[key] = Backoff(self._world, first=FIRST, most=MAX)
        return backoff.next()

    def over(self, key: str) -> None:
        """It worked."""
        self._backoffs.pop(key, None)


def tell_sync_failed(events: EventRecorder, pod: core_v1.Pod, error: BaseException) -> None:
    """The event of a worker that failed as a whole."""
    events.event(pod, "Warning", "FailedSync", f"Error syncing pod: {words(error)}")
