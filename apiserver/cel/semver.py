"""Kubernetes' functions on semantic versions (semver.org 2.0.0)."""

from __future__ import annotations

import re
from typing import Any

_NUMBER = r"(0|[1-9]\d*)"
_WORDS = r"(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_VERSION = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_WORDS}(?:\.{_WORDS})*))?(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?", re.ASCII
)


def semver(text: str, normalize: bool = False) -> dict[str, str]:
    """A version. ``normalize`` takes ``v1.2`` and ``01.2.3`` too. Raises ValueError."""
    if normalize:
        text = _normal(text)
    if not _VERSION.fullmatch(text):
        raise ValueError(f"semver conversion error: {text!r} is no semantic version")
    return {"semver": text}


def _normal(text: str) -> str:
    head, mark, tail = text.removeprefix("v"), "", ""
    if match := re.search(r"[-+]", head):
        head, mark, tail = head[: match.start()], match[0], head[match.end() :]
    parts = [p.lstrip("0") or "0" if p else p for p in head.split(".")]
    return ".".join([*parts, *["0"] * (3 - len(parts))]) + mark + tail


def numbers(value: dict[str, str]) -> tuple[int, int, int]:
    match = _VERSION.fullmatch(value["semver"])
    assert match is not None
    return int(match[1]), int(match[2]), int(match[3])


def order(value: dict[str, str]) -> Any:
    """A key that sorts versions: what comes before a release is less than it, and builds do not count."""
    match = _VERSION.fullmatch(value["semver"])
    assert match is not None
    before = match[4]
    words = [(0, int(w), "") if w.isdigit() else (1, 0, w) for w in (before or "").split(".")] if before else []
    return numbers(value), before is None, words
