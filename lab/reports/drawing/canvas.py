"""The look of all plots, and the way from a CSV file to an SVG, PNG or PDF: equal rows give equal bytes.

Widths and heights are in inches: 7 for a page's width, 3.4 for a column. Colours are those of Okabe and Ito, which people
with any colour vision can tell apart.
"""

from __future__ import annotations

import csv
import importlib
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, str]

PAGE, COLUMN = 7.0, 3.4
INK, SOFT, LINE, TINT = "#1f2328", "#5c636b", "#d5d9de", "#eceef1"
BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, RED = "#0072b2", "#d9820f", "#009e73", "#b8578f", "#4aa3d8", "#b89b00", "#c8451b"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, "#777777")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
HEAT = ("#f7fbff", "#d0e1f2", "#94c4df", "#4a98c9", "#1764ab", "#08306b")

SETTINGS = {
    "svg.hashsalt": "navarch", "svg.fonttype": "none", "pdf.fonttype": 42, "font.size": 8, "axes.titlesize": 8.5,
    "axes.labelsize": 8, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "legend.fontsize": 7.5, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#8a9199", "axes.linewidth": 0.7,
    "axes.labelcolor": SOFT, "xtick.color": "#8a9199", "ytick.color": "#8a9199", "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT, "xtick.major.size": 2.5, "ytick.major.size": 2.5, "xtick.major.width": 0.7,
    "ytick.major.width": 0.7, "axes.grid": True, "axes.grid.axis": "y", "grid.color": TINT, "grid.linewidth": 0.8,
    "axes.axisbelow": True, "lines.linewidth": 1.4, "text.color": INK, "legend.frameon": False, "legend.handlelength": 1.6,
    "figure.constrained_layout.h_pad": 0.05, "figure.constrained_layout.w_pad": 0.05,
}  # fmt: skip

_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)  # names hosts, and a page shall name none
_IDS = re.compile(r' id="(?:figure|axes|patch|text|line2d|matplotlib|xtick|ytick|legend)[\w.]*"')  # twice in a page of two


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **more: Any) -> tuple[Any, list[Any]]:
    """A figure and its axes, row by row."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained")
    return drawn, list(drawn.subplots(rows, columns, squeeze=False, **more).flat)


def draw(kind: str, rows: Sequence[Row], options: Mapping[str, Any], formats: Iterable[str] = ("svg",)) -> dict[str, bytes]:
    """The files of one plot, by format. ``kind``: a module of this folder, which has a function ``draw``."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        drawn = importlib.import_module(f".{kind}", __package__).draw(rows, **options)
        return {form: _bytes(drawn, form) for form in formats}


def _bytes(drawn: Any, form: str) -> bytes:
    out = io.BytesIO()
    metadata = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    drawn.savefig(out, format=form, dpi=200, metadata=metadata.get(form, {"Software": None}))
    if form != "svg":
        return out.getvalue()
    text = out.getvalue().decode()
    return _IDS.sub("", _METADATA.sub("", text[text.index("<svg") :])).encode()


def write(kind: str, source: str | Path, **options: Any) -> None:
    """Draws a CSV file again: SVG, PNG and PDF beside it."""
    path = Path(source)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for form, content in draw(kind, rows, options, ("svg", "png", "pdf")).items():
        path.with_suffix(f".{form}").write_bytes(content)
        print(path.with_suffix(f".{form}"))


def grouped(rows: Iterable[Row], column: str) -> dict[str, list[Row]]:
    """Rows by a column's value, in order of appearance."""
    out: dict[str, list[Row]] = {}
    for row in rows:
        out.setdefault(row[column], []).append(row)
    return out


def numbers(rows: Iterable[Row], column: str) -> list[float]:
    return [float(row[column]) if row[column] != "" else math.nan for row in rows]


def spread_out(places: Sequence[float], gap: float, low: float = -math.inf, high: float = math.inf) -> list[float]:
    """Places moved apart until each two are ``gap`` apart, in their order, between ``low`` and ``high`` if there is room."""
    order = sorted(range(len(places)), key=lambda n: (places[n], n))
    blocks: list[list[float]] = []  # centre of the wished places, count
    for n in order:
        blocks.append([places[n], 1])
        while len(blocks) > 1 and blocks[-1][0] - blocks[-2][0] < gap * (blocks[-1][1] + blocks[-2][1]) / 2:
            centre, count = blocks.pop()
            total = blocks[-1][1] + count
            blocks[-1] = [(blocks[-1][0] * blocks[-1][1] + centre * count) / total, total]
    moved = [c - gap * (k - 1) / 2 + gap * i for c, k in blocks for i in range(int(k))]
    if moved and moved[-1] > high:
        moved = [min(m, high - gap * (len(moved) - 1 - n)) for n, m in enumerate(moved)]
    if moved and moved[0] < low:
        moved = [max(m, low + gap * n) for n, m in enumerate(moved)]
    out = [0.0] * len(places)
    for n, m in zip(order, moved, strict=True):
        out[n] = m
    return out


def end_labels(axis: Any, ends: Sequence[tuple[float, str, str]], height: float) -> None:
    """Names at the right end of lines: (value, text, colour) each, moved apart; ``height`` of the axes in inches."""
    low, high = axis.get_ylim()
    shares = [(value - low) / ((high - low) or 1.0) for value, _, _ in ends]
    for share, (_, text, colour) in zip(spread_out(shares, 9.5 / (72 * height), 0.02, 1.0), ends, strict=True):
        axis.annotate(text, (1.0, share), xytext=(4, 0), xycoords="axes fraction", textcoords="offset points",
                      va="center", color=colour, fontsize=7.5, annotation_clip=False)  # fmt: skip


def flags(axes: Sequence[Any], rows: Sequence[Row], width: float) -> None:
    """A line through all axes at each row's ``time``, and its ``text`` above the first, on as many levels as it takes."""
    low, high = axes[0].get_xlim()
    span = (high - low) or 1.0
    levels: list[float] = []  # the share of the width up to which each level is taken
    for row in rows:
        at, text = float(row["time"]), row["text"]
        colour = RED if row.get("series") == "fault" else SOFT
        for axis in axes:
            axis.axvline(at, color=colour, linewidth=0.7, linestyle=(0, (2, 2)), zorder=0.5)
        share, length = (at - low) / span, len(text) * 3.7 / (72 * width * 0.82)
        edge = min(share, max(0.0, 1.0 - length))
        level = next((n for n, end in enumerate(levels) if end < edge), len(levels))
        if level > 4:
            continue
        levels[level:] = [edge + length + 0.015, *levels[level + 1 :]]
        axes[0].annotate(text, (edge, 1.0), xytext=(0, 3 + 9 * level), xycoords="axes fraction",
                         textcoords="offset points", fontsize=6.8, color=colour, annotation_clip=False)  # fmt: skip


def seconds_axis(axis: Any) -> None:
    axis.set_xlabel("seconds since the start")


def bare(axis: Any) -> None:
    """No grid and no left spine: for rows that have names."""
    axis.grid(visible=False)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
