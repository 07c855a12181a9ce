"""Figures for notebooks: lines over time, and measures by level. matplotlib is imported when the first is drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab.experiments.measures import curve
from lab.experiments.recording import Recording

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lab.experiments.result import Result

STEPS = 600  # points of a line


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure that draws itself in notebooks, whatever backend is chosen, and its axes."""
    from matplotlib.figure import Figure

    class Drawn(Figure):
        def _repr_png_(self) -> bytes:
            out = io.BytesIO()
            self.savefig(out, format="png", dpi=110)
            return out.getvalue()

    figure = Drawn(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    return figure, axes


def lines(recording: Recording, series: Mapping[str, str], *, title: str = "", y: str = "") -> Figure:
    """Series by name (``ready(deployment/web)``) over the seconds since the start, with the marks as flags. Raises
    ExpressionError."""
    figure, axes = _figure(8, 3.2)
    begin = recording.mark("begin") or 0.0
    step = max((recording.end - begin) / STEPS, 1e-3)
    for name, text in series.items():
        points = curve(recording, text, "", step)
        axes.step([x for x, _ in points], [value for _, value in points], where="post", label=name)
    for mark in recording.marks:
        if mark.name != "begin":
            axes.axvline(mark.time - begin, color="#888888", linewidth=0.8, linestyle=":")
            axes.annotate(mark.name, (mark.time - begin, 1.0), xycoords=("data", "axes fraction"), fontsize=8, color="#555555")
    axes.set(xlabel="seconds", ylabel=y, title=title)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure  # type: ignore[no-any-return]


def levels(results: Sequence[Result], measure: str, by: str, *, title: str = "") -> Figure:
    """A measure by the levels of a factor: a point a run, and the mean of each level as a bar."""
    groups: dict[str, list[float]] = {}
    for result in results:
        value = result.measures.get(measure, float("nan"))
        if value == value:
            groups.setdefault(str(result.levels[by]), []).append(value)
    figure, axes = _figure(1.5 + 1.2 * max(3, len(groups)), 3.2)
    for n, values in enumerate(groups.values()):
        axes.scatter([n + 0.12 * (k / max(1, len(values) - 1) - 0.5) for k in range(len(values))], values, s=18, alpha=0.7)
        mean = sum(values) / len(values)
        axes.plot([n - 0.25, n + 0.25], [mean, mean], color="black", linewidth=1.2)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set(xlabel=by, ylabel=measure, title=title)
    return figure  # type: ignore[no-any-return]
