"""Go's durations, and every other form of them that the API knows."""

from __future__ import annotations

import pytest

from apiserver.crd import formats
from navarch.api.durations import DurationError, as_duration, parse_duration, parse_nanoseconds, parse_seconds


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0), ("-0", 0), ("+0", 0), ("1h30m", 5400 * 10**9), ("1.5h", 5400 * 10**9), (".5s", 5 * 10**8),
        ("1.s", 10**9), ("-1m", -60 * 10**9), ("+5s", 5 * 10**9), ("1us", 1000), ("1µs", 1000), ("1μs", 1000),
        ("3.000000001s", 3 * 10**9 + 1), ("0s", 0), ("9223372036854775807ns", 2**63 - 1),
        ("-9223372036854775808ns", -(2**63)),
    ],
)  # fmt: skip
def test_durations(text: str, nanoseconds: int) -> None:
    assert parse_nanoseconds(text) == nanoseconds
    assert parse_duration(text) == pytest.approx(nanoseconds / 10**9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("soon", 'time: invalid duration "soon"'),
        ("-", 'time: invalid duration "-"'),
        (".s", 'time: invalid duration ".s"'),
        ("1.5.5s", 'time: missing unit in duration "1.5.5s"'),
        ("3", 'time: missing unit in duration "3"'),
        ("1h30", 'time: missing unit in duration "1h30"'),
        ("3d", 'time: unknown unit "d" in duration "3d"'),
        ("1h 30m", 'time: unknown unit "h " in duration "1h 30m"'),
        ("1\u0663s", 'time: unknown unit "\u0663s" in duration "1\u0663s"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
    ],
)
def test_what_is_none_is_told_in_go_s_words(text: str, message: str) -> None:
    with pytest.raises(DurationError) as error:
        parse_nanoseconds(text)
    assert str(error.value) == message


def test_plain_seconds_where_they_are_allowed() -> None:
    assert [parse_seconds(t) for t in ("12", "1.5", "-1", "2m", "0")] == [12, 1.5, -1, 120, 0]
    for text in ("", "x", "1e3", "nan"):
        with pytest.raises(DurationError):
            parse_seconds(text)


def test_schemas_have_words_too() -> None:
    day = 86400 * 10**9
    assert formats.duration("3 days 2 hours") == 3 * day + 7200 * 10**9
    assert formats.duration("2w") == 14 * day and formats.duration("1d") == day
    assert formats.duration("1h30m") == 5400 * 10**9 and formats.duration("-1.5h") == -5400 * 10**9
    for text in ("soon", "", "3 fortnights"):
        with pytest.raises(ValueError, match="unable to parse"):
            formats.duration(text)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, 0), (30, 30), (-1, -1), (9223372036, 9223372036), (9223372037, -9223372036.709552), (2**63 - 1, -1), (-(2**63), 0),
     (18446744074, 0.290448384), (10**18, -6930898828)],
)  # fmt: skip
def test_durations_wrap_as_go_does(seconds: int, expected: float) -> None:
    assert as_duration(seconds) == pytest.approx(expected, rel=1e-9)
