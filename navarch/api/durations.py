"""Durations as kubectl shows them (``AGE 3d4h``) and as Go writes them (``1h30m``): pure text, no clock."""

from __future__ import annotations

import re

from navarch.api.times import parse_time

_UNITS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")
MAX_NANOSECONDS = 2**63 - 1  # some 292 years


class DurationError(ValueError):
    """Not a duration; the message is Go's."""


def parse_nanoseconds(text: str) -> int:
    """A duration as Go's time.ParseDuration reads it: ``1h30m``, ``-1.5h``, ``100ms``, ``0``. Raises DurationError."""
    body = text[1:] if text[:1] in ("-", "+") else text
    if body == "0":
        return 0
    at, total = 0, 0
    while at < len(body):
        part = _PART.match(body, at)
        assert part is not None  # it matches anything
        whole, fraction, unit = part[1], part[2] or "", part[3]
        if not whole and not fraction:
            break
        if not unit:
            raise DurationError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise DurationError(f'time: unknown unit "{unit}" in duration "{text}"')
        total += int(whole or "0") * _UNITS[unit] + int(fraction or "0") * _UNITS[unit] // 10 ** len(fraction)
        at = part.end()
    if at < len(body) or not body or total > MAX_NANOSECONDS + text.startswith("-"):
        raise DurationError(f'time: invalid duration "{text}"')
    return -total if text.startswith("-") else total


def parse_duration(text: str) -> float:
    """Seconds of a Go duration. Raises DurationError."""
    return parse_nanoseconds(text) / 10**9


def parse_seconds(text: str) -> float:
    """Seconds of a Go duration, or of a plain number: ``2m``, ``12``, ``1.5``. Raises DurationError."""
    if re.fullmatch(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)", text):
        return float(text)
    return parse_duration(text)


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


def as_duration(seconds: int) -> float:
    """Seconds that Go's time.Duration of so many seconds lasts: it counts nanoseconds in 64 bits, and what is more than 292
    years wraps around. The API takes such a grace period, and a date far beyond year 9999 cannot be written."""
    wrapped = (seconds * 10**9 + (1 << 63)) % (1 << 64) - (1 << 63)
    return wrapped / 10**9
