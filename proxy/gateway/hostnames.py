"""Names of hosts in listeners and routes: which of them meet, and which listener a name belongs to. Pure.

A wildcard stands for one label or more; "" for every name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

is_hostname = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*").fullmatch


def covers(wide: str, narrow: str) -> bool:
    """Every request for ``narrow`` is one for ``wide``."""
    if wide in ("", narrow):
        return True
    if not wide.startswith("*."):
        return False
    return narrow.removeprefix("*").endswith(wide[1:]) and len(narrow.removeprefix("*.")) > len(wide) - 2


def meet(one: str, other: str) -> str | None:
    """The names that both have, as one name; None if there are none."""
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def owner(host: str, names: Iterable[str]) -> str | None:
    """The most specific of the names that covers a host."""
    able = [name for name in names if covers(name, host)]
    return max(able, key=lambda name: (name == host, len(name)), default=None)
