"""Plots of an experiment, as SVG texts that are equal for equal data. matplotlib is imported when the first is drawn."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lab.experiments.file import Plot
from lab.experiments.measures import Measures
from lab.experiments.recording import Recording

STYLES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
COLOURS = ("#3b6ea5", "#d1622b", "#4b8f4b", "#8c5aa8", "#b8a12e", "#5aa0a8", "#a84b6e", "#777777")


def _figure(width: float, height: float, rows: int = 1, **more: Any) -> tuple[Any, Any]:
    import matplotlib
    from cycler import cycler

    matplotlib.use("svg")
    matplotlib.rcParams |= {
        "svg.hashsalt": "navarch", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "axes.prop_cycle": cycler(color=COLOURS),
    }  # fmt: skip
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, 1, figsize=(width, height), squeeze=False, layout="constrained", **more)
    return figure, axes


def _svg(figure: Any) -> str:
    from matplotlib import pyplot

    if _png is not None:
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=144, metadata={"Software": None})
        _png.append(image.getvalue())
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = out.getvalue()
    return _METADATA.sub("", text[text.index("<svg") :])


_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)  # names hosts, and a page shall name none
_png: list[bytes] | None = None


@contextmanager
def images(on: bool = True) -> Iterator[list[bytes]]:
    """Collects all that is drawn meanwhile as PNG files, in order; nothing unless ``on``."""
    global _png
    files: list[bytes] = []
    _png = files if on else None
    try:
        yield files
    finally:
        _png = None


def by_level(measure: str, groups: Mapping[str, Sequence[float]]) -> str:
    """A box for each level, with every run as a point."""
    figure, axes = _figure(6, 0.6 + 0.36 * len(groups))
    axis = axes[0][0]
    names = list(groups)
    values = [[v for v in groups[n] if not math.isnan(v)] for n in names]
    axis.boxplot(values, orientation="horizontal", widths=0.55, showfliers=False, medianprops={"color": "#222222"})
    for n, points in enumerate(values, 1):
        offsets = [((k * 37) % 21 - 10) / 60 for k in range(len(points))]
        axis.plot(points, [n + o for o in offsets], "o", markersize=4, alpha=0.6, color=COLOURS[(n - 1) % len(COLOURS)])
    axis.set_yticks(range(1, len(names) + 1), names)
    axis.invert_yaxis()
    axis.set_xlabel(measure)
    return _svg(figure)


Curves = Sequence[Sequence[tuple[float, float]]]


def band(curves: Curves) -> list[tuple[float, float, float, float]]:
    """x, mean, least and most of several runs, wherever all of them have a point."""
    points = [{point[0]: point[1] for point in c} for c in curves]
    shared = sorted(set.intersection(*(set(c) for c in points))) if points else []
    out = []
    for x in shared:
        values = [c[x] for c in points]
        out.append((x, math.fsum(values) / len(values), min(values), max(values)))
    return out


def lines(plot: Plot, groups: Mapping[str, Curves]) -> str:
    """A line for each cell: the mean over the seeds, with a band from the least to the most. Each has dashes of its own,
    so that the plot can be read without colours."""
    figure, axes = _figure(6, 3.3)
    axis = axes[0][0]
    for n, (name, curves) in enumerate(groups.items()):
        points = band(curves)
        xs = [p[0] for p in points]
        colour, style = COLOURS[n % len(COLOURS)], STYLES[n % len(STYLES)]
        axis.plot(xs, [p[1] for p in points], label=name, color=colour, linestyle=style, linewidth=1.5)
        axis.fill_between(xs, [p[2] for p in points], [p[3] for p in points], color=colour, alpha=0.15, linewidth=0)
    axis.set_xlabel(plot.x_label or plot.x or "seconds")
    axis.set_ylabel(plot.y_label or plot.y)
    if plot.x_range:
        axis.set_xlim(*plot.x_range)
    if plot.y_range:
        axis.set_ylim(*plot.y_range)
    if len(groups) > 1:
        axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _svg(figure)


def waits(groups: Mapping[str, Sequence[float]]) -> str:
    """How large a share of the pods had waited at most so long until they were bound."""
    figure, axes = _figure(7, 3)
    axis = axes[0][0]
    for name, values in groups.items():
        ordered = sorted(values)
        axis.step(ordered, [(n + 1) / len(ordered) for n in range(len(ordered))], where="post", label=name)
    axis.set_xlabel("seconds from created to bound")
    axis.set_ylabel("share of pods")
    axis.set_ylim(0, 1.02)
    axis.legend(frameon=False)
    return _svg(figure)


def timeline(recording: Recording) -> str:
    """Pods and nodes over time, with steps and marks; requests, if there was load."""
    measures = Measures(recording)
    lanes: list[tuple[str, list[tuple[str, Any]]]] = [
        ("pods", [("live", measures.total()), ("ready", measures.ready()), ("pending", measures.pending())]),
        ("nodes ready", [("", measures.nodes_ready())]),
    ]
    loads = sorted({s.name for s in recording.samples if s.name.startswith("load/")})
    figure, axes = _figure(8, 1.9 * (len(lanes) + len(loads)), len(lanes) + len(loads), sharex=True)
    begin = recording.mark("begin") or 0.0
    for (title, curves), (axis,) in zip(lanes, axes, strict=False):
        for label, series in curves:
            axis.step([*series.times, recording.end], [*series.values, series.values[-1]], where="post", label=label)
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
        if len(curves) > 1:
            axis.legend(frameon=False, loc="lower right", ncols=3)
    for name, (axis,) in zip(loads, axes[len(lanes) :], strict=True):
        samples = [s for s in recording.samples if s.name == name]
        times = [s.time for s in samples]
        axis.step(times, [s.values.get("ok", 0) for s in samples], label="answered")
        axis.step(times, [s.values.get("failed", 0) for s in samples], label="failed", color=COLOURS[1])
        axis.set_ylabel(f"{name.removeprefix('load/')}: requests/s")
        axis.legend(frameon=False, loc="upper right", ncols=2)
    for (axis,) in axes:
        for step in recording.steps:
            axis.axvline(step.time, color="#999999", linewidth=0.8, linestyle=":")
        axis.set_xlim(begin, recording.end)
    for step in recording.steps:
        axes[0][0].annotate(
            step.what[:38], (step.time, 1.0), xycoords=("data", "axes fraction"), fontsize=6.5, rotation=20, va="bottom"
        )
    axes[-1][0].set_xlabel("seconds")
    return _svg(figure)


def gantt(recording: Recording, most: int = 300) -> str:
    """The pods on each node over time: waiting until ready (pale), then ready; by owner."""
    measures = Measures(recording)
    lives = [p for p in measures.lives() if p.bound is not None][:most]
    lives.sort(key=lambda p: (p.node, p.bound))
    figure, axes = _figure(8, max(1.5, 0.9 + 0.09 * len(lives)))
    axis = axes[0][0]
    owners = list(dict.fromkeys(p.owner or p.name for p in sorted(lives, key=lambda p: p.created)))
    rows_by_node: dict[str, list[int]] = {}
    for n, p in enumerate(lives):
        colour = COLOURS[owners.index(p.owner or p.name) % len(COLOURS)]
        end = recording.end if p.deleted is None else p.deleted
        ready = end if p.ready is None else p.ready
        assert p.bound is not None
        axis.barh(n, ready - p.bound, left=p.bound, color=colour, alpha=0.35, height=0.8)
        axis.barh(n, max(0.0, end - ready), left=ready, color=colour, height=0.8)
        rows_by_node.setdefault(p.node, []).append(n)
    axis.set_yticks([sum(rows) / len(rows) for rows in rows_by_node.values()], list(rows_by_node), fontsize=6.5)
    for rows in rows_by_node.values():
        axis.axhline(rows[-1] + 0.5, color="#cccccc", linewidth=0.6)
    axis.grid(visible=False, axis="y")
    axis.set_xlim(recording.mark("begin") or 0.0, recording.end)
    axis.set_xlabel("seconds")
    return _svg(figure)
