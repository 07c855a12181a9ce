"""RFC 3339 times as the API writes them, to and from Unix seconds. Reads no clock."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def format_time(seconds: float) -> str:
    """metav1.Time: whole seconds, UTC."""
    return _format_seconds(int(seconds))


@lru_cache(maxsize=64)
def _format_seconds(seconds: int) -> str:
    return text_of(datetime.fromtimestamp(seconds, UTC))


def text_of(moment: datetime, micro: bool = False) -> str:
    """A time in UTC as text, with six decimals if ``micro``. strftime writes the year 1 as ``1``, which no client reads."""
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds" if micro else "seconds") + "Z"


def format_micro(seconds: float) -> str:
    """metav1.MicroTime: six decimals, UTC."""
    return text_of(datetime.fromtimestamp(seconds, UTC), micro=True)


def parse_time(text: str) -> float:
    """Unix seconds of an RFC 3339 time. Raises ValueError."""
    return datetime.fromisoformat(text).timestamp()
