"""Schedules as CronJobs write them: five fields (minute, hour, day of month, month, day of week), names, steps, ranges,
and the words @hourly ... @every 1h30m. What is accepted, refused and said is what the Go library behind Kubernetes does.

A :class:`Schedule` is pure: :meth:`Schedule.next` gives the first time after a given one, in a time zone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from navarch.api.durations import DurationError, parse_duration

MONTHS = {m: i for i, m in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)}
DAYS = {d: i for i, d in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = ((0, 59, {}), (0, 23, {}), (1, 31, {}), (1, 12, MONTHS), (0, 6, DAYS))
WORDS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
EVERY = "@every "
YEARS = 5  # a schedule that matches nothing for so long (30 February) never will


class CronError(ValueError):
    """Not a schedule; the message is the one that Kubernetes shows."""


@dataclass(frozen=True)
class Schedule:
    """The values that each field allows; ``every`` above 0 is a plain interval in seconds instead."""

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    any_day: bool = False  # the day of month is "*"
    any_weekday: bool = False
    every: float = 0

    def _on(self, day: datetime) -> bool:
        """Where both kinds of day are restricted, either is enough (as cron has it)."""
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_month and by_week if self.any_day or self.any_weekday else by_month or by_week

    def next(self, after: float, zone: tzinfo) -> float | None:
        """The first time after ``after`` (both seconds since the epoch), None if there is none within five years."""
        if self.every:
            return float(int(after)) + self.every
        begin = int(after) // 60 * 60 + 60
        day = datetime.fromtimestamp(begin, zone).replace(hour=0, minute=0, second=0, microsecond=0)
        for _ in range(366 * YEARS):
            if self._on(day):
                moment = self._within(day, begin, zone)
                if moment is not None:
                    return float(moment)
            day = (day.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=zone)
        return None

    def _within(self, day: datetime, begin: int, zone: tzinfo) -> int | None:
        """The first match of the day from ``begin`` on. Goes through real minutes, so a clock change neither loses a
        time that exists nor invents one that does not."""
        at = max(begin, int(day.timestamp()))
        while True:
            local = datetime.fromtimestamp(at, zone)
            if local.date() != day.date():
                return None
            if local.hour not in self.hours:
                at += 3600 - local.minute * 60
            elif local.minute not in self.minutes:
                at += 60
            else:
                return at


def parse(text: str) -> Schedule:
    """The schedule of a CronJob. Raises CronError."""
    if not text:
        raise CronError("empty spec string")
    if text.startswith("@"):
        return _word(text)
    fields = text.split()
    if len(fields) != 5:
        raise CronError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    sets = [_field(field, *bounds) for field, bounds in zip(fields, FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = (values for values, _ in sets)
    return Schedule(minutes, hours, days, months, weekdays, any_day=sets[2][1], any_weekday=sets[4][1])


def _word(text: str) -> Schedule:
    if text in WORDS:
        return parse(WORDS[text])
    if text.startswith(EVERY):
        try:
            seconds = parse_duration(text[len(EVERY) :])
        except DurationError as error:
            raise CronError(f"failed to parse duration {text}: {error}") from None
        return Schedule(every=max(1.0, float(int(seconds))))
    raise CronError(f"unrecognized descriptor: {text}")


def _field(text: str, low: int, high: int, words: dict[str, int]) -> tuple[frozenset[int], bool]:
    """The values, and whether one of the parts was a plain star."""
    out: list[int] = []
    star = False
    for part in text.split(","):
        if part:
            values, starred = _part(part, low, high, words)
            out += values
            star = star or starred
    return frozenset(out), star


def _part(text: str, low: int, high: int, words: dict[str, int]) -> tuple[range, bool]:
    """``number``, ``number-number``, ``*``, each with ``/step``."""
    span, *steps = text.split("/")
    ends = span.split("-")
    star = ends[0] in ("*", "?")
    if star:
        start, end = low, high
    else:
        start = _number(ends[0], words)
        end = start
        if len(ends) == 2:
            end = _number(ends[1], words)
        elif len(ends) > 2:
            raise CronError(f"too many hyphens: {text}")
    step = 1
    if len(steps) == 1:
        step = _number(steps[0], {})
        if not star and len(ends) == 1:
            end = high  # N/step means N-max/step
        star = star and step <= 1
    elif steps:
        raise CronError(f"too many slashes: {text}")
    if start < low:
        raise CronError(f"beginning of range ({start}) below minimum ({low}): {text}")
    if end > high:
        raise CronError(f"end of range ({end}) above maximum ({high}): {text}")
    if start > end:
        raise CronError(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if step == 0:
        raise CronError(f"step of range should be a positive number: {text}")
    return range(start, end + 1, step), star


def _number(text: str, words: dict[str, int]) -> int:
    if text.lower() in words:
        return words[text.lower()]
    if not re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII):
        raise CronError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    if int(text) < 0:
        raise CronError(f"negative number ({int(text)}) not allowed: {text}")
    return int(text)
