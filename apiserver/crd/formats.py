"""The formats of strings that schemas can ask for. A format that is not listed here is not looked at."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime
from urllib.parse import urlsplit

from navarch.api import names
from navarch.api.durations import DurationError, parse_nanoseconds


def _matches(pattern: str) -> Callable[[str], bool]:
    match = re.compile(pattern, re.ASCII).fullmatch
    return lambda text: match(text) is not None


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _date(text: str) -> date:
    if len(text) != 10:
        raise ValueError(text)
    return date.fromisoformat(text)


_instant = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[-+]\d\d:\d\d)?").fullmatch


def _datetime(text: str) -> datetime:
    if not _instant(text):
        raise ValueError(text)
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.upper().replace(" ", "T")))


def _uri(text: str) -> None:
    parts = urlsplit(text)
    if not (parts.scheme or text.startswith("/")) or " " in text:
        raise ValueError(text)


_SECOND = 10**9
_UNITS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (1, ("ns", "nano")), (10**3, ("us", "µs", "micro")), (10**6, ("ms", "milli")), (_SECOND, ("s", "sec")),
    (60 * _SECOND, ("m", "min")), (3600 * _SECOND, ("h", "hr", "hour")), (86400 * _SECOND, ("d", "day")),
    (7 * 86400 * _SECOND, ("w", "wk", "week")),
)  # fmt: skip
_AMOUNT = re.compile(r"([0-9]+)\s*([A-Za-zµ]+)")


def duration(text: str) -> int:
    """Nanoseconds of a value of the format "duration": Go's, or numbers with words such as "3 days 2 hours", as strfmt
    (kube-openapi) reads them: what it does not understand between them it passes over. Raises ValueError."""
    with suppress(DurationError):
        return parse_nanoseconds(text)
    amounts = []
    for number, unit in _AMOUNT.findall(text):
        word = unit.lower()
        amounts += [int(number) * size for size, names in _UNITS if word in names or word.startswith(names[-1])]
    if not amounts:
        raise ValueError(f"unable to parse {text} as duration")
    return sum(amounts)


def _uuid(version: str) -> Callable[[str], bool]:
    variant = "[0-9a-f]" if version == "[0-9a-f]" else "[89ab0-9a-f]"
    return _matches(rf"(?i)[0-9a-f]{{8}}-?[0-9a-f]{{4}}-?{version}[0-9a-f]{{3}}-?{variant}[0-9a-f]{{3}}-?[0-9a-f]{{12}}")


def _luhn(text: str) -> bool:
    digits = [int(c) for c in re.sub(r"[ -]", "", text) if c.isdigit()]
    if not 12 < len(digits) < 20:
        return False
    total = sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(reversed(digits)))
    return total % 10 == 0


def _isbn10(text: str) -> bool:
    body = re.sub(r"[ -]", "", text)
    if not re.fullmatch(r"\d{9}[\dX]", body):
        return False
    return sum((10 - i) * (10 if c == "X" else int(c)) for i, c in enumerate(body)) % 11 == 0


def _isbn13(text: str) -> bool:
    body = re.sub(r"[ -]", "", text)
    return bool(re.fullmatch(r"\d{13}", body)) and sum(int(c) * (3 if i % 2 else 1) for i, c in enumerate(body)) % 10 == 0


_PART = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_hostname = _matches(rf"(?=.{{1,255}}$){_PART}(\.{_PART})*\.?")

FORMATS: dict[str, Callable[[str], bool]] = {
    "date": _parses(_date),
    "date-time": _parses(_datetime),
    "datetime": _parses(_datetime),
    "duration": _parses(duration),
    "uri": _parses(_uri),
    "email": _matches(r"[^@\s]+@[A-Za-z0-9.-]+"),
    "hostname": _hostname,
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": lambda text: "/" in text and _parses(lambda t: ipaddress.ip_network(t, strict=False))(text),
    "mac": _matches(r"([0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}(([:-][0-9A-Fa-f]{2}){2})?|[0-9A-Fa-f]{4}(\.[0-9A-Fa-f]{4}){2,3})"),
    "bsonobjectid": _matches(r"[0-9a-fA-F]{24}"),
    "uuid": _uuid("[0-9a-f]"),
    "uuid3": _uuid("3"),
    "uuid4": _uuid("4"),
    "uuid5": _uuid("5"),
    "isbn": lambda text: _isbn10(text) or _isbn13(text),
    "isbn10": _isbn10,
    "isbn13": _isbn13,
    "creditcard": _luhn,
    "ssn": _matches(r"\d{3}[- ]?\d{2}[- ]?\d{4}"),
    "hexcolor": _matches(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
    "rgbcolor": _matches(r"rgb\(\s*\d{1,3}%?\s*,\s*\d{1,3}%?\s*,\s*\d{1,3}%?\s*\)"),
    "byte": _matches(r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"),
    "password": lambda text: True,
    "k8s-short-name": lambda text: not names.dns_label(text),
    "k8s-long-name": lambda text: not names.dns_subdomain(text),
}

RANGES: dict[str, tuple[float, float]] = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "float": (-3.4028234663852886e38, 3.4028234663852886e38),
}
"""Formats of numbers, and what they can hold."""
