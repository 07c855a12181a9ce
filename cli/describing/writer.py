"""Indented text with columns that align by themselves (elastic tabstops, as Go's tabwriter does them).

A cell ends with a tab; cells of one column on neighbouring lines are as wide as the widest of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from navarch.api import wellknown
from navarch.api.times import parse_time

PADDING = 2


class Writer:
    """Collects lines; ``level`` is how far they are indented, two blanks each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, level: int, *cells: str) -> None:
        self.lines.append("  " * level + "\t".join(cells))

    def text(self) -> str:
        return "\n".join(aligned(self.lines))


def aligned(lines: Iterable[str]) -> list[str]:
    """Lines with tabs turned into aligned lines without."""
    rows = [line.split("\t") for line in "\n".join(lines).split("\n")]
    widths: list[list[int]] = [[] for _ in rows]
    _measure(rows, widths, 0, len(rows), 0)
    return [
        "".join([*(cell.ljust(width) for cell, width in zip(row[:-1], wide, strict=True)), row[-1]])
        for row, wide in zip(rows, widths, strict=True)
    ]


def _measure(rows: list[list[str]], widths: list[list[int]], start: int, end: int, column: int) -> None:
    """Widths of the cells in one column of some lines, then of the columns to its right within each block."""
    at = start
    while at < end:
        if column >= len(rows[at]) - 1:
            at += 1
            continue
        first = at
        while at < end and column < len(rows[at]) - 1:
            at += 1
        width = max(len(row[column]) for row in rows[first:at]) + PADDING
        for wide in widths[first:at]:
            wide.append(width)
        _measure(rows, widths, first, at, column + 1)


def pairs(writer: Writer, level: int, title: str, values: Mapping[str, Any] | None, joint: str = "=") -> None:
    """``Labels:  a=b`` and more below it; ``<none>`` if there are none."""
    if not values:
        writer.line(level, f"{title}:", "<none>")
        return
    for index, (key, value) in enumerate(sorted(values.items())):
        writer.line(0 if index else level, "" if index else f"{title}:", f"{key}{joint}{value}")


def annotation_lines(writer: Writer, level: int, values: Mapping[str, str] | None, indent: str = "") -> None:
    """Annotations: short ones as ``key: value``, others on lines of their own."""
    shown = {k: v for k, v in (values or {}).items() if k != wellknown.LAST_APPLIED}
    if not shown:
        writer.line(level, "Annotations:", "<none>")
        return
    for index, (key, value) in enumerate(sorted(shown.items())):
        title = "Annotations:" if not index else ""
        text = value.removesuffix("\n")
        if len(key) + len(text) + 2 < 140 and "\n" not in text:
            writer.line(level, title, f"{key}: {text}")
            continue
        writer.line(level, title, f"{key}:")
        for each in text.split("\n"):
            cut = each if len(each) <= 256 else each[:256] + "..."
            writer.line(level, "", f"  {cut}")


def moment(text: str | None) -> str:
    """A time as describe shows it: ``Mon, 02 Jan 2006 15:04:05 +0000``."""
    if not text:
        return "<unset>"
    return datetime.fromtimestamp(parse_time(text), UTC).strftime("%a, %d %b %Y %H:%M:%S +0000")


def boolean(value: Any) -> str:
    return "true" if value else "false"
