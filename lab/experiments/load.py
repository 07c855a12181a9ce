"""Requests to a service of simulated pods: who gets each of them, and how long the answer takes.

The proxies choose at random among the endpoints that they know, which is what the EndpointSlices said ``programming`` seconds
ago. A pod answers one request after another: each takes it ``latency``, plus an exponential time whose mean is one over
``capacity``; who comes while it is busy waits. A request fails if no endpoint is known, if its pod does not run (any more), if
the pod serves nothing yet (annotation ``lab.navarch.dev/serves-after``, seconds since it runs: readiness that lies), or if the
answer takes longer than ``timeout``.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

SERVES_AFTER = "lab.navarch.dev/serves-after"
STEP = 1.0  # seconds in one sample
BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


@dataclass
class Model:
    """The queues of one service. Times in seconds; ``serving(uid)`` says since when a pod can answer, None if it cannot."""

    chance: random.Random
    timeout: float
    latency: float
    capacity: float
    programming: float
    serving: Callable[[str, float], float | None]
    _programmed: deque[tuple[float, tuple[str, ...]]] = field(default_factory=deque)
    _free: dict[str, float] = field(default_factory=dict)  # by uid: when its queue is empty

    def endpoints(self, at: float, uids: Sequence[str]) -> None:
        """From ``at`` on the API server says that these pods are the service's endpoints."""
        self._programmed.append((at + self.programming, tuple(uids)))

    def request(self, at: float) -> float | None:
        """One request; how long its answer takes, or None if it fails."""
        while len(self._programmed) > 1 and self._programmed[1][0] <= at:
            self._programmed.popleft()
        if not self._programmed or self._programmed[0][0] > at or not self._programmed[0][1]:
            return None
        uid = self._programmed[0][1][self.chance.randrange(len(self._programmed[0][1]))]
        work = self.latency + self.chance.expovariate(self.capacity)
        since = self.serving(uid, at)
        if since is None or since > at:
            return None
        begins = max(at, self._free.get(uid, 0.0))
        if begins + work - at > self.timeout:
            return None
        self._free[uid] = begins + 1 / self.capacity if work < 1 / self.capacity else begins + work
        return begins + work - at


def sample(latencies: Sequence[float | None]) -> Mapping[str, float]:
    """The record of the requests of one step: counts, and a histogram of latencies by their upper bounds."""
    answered = [value for value in latencies if value is not None]
    out: dict[str, float] = {"sent": len(latencies), "ok": len(answered), "failed": len(latencies) - len(answered)}
    for value in answered:
        name = f"le_{next((b for b in BOUNDS if value <= b), BOUNDS[-1])}"
        out[name] = out.get(name, 0) + 1
    return dict(sorted(out.items()))
