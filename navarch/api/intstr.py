"""Fields that hold a count or a share of one (IntOrString): ``3``, ``"25%"``."""

from __future__ import annotations

from navarch.api import names


def percent_of(value: object) -> int | None:
    """The number of percent; None for a count, and for what is neither."""
    return int(value[:-1]) if isinstance(value, str) and not names.percent(value) else None


def scaled_value(value: int | str | None, total: int, *, up: bool) -> int:
    """The count, or that share of ``total``, rounded up or down. None is 0. Raises ValueError for what is neither."""
    if not isinstance(value, str):
        return value or 0
    if not value.endswith("%"):
        raise ValueError(f"invalid value for IntOrString: {value!r} is not a percentage")
    exact = int(value[:-1]) * total
    return -(-exact // 100) if up else exact // 100
