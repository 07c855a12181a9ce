"""Durations as kubectl shows them (``AGE 3d4h``) and as Go writes them (``1h30m``): pure text, no clock."""

from __future__ import annotations

import re

from navarch.api.times import parse_time

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Seconds of a Go duration: ``1h30m``, ``40s``, ``100ms``, ``0``. Raises ValueError."""
    if text in ("0", "+0", "-0"):
        return 0.0
    body = text.lstrip("+-")
    if not body or _DURATION.sub("", body):
        raise ValueError(f"invalid duration {text!r}")
    total = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(body))
    return -total if text.startswith("-") else total


def human_duration(seconds: float) -> str:
    """The age of something in at most two units, coarser the older it is (apimachinery's HumanDuration)."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    minutes, hours = whole // 60, whole // 3600
    days, years = hours // 24, hours // 24 // 365
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return _two(days, "d", hours % 24, "h")
    if years < 2:
        return f"{days}d"
    if years < 8:
        return _two(years, "y", days % 365, "d")
    return f"{years}y"


def _two(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"


def age(timestamp: str | None, now: float) -> str:
    """How long ago an API time was, ``<unknown>`` if there is none."""
    return human_duration(now - parse_time(timestamp)) if timestamp else "<unknown>"
