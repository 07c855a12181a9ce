"""The little that a report keeps of each recording, so that a sweep of hundreds of runs is read one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lab.experiments.measures import Measures
from lab.experiments.recording import Recording
from lab.experiments.series import Series, Span
from lab.experiments.sweep import Result
from lab.reports.fullness import main_resource
from lab.reports.stories import stories

MAX_BYTES = 24_000_000  # of compressed recordings: more than half a minute of reading; then the report says so
POINTS = 150


class Facts(NamedTuple):
    """Of one run: how long pods waited (s), pods that wait and the share requested over time, and where pods went."""

    waits: list[float]
    queue: list[tuple[float, float]]
    used: list[tuple[float, float]]
    resource: str
    decisions: list[tuple[tuple[str, int], str]]
    times: list[float]  # of the decisions
    machine: str


def facts(recording: Recording) -> Facts:
    measures = Measures(recording)
    resource = main_resource(recording)
    placed = sorted((s for s in stories(recording) if s.bound is not None), key=lambda s: (s.bound, s.identity))
    used = measures.requested(resource) / measures.allocatable(resource) if resource else Series.of([(0.0, 0.0)])
    return Facts(
        measures.waits(), _sampled(measures.pending(), recording), _sampled(used, recording), resource,
        [(s.identity, s.node) for s in placed], [s.bound or 0.0 for s in placed], machine_of(recording),
    )  # fmt: skip


def _sampled(series: Series, recording: Recording) -> list[tuple[float, float]]:
    """The mean over each of a number of equal pieces, by seconds since the start: a spike between two points counts, too."""
    begin, end = recording.mark("begin") or 0.0, recording.end
    step = nice((end - begin) / POINTS)
    count = int((end - begin) / step)
    return [(n * step, series.mean(Span(begin + n * step, begin + (n + 1) * step))) for n in range(count)]


def nice(step: float) -> float:
    """The next of 1, 2, 5, 10 ...: so runs of nearly equal length have equal points."""
    size = 0.001
    while True:
        for part in (1, 2, 5):
            if part * size >= step:
                return part * size
        size *= 10


def machine_of(recording: Recording) -> str:
    """A warning if a real run's machine was loaded: samples ``machine`` tell load and cores."""
    samples = [s.values for s in recording.samples if s.name == "machine"]
    loads = [s["load1"] for s in samples if "load1" in s]
    cores = max((s.get("cores", 0.0) for s in samples), default=0.0)
    if loads and cores and max(loads) > cores:
        most = f"load up to {max(loads):.1f} on {cores:.0f} cores"
        return f"the machine was loaded while this ran for real ({most}): what took long may be its doing"
    return ""


def read_all(folder: Path, listed: Sequence[Result]) -> dict[str, Facts]:
    """Facts by the name of the run; nothing if the recordings are too large to be read all."""
    paths = {r.name: folder / "runs" / f"{r.name}.jsonl.gz" for r in listed if not r.error}
    paths = {name: path for name, path in paths.items() if path.exists()}
    if sum(path.stat().st_size for path in paths.values()) > MAX_BYTES:
        return {}
    return {name: facts(Recording.load(path)) for name, path in paths.items()}


def partings(a: Facts, b: Facts, most: int = 3) -> list[tuple[str, float, str, str]]:
    """The first pods that went elsewhere: name, when (s), node in a, node in b."""
    there = dict(b.decisions)
    out: list[tuple[str, float, str, str]] = []
    for (who, node), at in zip(a.decisions, a.times, strict=True):
        other = there.get(who)
        if other is not None and other != node and len(out) < most:
            out.append((f"{who[0]} #{who[1] + 1}", at, node, other))
    return out


def shared(curves: Sequence[Sequence[tuple[float, float]]]) -> list[dict[str, Any]]:
    """x, mean, least and most of several runs, wherever all of them have a point."""
    points = [{round(x, 6): y for x, y in c} for c in curves]
    out = []
    for x in sorted(set.intersection(*(set(c) for c in points))) if points else ():
        values = [c[x] for c in points]
        out.append({"x": x, "mean": sum(values) / len(values), "least": min(values), "most": max(values)})
    return out
