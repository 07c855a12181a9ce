"""The report of a rehearsal: one HTML file without any address outside it, with a plot of each workload that is touched."""

from __future__ import annotations

import html
from collections.abc import Sequence

from lab.experiments.recording import Recording
from lab.experiments.series import Series
from lab.experiments.state import is_ready
from lab.reports.style import STYLE
from lab.twin.findings import CHANGE, REST
from lab.twin.learning import workload_of
from lab.twin.rehearsal import Rehearsed

MAX_PLOTS = 12
WIDTH, HEIGHT, MARGIN, BOTTOM = 720, 150, 40, 24


def page(words: str, source: str, done: Sequence[Rehearsed], listed: Sequence[str], unknown: Sequence[str]) -> str:
    """``listed``: the answer as the terminal shows it."""
    sample = next((r for r in done if r.recording), None)
    parts = [
        f"<h1>Rehearsal: {html.escape(words)}</h1>",
        f'<p class="question">{len(done)} runs on a twin of {html.escape(source)}</p>',
        f"<pre>{html.escape(chr(10).join(listed))}</pre>",
    ]
    if sample is not None and sample.findings is not None:
        parts.append(f"<h2>Available pods over time (seed {sample.seed})</h2>")
        recording = Recording.of_bytes(sample.recording)
        names = sorted(
            sample.findings.workloads, key=lambda n: -sample.findings.workloads[n].below if sample.findings else 0.0
        )
        ready = _ready(recording)
        for name in names[:MAX_PLOTS]:
            parts.append(
                f"<figure>{_plot(ready[name], recording)}<figcaption>{html.escape(name)}</figcaption></figure>"
            )
        if len(names) > MAX_PLOTS:
            parts.append(f"<p>and {len(names) - MAX_PLOTS} more workloads</p>")
    if unknown:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in unknown)
        parts.append(f"<h2>What the twin does not know</h2><ul>{items}</ul>")
    head = f'<meta charset="utf-8"><title>Rehearsal: {html.escape(words)}</title><style>{STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>{chr(10).join(parts)}</body></html>\n"


def _ready(recording: Recording) -> dict[str, Series]:
    """Pods that count as available, by workload."""
    points: dict[str, list[tuple[float, float]]] = {}
    ready: dict[str, str] = {}
    counts: dict[str, int] = {}
    for change in recording.of("pods"):
        name = workload_of(change.object)
        now = change.type != "DELETED" and is_ready(change.object)
        if now != (change.key in ready):
            if now:
                ready[change.key] = name
            else:
                del ready[change.key]
            counts[name] = counts.get(name, 0) + (1 if now else -1)
        points.setdefault(name, []).append((change.time, float(counts.get(name, 0))))
    return {name: Series.of(steps) for name, steps in points.items()}


def _plot(series: Series, recording: Recording) -> str:
    begin, end = recording.mark(CHANGE) or 0.0, recording.end
    top = max([*series.values, 1.0])

    def x(time: float) -> float:
        return MARGIN + (time - begin) / max(end - begin, 1e-9) * (WIDTH - MARGIN - 10)

    def y(value: float) -> float:
        return 8 + (1 - value / top) * (HEIGHT - BOTTOM - 8)

    path, last = f"M{x(begin):.1f},{y(series.at(begin)):.1f}", series.at(begin)
    for time, value in zip(series.times, series.values, strict=True):
        if time > begin:
            path += f"H{x(time):.1f}V{y(value):.1f}"
            last = value
    path += f"H{x(end):.1f}"
    rest = recording.mark(REST)
    ticks = "".join(
        f'<text x="{x(begin + part * (end - begin)):.1f}" y="{HEIGHT - 8}" font-size="11" text-anchor="middle">'
        f"{part * (end - begin):.0f} s</text>"
        for part in (0, 0.25, 0.5, 0.75, 1)
    )
    levels = "".join(
        f'<text x="{MARGIN - 6}" y="{y(v) + 4:.1f}" font-size="11" text-anchor="end">{v:.0f}</text>'
        f'<line x1="{MARGIN}" x2="{WIDTH - 10}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#e5e5e5"/>'
        for v in sorted({0.0, top, last})
    )
    flag = (
        ""
        if rest is None
        else f'<line x1="{x(rest):.1f}" x2="{x(rest):.1f}" y1="0" y2="{HEIGHT - BOTTOM}" stroke="#2d7a2d"/>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">{levels}{ticks}{flag}'
        f'<path d="{path}" fill="none" stroke="#3b6ea5" stroke-width="2"/></svg>'
    )
