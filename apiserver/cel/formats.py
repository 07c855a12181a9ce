"""Kubernetes' functions on named formats: ``format.dns1123Label().validate(text)`` gives what is wrong, if anything is.

Upstream's answer is an optional list. Here it is a list, empty for absent, that has ``hasValue()`` and ``value()``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import date, datetime
from urllib.parse import urlsplit

from navarch.api import names

_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _prefix(check: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """Lets a name end in a dash, as it may be the start of a longer one."""
    return lambda text: check(text[:-1] + "a" if text.endswith("-") else text)


def _reads(read: Callable[[str], object], word: str) -> Callable[[str], list[str]]:
    def check(text: str) -> list[str]:
        try:
            read(text)
        except (ValueError, binascii.Error):
            return [f"must be a valid {word}"]
        return []

    return check


def _date(text: str) -> date:
    if not _DATE.fullmatch(text):
        raise ValueError(text)
    return date.fromisoformat(text)


def _datetime(text: str) -> datetime:
    if "T" not in text.upper():
        raise ValueError(text)
    return datetime.fromisoformat(text.replace("Z", "+00:00").replace("z", "+00:00"))


def _uri(text: str) -> None:
    parts = urlsplit(text)
    if not text.startswith("/") and not (parts.scheme and (parts.netloc or parts.path)):
        raise ValueError(text)


CHECKS: dict[str, Callable[[str], list[str]]] = {
    "dns1123Label": names.dns_label,
    "dns1123Subdomain": names.dns_subdomain,
    "dns1035Label": names.dns1035,
    "qualifiedName": names.qualified_name,
    "dns1123LabelPrefix": _prefix(names.dns_label),
    "dns1123SubdomainPrefix": _prefix(names.dns_subdomain),
    "dns1035LabelPrefix": _prefix(names.dns1035),
    "labelValue": names.label_value,
    "uri": _reads(_uri, "URI"),
    "uuid": lambda text: [] if _UUID.fullmatch(text) else ["must be a valid UUID"],
    "byte": _reads(lambda text: base64.b64decode(text, validate=True), "base64 text"),
    "date": _reads(_date, "date"),
    "datetime": _reads(_datetime, "date and time"),
}


def named(name: str) -> dict[str, str]:
    """The format of that name; empty if there is none."""
    return {"format": name} if name in CHECKS else {}


def validate(kind: dict[str, str], text: str) -> list[str]:
    return CHECKS[kind["format"]](text)
