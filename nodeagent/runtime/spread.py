"""Times that are not always the same: distributions, written as text and drawn from a seed.

    2s                          always so
    uniform(0.2s, 1s)           between the two
    normal(3s, 0.5s)            mean and standard deviation; never below 0
    lognormal(4s, 0.6)          median, and standard deviation of the logarithm
    exponential(2s)             mean
    choice(1s, 2s, 2s)          one of these, each as likely as another
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from navarch.api.durations import DurationError, parse_seconds

_CALL = re.compile(r"\s*([a-z]+)\s*\((.*)\)\s*")


def seconds(text: str) -> float:
    """``2s``, ``150ms``, ``1.5m``, ``1h`` or a plain number; finite and not negative. Raises ValueError."""
    text = text.strip()
    try:
        number = parse_seconds(text)
    except DurationError:
        raise ValueError(f"{text!r} is no time such as 2s, 150ms, 1.5m") from None
    if not 0 <= number < math.inf:
        raise ValueError(f"{text!r} is no time: it must not be negative")
    return number


def _number(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(f"{text!r} must not be negative")
    return number


def _lognormal(chance: random.Random, median: float, sigma: float) -> float:
    return median * math.exp(sigma * chance.gauss(0.0, 1.0))


# name -> how it is drawn, how its arguments are read, and what they are; one reader alone reads any number of them
_Draw = Callable[..., float]
KINDS: dict[str, tuple[_Draw, tuple[Callable[[str], float], ...], str]] = {
    "constant": (lambda chance, value: value, (seconds,), "constant(value)"),
    "uniform": (lambda chance, low, high: chance.uniform(low, high), (seconds, seconds), "uniform(low, high)"),
    "normal": (lambda chance, mean, sd: max(0.0, chance.gauss(mean, sd)), (seconds, seconds), "normal(mean, deviation)"),
    "lognormal": (_lognormal, (seconds, _number), "lognormal(median, sigma)"),
    "exponential": (lambda chance, mean: chance.expovariate(1 / mean) if mean else 0.0, (seconds,), "exponential(mean)"),
    "choice": (lambda chance, *values: chance.choice(values), (), "choice(value, ...)"),
}


@dataclass(frozen=True)
class Spread:
    """One distribution; ``arguments`` in seconds."""

    kind: str
    arguments: tuple[float, ...]

    def draw(self, chance: random.Random) -> float:
        return KINDS[self.kind][0](chance, *self.arguments)


def spread(text: str) -> float | Spread:
    """Reads a time or a distribution. Raises ValueError."""
    call = _CALL.fullmatch(text)
    if call is None:
        return seconds(text)
    name, inside = call.groups()
    if name not in KINDS:
        raise ValueError(f"there is no distribution {name!r}; known: {', '.join(k[2] for k in KINDS.values())}")
    _, readers, shape = KINDS[name]
    listed = [part for part in inside.split(",")] if inside.strip() else []
    if not listed or (readers and len(listed) != len(readers)):
        raise ValueError(f"{text!r}: expected {shape}")
    values = tuple(read(part) for read, part in zip(readers or [seconds] * len(listed), listed, strict=True))
    if name == "uniform" and values[0] > values[1]:
        raise ValueError(f"{text!r}: the first must not be above the second")
    return Spread(name, values)
