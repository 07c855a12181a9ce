"""Requests to a service of simulated pods: who gets each of them, and how long the answer takes.

A request comes through one node's proxy: of a Ready node at random, or of the node that ``from`` names. The proxy chooses at
random among the endpoints that it knows: those of the EndpointSlices ``programming`` ago, a time that is drawn for each node
and change if it is a distribution. A node that is cut off learns of no change. With ``connections: kept`` each of ``clients``
keeps its connection to one pod, whatever becomes of the endpoints, until a request on it fails.

A pod works on one request after another, each for an exponential time whose mean is one over ``capacity``; a request that
comes meanwhile waits. ``latency`` is the way there and back, which keeps no other request waiting. A try fails at once if no
endpoint is known; after ``latency`` if its pod does not run (any more), or serves nothing yet (annotation
``lab.navarch.dev/serves-after``, seconds since it runs: readiness that lies); after ``timeout`` if the answer would take longer
(then the pod does no work for it), or if node or pod cannot be reached. It is tried again ``backoff`` later, ``retries`` times.

The rate of requests is a text: ``20/s``, ``12/min``, ``100/h``, or a shape

    step(20/s, 60s, 100/s, 120s, 40/s)   20 a second, 100 from second 60 on, 40 from second 120 on
    ramp(10/s, 100/s, 60s)               grows evenly for 60 s, and stays
    sine(50/s, 30/s, 10m)                mean, amplitude, period
    trace(file.csv)                      columns time and rate; each holds until the next
"""

from __future__ import annotations

import csv
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nodeagent.runtime.spread import seconds

SERVES_AFTER = "lab.navarch.dev/serves-after"
STEP = 1.0  # seconds in one sample
BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Rate(NamedTuple):
    """Requests a second at a time, which is never above ``peak``."""

    peak: float
    at: Callable[[float], float]


_PER = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_SHAPE = re.compile(r"\s*([a-z]+)\s*\((.*)\)\s*", re.DOTALL)


def per_second(value: object) -> float:
    """Of ``20/s``, ``12/min``, ``100/h``, a number a second. Raises ValueError."""
    number, slash, per = str(value).strip().partition("/")
    try:
        rate = float(number) / (_PER[per.strip()] if slash else 1.0)
    except (ValueError, KeyError):
        rate = -1.0
    if not 0 <= rate < math.inf:
        raise ValueError(f"{value!r} is no rate such as 20/s, 12/min, 100/h")
    return rate


def rate(value: object) -> Rate:
    """Reads a rate or a shape. Raises ValueError."""
    shape = _SHAPE.fullmatch(str(value))
    if shape is None:
        constant = per_second(value)
        if not constant:
            raise ValueError(f"{value!r}: a rate must be above 0")
        return Rate(constant, lambda time: constant)
    name, parts = shape[1], [p.strip() for p in shape[2].split(",")]
    if name == "step" and len(parts) % 2:
        first, times, later = per_second(parts[0]), list(map(seconds, parts[1::2])), list(map(per_second, parts[2::2]))
        if times != sorted(times):
            raise ValueError(f"{value!r}: the times must grow")
        levels = [first, *later]
        return Rate(max(levels), lambda time: levels[bisect_right(times, time)])
    if name == "ramp" and len(parts) == 3:
        low, high, length = per_second(parts[0]), per_second(parts[1]), seconds(parts[2])
        return Rate(max(low, high), lambda time: low + (high - low) * min(1.0, time / length if length else 1.0))
    if name == "sine" and len(parts) == 3:
        mean, amplitude, period = per_second(parts[0]), per_second(parts[1]), seconds(parts[2])
        if amplitude > mean or not period:
            raise ValueError(f"{value!r}: the amplitude must not be above the mean, and the period not 0")
        return Rate(mean + amplitude, lambda time: mean + amplitude * math.sin(2 * math.pi * time / period))
    shapes = "step(rate, time, rate, ...), ramp(from, to, time), sine(mean, amplitude, period), trace(file)"
    raise ValueError(f"{value!r} is no shape of a load: {shapes}")


def shape_of(path: Path) -> str:
    """The shape that a file with the columns time and rate describes. Raises OSError, ValueError."""
    with path.open(newline="") as file:
        try:
            points = [(seconds(row["time"]), per_second(row["rate"])) for row in csv.DictReader(file)]
        except KeyError as error:
            raise ValueError(f"{path.name} has no column {error.args[0]}") from error
    if not points:
        raise ValueError(f"{path.name} has no rows")
    head = [f"{points[0][1]:.9g}"] if points[0][0] == 0 else ["0", f"{points[0][0]:.9g}s", f"{points[0][1]:.9g}"]
    return f"step({', '.join([*head, *(part for at, r in points[1:] for part in (f'{at:.9g}s', f'{r:.9g}'))])})"


def sample(latencies: Sequence[float | None], retries: int = 0) -> Mapping[str, float]:
    """The record of the requests of one step: counts, and a histogram of latencies by their upper bounds."""
    answered = [value for value in latencies if value is not None]
    out: dict[str, float] = {"sent": len(latencies), "ok": len(answered), "failed": len(latencies) - len(answered)}
    if retries:
        out["retries"] = retries
    for value in answered:
        name = f"le_{next((b for b in BOUNDS if value <= b), BOUNDS[-1])}"
        out[name] = out.get(name, 0) + 1
    return dict(sorted(out.items()))
