"""Cron schedules: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from navarch.api.cron import CronError, parse


def next_of(text: str, after: str, zone: str = "UTC") -> str:
    tz = ZoneInfo(zone)
    found = parse(text).next(datetime.fromisoformat(after).replace(tzinfo=tz).timestamp(), tz)
    return "" if found is None else datetime.fromtimestamp(found, tz).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("* * * * *", "2026-01-01 00:00:30", "2026-01-01 00:01"),
        ("*/15 * * * *", "2026-01-01 00:45", "2026-01-01 01:00"),
        ("0 9-17/4 * * mon-fri", "2026-01-02 13:00", "2026-01-02 17:00"),
        ("0 0 13 * 5", "2026-02-13 00:00", "2026-02-20 00:00"),  # either day is enough
        ("0 0 */2 * mon", "2026-01-01 00:00", "2026-01-03 00:00"),  # a step is no star: either day again
        ("30 4 1,15 6 *", "2026-01-01 00:00", "2026-06-01 04:30"),
        ("0 0 29 2 *", "2026-01-01 00:00", "2028-02-29 00:00"),
        ("0 0 30 2 *", "2026-01-01 00:00", ""),
        ("@weekly", "2026-01-01 00:00", "2026-01-04 00:00"),
        ("@every 1h30m", "2026-01-01 00:00", "2026-01-01 01:30"),
    ],
)
def test_next(text: str, after: str, expected: str) -> None:
    assert next_of(text, after) == expected


def test_clocks_that_change() -> None:
    assert next_of("30 2 * * *", "2026-03-28 12:00", "Europe/Zurich") == "2026-03-30 02:30"  # no 02:30 on the 29th
    first = parse("30 2 * * *").next(datetime(2026, 10, 24, 12, tzinfo=UTC).timestamp(), ZoneInfo("Europe/Zurich"))
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("a * * * *", 'failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax'),
        ("@often", "unrecognized descriptor: @often"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(CronError) as error:
        parse(text)
    assert str(error.value) == message
