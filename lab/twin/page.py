"""The report of a rehearsal: one HTML file without any address outside it, with a plot of each workload that is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.experiments.recording import Recording
from lab.experiments.series import Series
from lab.experiments.state import is_ready
from lab.reports.drawing.canvas import BLUE, GREEN, LINE, SOFT
from lab.reports.style import escape, facts, figure, table
from lab.reports.style import page as document
from lab.twin import answer
from lab.twin.findings import CHANGE, REST, Findings
from lab.twin.learning import workload_of
from lab.twin.rehearsal import Rehearsed

MAX_PLOTS = 12
WIDTH, HEIGHT, MARGIN, BOTTOM, TOP = 900, 132, 30, 22, 12


def page(words: str, source: str, done: Sequence[Rehearsed], listed: Sequence[str], unknown: Sequence[str]) -> str:
    """``listed``: the answer as the terminal shows it."""
    good = [r.findings for r in done if r.findings is not None]
    sample = next((r for r in done if r.recording and r.findings is not None), None)
    rows = answer.workload_rows(good)
    others = [line for block in _blocks(listed) if not block[0].startswith(answer.HEAD[0]) for line in block]
    parts = [
        f"<h1>Rehearsal: {escape(words)}</h1>",
        f'<p class="question">What would happen on a twin of {escape(source)}</p>',
        facts(_counts(done, good)),
        "<h2>Answer</h2>", "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in others) + "</ul>",
    ]  # fmt: skip
    if rows:
        parts += ["<h2>Workloads that it touches</h2>", table(answer.HEAD, [[escape(c) for c in row] for row in rows])]
    if sample is not None and sample.findings is not None:
        parts.append(f"<h2>Available pods over time</h2><p>Of seed {sample.seed}; the change begins at 0 s.</p>")
        parts += _figures(Recording.of_bytes(sample.recording), sample.findings)
    if unknown:
        items = "".join(f"<li>{escape(line)}</li>" for line in unknown)
        parts.append(f"<h2>What the twin does not know</h2><ul>{items}</ul>")
    return document(f"Rehearsal: {words}", "\n".join(parts))


def _blocks(listed: Sequence[str]) -> list[list[str]]:
    """Lines between empty ones: the table of workloads is one of them."""
    out: list[list[str]] = [[]]
    for line in listed:
        if line:
            out[-1].append(line)
        else:
            out.append([])
    return [block for block in out if block]


def _counts(done: Sequence[Rehearsed], good: Sequence[Findings]) -> list[tuple[object, str]]:
    ended = [f.seconds for f in good if f.seconds is not None]
    counts: list[tuple[object, str]] = [(len(done), "run" if len(done) == 1 else "runs")]
    if ended:
        counts.append((answer.spread(ended, " s"), "until all is at rest"))
    if len(ended) < len(done):
        counts.append((len(done) - len(ended), "never at rest"))
    for name, sizes in (
        ("evicted", [len(f.evicted) for f in good]), ("preempted", [len(f.preempted) for f in good]),
        ("pending at the end", [len(f.pending) for f in good]),
    ):  # fmt: skip
        if any(sizes):
            counts.append((answer.spread(sizes), f"pods {name}"))
    return counts


def _figures(recording: Recording, findings: Findings) -> list[str]:
    """A plot of each workload, that with the longest time below first."""
    names = sorted(findings.workloads, key=lambda n: -findings.workloads[n].below)
    ready = _ready(recording)
    out = []
    for name in (n for n in names[:MAX_PLOTS] if n in ready):
        low = findings.workloads[name]
        caption = f"<b>{escape(name)}</b>: {low.before} before, fewest {low.fewest}, {low.after} of {low.desired} in the end"
        out.append(figure(_plot(ready[name], recording, low.before), caption))
    return [*out, f"<p>and {len(names) - MAX_PLOTS} more workloads</p>"] if len(names) > MAX_PLOTS else out


def _ready(recording: Recording) -> Mapping[str, Series]:
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


def _plot(series: Series, recording: Recording, before: int) -> str:
    """Steps of available pods from the change on, with the number before as a dashed line and the rest as a flag."""
    begin, end = recording.mark(CHANGE) or 0.0, recording.end
    shown = [v for t, v in zip(series.times, series.values, strict=True) if t > begin]
    top = max([*shown, series.at(begin), float(before), 1.0])

    def x(time: float) -> float:
        return MARGIN + (time - begin) / max(end - begin, 1e-9) * (WIDTH - MARGIN - 12)

    def y(value: float) -> float:
        return TOP + (1 - value / top) * (HEIGHT - BOTTOM - TOP)

    path = f"M{x(begin):.1f},{y(series.at(begin)):.1f}"
    for time, value in zip(series.times, series.values, strict=True):
        if time > begin:
            path += f"H{x(time):.1f}V{y(value):.1f}"
    path += f"H{x(end):.1f}"
    area = f"{path}V{y(0):.1f}H{x(begin):.1f}Z"
    ticks = "".join(
        f'<text x="{x(begin + part * (end - begin)):.1f}" y="{HEIGHT - 6}" font-size="11" fill="{SOFT}"'
        f' text-anchor="{"end" if part == 1 else "middle"}">{part * (end - begin):.0f} s</text>'
        for part in (0, 0.25, 0.5, 0.75, 1)
    )
    levels = "".join(
        f'<text x="{MARGIN - 7}" y="{y(v) + 4:.1f}" font-size="11" fill="{SOFT}" text-anchor="end">{v:.0f}</text>'
        f'<line x1="{MARGIN}" x2="{WIDTH - 12}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="{LINE}"/>'
        for v in sorted({0.0, top, min([*shown, series.at(begin)])})
    )
    rest = recording.mark(REST)
    flag = "" if rest is None else (
        f'<line x1="{x(rest):.1f}" x2="{x(rest):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{GREEN}"/>'
        f'<text x="{x(rest):.1f}" y="{TOP - 3}" font-size="11" fill="{GREEN}" text-anchor="{_side(x(rest))}">at rest</text>'
    )  # fmt: skip
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}">{levels}{ticks}<path d="{area}" fill="{BLUE}" opacity=".1"/>'
        f'<path d="{path}" fill="none" stroke="{BLUE}" stroke-width="2"/>{flag}</svg>'
    )


def _side(place: float) -> str:
    return "end" if place > WIDTH * 0.9 else "middle"
