"""A histogram whose samples lose half of their weight each half-life: pure.

Buckets grow by 5 % each, as in Kubernetes' recommender: bucket n begins at first * (1.05^n - 1) / 0.05. Instead of making all
old weights smaller all the time, new ones are made larger; the reference time moves on before numbers grow too large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RATIO = 1.05
MAX_EXPONENT = 100.0
"""Half-lives from the reference time to a sample, at most."""
SHARES = 10_000
"""A saved weight is a whole number; the largest one is this."""


@dataclass(frozen=True)
class Scale:
    """``first``: the width of the first bucket; ``most``: the largest value that is told from larger ones."""

    first: float
    most: float
    half_life: float = 86_400.0  # seconds
    least: float = 0.001  # a smaller weight, as of now, is none

    @property
    def buckets(self) -> int:
        return self.bucket(self.most, bounded=False) + 1

    def bucket(self, value: float, bounded: bool = True) -> int:
        if value < self.first:
            return 0
        number = int(math.log(value * (RATIO - 1) / self.first + 1) / math.log(RATIO))
        return min(number, self.buckets - 1) if bounded else number

    def start(self, number: int) -> float:
        """The least value of a bucket."""
        return self.first * (RATIO**number - 1) / (RATIO - 1)


CPU = Scale(0.01, 1000.0)
"""Cores."""
MEMORY = Scale(1e7, 1e12)
"""Bytes."""


class Histogram:
    """Times are in seconds since the epoch."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._weights: dict[int, float] = {}  # by bucket, as of the reference time
        self._reference = 0.0

    def add(self, value: float, weight: float, time: float) -> None:
        bucket, weight = self.scale.bucket(value), weight * self._factor(time)
        self._weights[bucket] = self._weights.get(bucket, 0.0) + weight

    def subtract(self, value: float, weight: float, time: float) -> None:
        """Takes an earlier sample away."""
        bucket, weight = self.scale.bucket(value), weight * self._factor(time)
        rest = self._weights.get(bucket, 0.0) - weight
        if rest > weight * 1e-9:  # rounding leaves no ghosts
            self._weights[bucket] = rest
        else:
            self._weights.pop(bucket, None)

    def total(self, now: float) -> float:
        """The weight of all samples as of now."""
        factor = self._factor(now)  # which may make all weights smaller
        return sum(self._weights.values()) / factor

    def percentile(self, share: float, now: float) -> float:
        """The end of the bucket up to which this share of the weight lies; of the last bucket its start. 0 without samples."""
        least = self.scale.least * self._factor(now)
        weights = [(bucket, weight) for bucket, weight in sorted(self._weights.items()) if weight >= least]
        if not weights:
            return 0.0
        goal, sum_ = share * sum(weight for _, weight in weights), 0.0
        number = weights[-1][0]
        for bucket, weight in weights:
            sum_ += weight
            if sum_ >= goal * (1 - 1e-12):
                number = bucket
                break
        return self.scale.start(number + 1 if number < self.scale.buckets - 1 else number)

    def _factor(self, time: float) -> float:
        """How much larger than at the reference time a weight is that is added at ``time``."""
        if not self._weights:
            self._reference = time
        exponent = (time - self._reference) / self.scale.half_life
        if exponent > MAX_EXPONENT:
            whole = math.floor(exponent)
            shrunk = {bucket: math.ldexp(weight, -whole) for bucket, weight in self._weights.items()}
            self._weights = {bucket: weight for bucket, weight in shrunk.items() if weight > 0}
            self._reference += whole * self.scale.half_life
            exponent -= whole
        return float(2.0 ** max(exponent, -MAX_EXPONENT))

    def save(self, now: float) -> dict[str, Any]:
        """``bucketWeights`` by bucket, in parts of the largest one; ``totalWeight`` as of now."""
        largest = max(self._weights.values(), default=0.0)
        shares = {bucket: round(SHARES * weight / largest) for bucket, weight in sorted(self._weights.items())}
        return {"bucketWeights": {str(b): s for b, s in shares.items() if s}, "totalWeight": self.total(now)}

    @classmethod
    def load(cls, scale: Scale, saved: Mapping[str, Any], time: float) -> Histogram:
        """Restores from what :meth:`save` returned at ``time``. Raises ValueError, TypeError."""
        out = cls(scale)
        shares = {int(bucket): float(share) for bucket, share in (saved.get("bucketWeights") or {}).items()}
        total = float(saved.get("totalWeight") or 0.0)
        sum_ = sum(shares.values())
        if any(not 0 <= b < scale.buckets for b in shares) or not all(0 <= v < math.inf for v in (total, *shares.values())):
            raise ValueError("buckets or weights out of range")
        if sum_ > 0 and total > 0:
            out._reference = time
            out._weights = {bucket: share * total / sum_ for bucket, share in shares.items() if share > 0}
        return out
