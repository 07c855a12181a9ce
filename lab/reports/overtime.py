"""Figures of one run over time: replicas, requests, pods that wait, events. Pure functions of a recording."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from lab.experiments.measures import Measures
from lab.experiments.recording import Recording, Sample
from lab.experiments.series import Series
from lab.experiments.state import Tree
from lab.reports.figure import Figure, Value
from lab.reports.stories import Story, stories, versions

Row = dict[str, Value]
FAULTS = ("power-off", "partition", "crash", "cut", "kill", "timeout")
WORKLOADS = ("deployments", "statefulsets", "daemonsets")
MAX_WORKLOADS = 3
MAX_WINDOWS = 150
MAX_REASONS = 24
SHORT = 0.1  # seconds; a shorter wait for a node is the network alone


def span(recording: Recording) -> dict[str, float]:
    """Times between which a run is drawn: the options ``begin`` and ``end``, in seconds."""
    return {"begin": round(recording.mark("begin") or 0.0, 6), "end": round(recording.end, 6)}


def plain(what: str) -> str:
    """A step as a reader says it: ``set-image deployment/web: web:v2``."""
    word, _, rest = what.partition(" ")
    try:
        value = json.loads(rest)
    except ValueError:
        value = rest
    if isinstance(value, dict):
        value = ", ".join(f"{k}: {v}" if not isinstance(v, dict | list) else str(k) for k, v in value.items())
    if isinstance(value, str) and (named := re.match(r'\{"([^"]+)":', value)):
        value = named[1]  # a long patch, cut off: its object says enough
    text = re.sub(r"\s+", " ", f"{word} {value}").strip()
    return text if len(text) <= 48 else f"{text[:47]}…"


def flags(recording: Recording) -> list[Row]:
    """Steps, faults, and marks that no step made."""
    out: list[Row] = []
    names = {round(mark.time, 3): mark.name for mark in recording.marks}
    for step in recording.steps:
        series = "fault" if step.what.split(" ")[0].strip(":") in FAULTS else "step"
        text = plain(step.what)
        if text.startswith("apply apiVersion"):  # the head of a manifest; the step's mark says more
            text = f"apply: {names[round(step.time, 3)]}" if round(step.time, 3) in names else "apply"
        out.append({"how": "flag", "series": series, "time": step.time, "text": text})
    times = {round(float(row["time"]), 3) for row in out}
    for mark in recording.marks:
        if mark.name not in ("begin", "finish") and round(mark.time, 3) not in times:
            out.append({"how": "flag", "series": "mark", "time": mark.time, "text": mark.name})
    return sorted(out, key=lambda row: float(row["time"]))


def line(lane: str, series: str, points: Series, end: float, begin: float = 0.0) -> list[Row]:
    """The steps of a series as rows, from ``begin`` to ``end``."""
    rows: list[Row] = [{"lane": lane, "series": series, "how": "line", "time": begin, "value": float(points.at(begin))}]
    for time, value in zip(points.times, points.values, strict=True):
        if begin < time < end:
            rows.append({"lane": lane, "series": series, "how": "line", "time": time, "value": float(value)})
    return [*rows, {"lane": lane, "series": series, "how": "line", "time": end, "value": float(points.at(end))}]


def _field(recording: Recording, resource: str, key: str, *names: str) -> Series:
    points = [(0.0, 0.0)]
    for change in recording.of(resource):
        if change.key == key:
            value: Any = change.object if change.type != "DELETED" else {}
            for name in names:
                value = value.get(name) if isinstance(value, dict) else None
            points.append((change.time, float(value or 0)))
    return Series.of(points)


FIELDS = {
    "daemonsets": {"desired": ("status", "desiredNumberScheduled"), "updated": ("status", "updatedNumberScheduled"),
                   "available": ("status", "numberAvailable"), "ready": ("status", "numberReady")},
    "": {"desired": ("spec", "replicas"), "updated": ("status", "updatedReplicas"),
         "available": ("status", "availableReplicas"), "ready": ("status", "readyReplicas")},
}  # fmt: skip


def workloads(recording: Recording) -> list[tuple[str, str, Tree]]:
    """(resource, key, last state) of those with most changes, at most three."""
    counts: dict[tuple[str, str], int] = {}
    trees: dict[str, Tree] = {}
    for resource in WORKLOADS:
        for change in recording.of(resource):
            counts[resource, change.key] = counts.get((resource, change.key), 0) + 1
            trees[change.key] = change.object
    most = sorted(counts, key=lambda one: -counts[one])[:MAX_WORKLOADS]
    return [(resource, key, trees[key]) for resource, key in most]


def by_version(listed: Sequence[Story], workload: str, end: float) -> dict[str, Series]:
    """Pods that are there, by version, of one workload."""
    named = versions(s for s in listed if s.workload == workload)
    points: dict[str, list[tuple[float, int]]] = {name: [] for name in named.values()}
    for story in listed:
        if story.workload == workload and story.spans:
            name = named[story.workload, story.version]
            points[name].append((story.created, 1))
            end_of_life = next((s.begin for s in story.spans if s.phase in ("stopping", "ended")), story.end)
            if end_of_life < end:
                points[name].append((end_of_life, -1))
    out = {}
    for name, steps in points.items():
        total, summed = 0, []
        for time, more in sorted(steps):
            total += more
            summed.append((time, float(total)))
        out[name] = Series.of([(0.0, 0.0), *summed])
    return out


def replicas(recording: Recording) -> list[Figure]:
    """Of each workload: desired, updated, ready and available pods, and those of each version."""
    out = []
    listed = stories(recording)
    shown = span(recording)
    for resource, key, tree in workloads(recording):
        name = tree["metadata"]["name"]
        rows: list[Row] = []
        for series, path in (FIELDS.get(resource) or FIELDS[""]).items():
            rows += line("pods", series, _field(recording, resource, key, *path), shown["end"], shown["begin"])
        kinds = by_version(listed, name, recording.end)
        if len(kinds) > 1:
            for version, pods in kinds.items():
                rows += line("by version", version, pods, shown["end"], shown["begin"])
        caption = f"{resource[:-1]} {name}: pods desired, updated, ready and available"
        caption += ", and old against new" if len(kinds) > 1 else ""
        out.append(Figure(f"replicas-{name}", caption, "overtime", [*rows, *flags(recording)], shown))
    return out


def requests(recording: Recording) -> list[Figure]:
    """Of each service under load: requests answered and failed a second, and their latency."""
    out = []
    shown = span(recording)
    for name in dict.fromkeys(s.name for s in recording.samples if s.name.startswith("load/")):
        samples = [s for s in recording.samples if s.name == name]
        width = max(1.0, (recording.end - samples[0].time) / MAX_WINDOWS)
        rows: list[Row] = []
        for series, how in (("ok", "line"), ("failed", "bars")):
            for at, of_window in _windows(samples, width):
                value = sum(s.values.get(series, 0) for s in of_window) / max(width, 1.0)
                if how == "line" or value:
                    rows.append({"lane": "requests/s", "series": series, "how": how, "time": at, "value": value})
        for series, q in (("p50", 0.5), ("p99", 0.99)):
            for at, of_window in _windows(samples, max(width, 3.0)):
                if (seconds := _quantile(of_window, q)) is not None:
                    rows.append({"lane": "latency, s", "series": series, "how": "line", "time": at, "value": seconds})
        service = name.removeprefix("load/")
        caption = f"requests to {service}: answered and failed a second; latency of those answered"
        out.append(Figure(f"requests-{service}", caption, "overtime", [*rows, *flags(recording)], shown))
    return out


def _windows(samples: Sequence[Sample], width: float) -> list[tuple[float, list[Sample]]]:
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(int((sample.time - samples[0].time) / width + 1e-9), []).append(sample)
    return [(samples[0].time + n * width, group) for n, group in groups.items()]


def _quantile(samples: Sequence[Sample], q: float) -> float | None:
    buckets: dict[float, float] = {}
    for sample in samples:
        for name, count in sample.values.items():
            if name.startswith("le_"):
                buckets[float(name[3:])] = buckets.get(float(name[3:]), 0) + count
    rank, total = q * sum(buckets.values()), 0.0
    for bound in sorted(buckets):
        total += buckets[bound]
        if buckets[bound] and total >= rank:
            return bound
    return None


def pending(recording: Recording) -> list[Figure]:
    """Pods that wait for a node, and how long each waited until it was bound."""
    shown = span(recording)
    measures = Measures(recording)
    waits: list[Row] = [
        {"lane": "time to schedule, s", "series": "each pod", "how": "points", "time": p.bound, "value": p.bound - p.created}
        for p in measures.lives() if p.bound is not None
    ]  # fmt: skip
    if max((float(w["value"]) for w in waits), default=0.0) < SHORT and measures.never_bound() == 0:
        return []
    rows = [*line("pods", "pending", measures.pending(), shown["end"], shown["begin"]), *waits, *flags(recording)]
    caption = "pods that wait for a node, and how long each pod waited until it had one"
    return [Figure("pending", caption, "overtime", rows, shown)]


def events(recording: Recording) -> list[Figure]:
    """Events by reason: warnings in another colour."""
    counts: dict[str, int] = {}
    rows: list[Row] = []
    for change in recording.of("events"):
        tree = change.object
        count = int(tree.get("count") or (tree.get("series") or {}).get("count") or 1)
        more = count - counts.get(change.key, 0)
        counts[change.key] = count
        if change.type != "DELETED" and more > 0:
            rows.append({"how": "event", "series": str(tree.get("reason") or "?"), "time": change.time, "value": more,
                         "text": str(tree.get("type") or "")})  # fmt: skip
    if not rows:
        return []
    totals: dict[str, int] = {}
    for row in rows:
        totals[str(row["series"])] = totals.get(str(row["series"]), 0) + int(row["value"])
    shown = sorted(totals, key=lambda reason: -totals[reason])[:MAX_REASONS]
    merged: dict[tuple[str, float, str], int] = {}
    width = max(0.2, recording.end / 400)
    for row in rows:
        if row["series"] in shown:
            at = round(round(float(row["time"]) / width) * width, 6)
            place = (str(row["series"]), at, str(row["text"]))
            merged[place] = merged.get(place, 0) + int(row["value"])
    listed: list[Row] = [
        {"how": "event", "series": reason, "time": at, "value": count, "text": kind}
        for (reason, at, kind), count in merged.items()
    ]
    return [Figure("events", "Events by reason (orange: warnings); at the right how many", "occurrences",
                   [*listed, *flags(recording)], span(recording))]  # fmt: skip
