"""How the server's seats are divided among priority levels: by shares, and by lending what one does not need. Pure.

A level has a nominal share. Part of it, it lends; so it never has less than the rest. What it may borrow can be limited.
Every ten seconds the seats are dealt anew, after what each level needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

PERIOD = 10.0  # seconds between two rounds of borrowing
SMOOTHING = 0.977  # how much of the old demand stays in each round: half of it is gone after five minutes
MIN_TARGET = 1e-9  # seats; below it a target is none: a bound divided by it is no finite fraction


class Share(NamedTuple):
    """A level's part in its configuration. ``borrowing`` None: without limit."""

    shares: int
    lendable: int = 0  # percent
    borrowing: int | None = None  # percent


class Limits(NamedTuple):
    """Seats: what a level has by its share, what it keeps in any case, and the most it can get."""

    nominal: int
    lower: int
    upper: int


def limits(shares: Mapping[str, Share], total: int) -> dict[str, Limits]:
    """Divides ``total`` seats by share."""
    whole = sum(s.shares for s in shares.values()) or 1
    nominal = {name: math.ceil(total * s.shares / whole) for name, s in shares.items()}
    most = sum(nominal.values())
    out = {}
    for name, share in shares.items():
        own = nominal[name]
        lower = own - _rounded(own * share.lendable / 100)
        upper = most if share.borrowing is None else own + _rounded(own * share.borrowing / 100)
        out[name] = Limits(own, lower, upper)
    return out


def _rounded(value: float) -> int:
    """Halves go up, as Kubernetes has it."""
    return math.floor(value + 0.5)


class Demand:
    """How many seats a level wanted over one period: those that run and those that wait."""

    __slots__ = ("_area", "_last", "_since", "_squares", "highest", "now")

    def __init__(self, at: float) -> None:
        self.now = 0
        self.highest = 0
        self._since = self._last = at
        self._area = self._squares = 0.0

    def change(self, by: int, at: float) -> None:
        now = self.now
        if now:
            passed = at - self._last
            self._area += now * passed
            self._squares += now * now * passed
        self._last = at
        self.now = now = now + by
        if now > self.highest:
            self.highest = now

    def end_period(self, at: float) -> tuple[float, float, int]:
        """Mean, standard deviation and maximum since the last call; a new period begins."""
        self.change(0, at)
        passed = at - self._since
        mean = self._area / passed if passed > 0 else float(self.now)
        spread = math.sqrt(max(0.0, self._squares / passed - mean * mean)) if passed > 0 else 0.0
        highest, self.highest = self.highest, self.now
        self._since, self._area, self._squares = at, 0.0, 0.0
        return mean, spread, highest


def smoothed(before: float, mean: float, spread: float) -> float:
    """Demand that rises at once and falls slowly."""
    demand = mean + spread
    return max(demand, SMOOTHING * before + (1 - SMOOTHING) * demand)


class Claim(NamedTuple):
    """Bounds and target of a level's share: it lies between the bounds, and in proportion to the target."""

    lower: float
    upper: float
    target: float


def claim(own: Limits, highest: float, smooth: float) -> Claim:
    """A level's claim in a round: what it needed lately, up to its nominal share, it gets in any case."""
    lower = max(own.lower, min(own.nominal, highest))
    return Claim(lower, max(own.upper, lower), max(lower, smooth))


def allocate(claims: Sequence[Claim], total: float) -> tuple[list[float], float]:
    """Divides ``total``: each gets the same fraction of its target, within its bounds. The parts, and the fraction.

    Where the bounds leave no choice the parts are the bounds.
    """
    if not claims:
        return [], 0.0
    if total <= sum(c.lower for c in claims):
        return [c.lower for c in claims], 0.0
    if total >= sum(c.upper for c in claims):
        return [c.upper for c in claims], max((c.upper / c.target for c in claims if c.target > MIN_TARGET), default=0.0)
    # The sum of the parts grows with the fraction, in straight pieces between the points where a bound is reached.
    points = sorted({bound / c.target for c in claims if c.target > MIN_TARGET for bound in (c.lower, c.upper)})
    low, low_sum = 0.0, _sum(claims, 0.0)
    for high in points:
        high_sum = _sum(claims, high)
        if high_sum >= total:
            slope = (high_sum - low_sum) / (high - low) if high > low else 0.0
            fraction = low + (total - low_sum) / slope if slope > 0 else high
            return [_part(c, fraction) for c in claims], fraction
        low, low_sum = high, high_sum
    # Levels without any target are all that is left to take the rest.
    parts = [_part(c, low) for c in claims]
    for i, c in enumerate(claims):
        more = min(total - sum(parts), c.upper - parts[i])
        parts[i] += max(0.0, more)
    return parts, low


def _part(c: Claim, fraction: float) -> float:
    return max(c.lower, min(c.upper, fraction * c.target))


def _sum(claims: Sequence[Claim], fraction: float) -> float:
    return sum(_part(c, fraction) for c in claims)
