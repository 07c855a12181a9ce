"""Kubernetes' functions on lists, and on texts by regular expressions (RE2, so that none takes for ever)."""

from __future__ import annotations

import itertools
import math
from typing import Any

from apiserver.cel.patterns import PatternError


def is_sorted(items: list[Any]) -> bool:
    return all(a <= b for a, b in itertools.pairwise(items))


def total(items: list[Any]) -> Any:
    return math.fsum(items) if any(isinstance(v, float) for v in items) else sum(items)


def index(items: list[Any], value: Any) -> int:
    return items.index(value) if value in items else -1


def last_index(items: list[Any], value: Any) -> int:
    return len(items) - 1 - items[::-1].index(value) if value in items else -1


def _search(pattern: str) -> Any:
    import re2

    try:
        return re2.compile(pattern)
    except re2.error as error:
        raise PatternError(str(error)) from None


def find(text: str, pattern: str) -> str:
    match = _search(pattern).search(text)
    return str(match.group()) if match else ""


def find_all(text: str, pattern: str, most: int = -1) -> list[str]:
    texts = [str(m.group()) for m in _search(pattern).finditer(text)]
    return texts if most < 0 else texts[:most]
