"""Figures of one run's pods: Gantt by node and by ReplicaSet, swimlanes of a rollout.

Pure functions of a recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.experiments.measures import Measures
from lab.experiments.recording import Recording
from lab.experiments.series import Series
from lab.experiments.state import Tree
from lab.reports.figure import Figure
from lab.reports.overtime import Row, flags, line, span, workloads
from lab.reports.stories import Story, stories, versions

MAX_LANES = 140


def by_node(recording: Recording) -> list[Figure]:
    """Pods on nodes: each node has as many rows as it had pods at once."""
    listed = [s for s in stories(recording) if s.bound is not None]
    colour_of = _colours(listed)
    groups: dict[str, list[Story]] = {}
    for story in sorted(listed, key=lambda s: (natural(s.node), s.bound)):
        groups.setdefault(story.node, []).append(story)
    return _gantt("gantt-nodes", "pods on nodes", groups, colour_of, recording, packed=True)


def by_owner(recording: Recording) -> list[Figure]:
    """Pods of each ReplicaSet, StatefulSet, Job and so on."""
    listed = stories(recording)
    colour_of = _colours(listed)
    groups: dict[str, list[Story]] = {}
    for story in listed:
        groups.setdefault(story.owner or "no owner", []).append(story)
    if len(groups) > 40:
        return []  # a hundred Jobs of a pod each
    return _gantt("gantt-owners", "pods by their owner", groups, colour_of, recording, packed=len(listed) > 80)


def swimlanes(recording: Recording) -> list[Figure]:
    """The rollout of each workload that had two versions: a bar a pod, ready pods, failed requests, steps and faults."""
    out = []
    every = stories(recording)
    shown = span(recording)
    for _, _, tree in workloads(recording):
        name = tree["metadata"]["name"]
        listed = [s for s in every if s.workload == name]
        named = versions(listed)
        if len(named) < 2 or len(listed) > MAX_LANES:
            continue
        rows = [
            bar for story in listed for bar in _bars(story, named[name, story.version], story.name, named[name, story.version])
        ]
        ready = Measures(recording).ready(f"{_kind(tree)}/{name}") if _kind(tree) else Series.of([(0.0, 0.0)])
        rows += [r | {"text": "ready"} for r in line("", "", ready, shown["end"], shown["begin"])]
        for sample in recording.samples:
            if sample.name.startswith("load/") and sample.values.get("failed"):
                rows.append({"how": "tick", "time": sample.time, "value": sample.values["failed"]})
        caption = f"rollout of {name}: a bar for each pod by version, with the number of ready pods"
        caption += ", and failed requests" if any(r["how"] == "tick" for r in rows) else ""
        out.append(Figure(f"rollout-{name}", caption, "bars", [*rows, *flags(recording)], {**shown, "of": "versions"}))
    return out


def _kind(tree: Tree) -> str:
    kind = str(tree.get("kind", "")).lower()
    if kind:
        return kind
    return "statefulset" if "serviceName" in tree["spec"] else "daemonset" if "replicas" not in tree["spec"] else "deployment"


def _bars(story: Story, group: str, row: str, colour: str) -> list[Row]:
    return [
        {"how": "bar", "group": group, "row": row, "colour": colour, "phase": s.phase, "time": s.begin, "end": s.end,
         "text": story.name} for s in story.spans
    ]  # fmt: skip


def _colours(listed: Sequence[Story]) -> Mapping[str, str]:
    """By uid, what shares a colour: versions of a workload; one for all pods without an owner."""
    named = versions(s for s in listed if s.workload)
    return {s.uid: named[s.workload, s.version] if s.workload else "pods without an owner" for s in listed}


def natural(name: str) -> tuple[str, int, str]:
    """Sorts node-2 before node-10."""
    head = name.rstrip("0123456789")
    return (head, int(name[len(head) :] or 0), name)


def _gantt(
    name: str, caption: str, groups: Mapping[str, Sequence[Story]], colour_of: Mapping[str, str], recording: Recording,
    packed: bool,
) -> list[Figure]:  # fmt: skip
    rows: list[Row] = []
    lanes = 0
    shown = 0
    for group, of_group in groups.items():
        ends: list[float] = []
        placed: list[Row] = []
        for story in of_group:
            start = story.bound if packed and story.bound is not None else story.created
            free = next((n for n, end in enumerate(ends) if end <= start), len(ends)) if packed else len(ends)
            ends[free:] = [story.end, *ends[free + 1 :]]
            bars = _bars(story, group, str(free), colour_of[story.uid])
            placed += [b for b in bars if not (packed and b["phase"] == "waiting")]
        if lanes + len(ends) > MAX_LANES and lanes:
            continue
        lanes += len(ends)
        shown += 1
        rows += placed
    if not rows:
        return []
    caption += f" (the first {shown} of {len(groups)})" if shown < len(groups) else ""
    return [Figure(name, caption, "bars", [*rows, *flags(recording)], {**span(recording), "of": "workloads"})]
