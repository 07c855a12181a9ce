"""Queues of a service's pods, and what each node's proxy knows of its endpoints. Pure: times are told, in seconds.

See lab/experiments/load.py for the model in words.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nodeagent.runtime.spread import Spread

Delay = float | Spread


class Answer(NamedTuple):
    """``good``: it came in time, ``seconds`` after the request; else the client knew after so long that it failed."""

    good: bool
    seconds: float


class Proxies:
    """The endpoints by node. Each node's proxy learns of a change a delay later, drawn for each node and change; one that hears
    nothing learns nothing."""

    def __init__(self, delay: Delay, chance: Callable[[str], random.Random], hears: Callable[[str], bool]) -> None:
        self._delay, self._chance, self._hears = delay, chance, hears
        self._changes: list[tuple[float, tuple[str, ...]]] = []
        self._at: dict[str, tuple[int, float]] = {}  # by node: the change that it knows, and when it knows the next one

    def change(self, at: float, uids: Sequence[str]) -> None:
        """From ``at`` on the API server says that these pods are the service's endpoints."""
        self._changes.append((at, tuple(uids)))

    def endpoints(self, node: str, at: float) -> tuple[str, ...]:
        """The pods that a node's proxy knows. Times must not go back."""
        number, due = self._at.get(node, (-1, -1.0))
        hears = self._hears(node)
        while hears and number + 1 < len(self._changes):
            if due < 0:
                due = self._changes[number + 1][0] + self._drawn(node, number + 1)
            if due > at:
                break
            number, due = number + 1, -1.0
        self._at[node] = number, due
        return self._changes[number][1] if number >= 0 else ()

    def _drawn(self, node: str, number: int) -> float:
        delay = self._delay
        return delay.draw(self._chance(f"{node} {number}")) if isinstance(delay, Spread) else delay


class Queues:
    """One service's. ``serving(uid)`` says since when a pod can answer, None if it cannot; ``reached(node)``: whether
    requests reach a node at all; ``capacity(uid)``: requests a second."""

    def __init__(
        self, chance: random.Random, proxies: Proxies, timeout: float, latency: float, capacity: Callable[[str], float],
        serving: Callable[[str], float | None], reached: Callable[[str], bool], lost: Callable[[str], bool],
    ) -> None:  # fmt: skip
        self._chance, self.proxies, self._timeout, self._latency = chance, proxies, timeout, latency
        self._capacity, self._serving, self._reached, self._lost = capacity, serving, reached, lost
        self._free: dict[str, float] = {}  # by uid: when its queue is empty
        self._connections: dict[int, str] = {}  # by client: the pod at the end of its connection
        self.served: Counter[str] = Counter()
        """By uid: requests that were answered."""

    def request(self, at: float, node: str, client: int | None = None) -> Answer:
        """One try, through a node's proxy. A ``client`` with a number keeps its connection until that breaks."""
        if not self._reached(node):
            return self._broken(client, self._timeout)  # nobody answers
        uid = self._connections.get(client, "") if client is not None else ""
        if not uid:
            uids = self.proxies.endpoints(node, at)
            if not uids:
                return Answer(False, 0.0)  # refused at once
            uid = uids[self._chance.randrange(len(uids))]
        if self._lost(uid):
            return self._broken(client, self._timeout)
        since = self._serving(uid)
        if since is None or since > at:
            return self._broken(client, self._latency)
        work = self._chance.expovariate(self._capacity(uid))
        begins = max(at, self._free.get(uid, 0.0))
        takes = begins + work + self._latency - at
        if takes > self._timeout:
            return self._broken(client, self._timeout)
        self._free[uid] = begins + work
        self.served[uid] += 1
        if client is not None:
            self._connections[client] = uid
        return Answer(True, takes)

    def _broken(self, client: int | None, seconds: float) -> Answer:
        if client is not None:
            self._connections.pop(client, None)
        return Answer(False, min(seconds, self._timeout))
