"""Figures of one run's pods and nodes: Gantt by node and by ReplicaSet, swimlanes of a rollout, utilisation as a heat map.

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
from navarch.api import quantity
from navarch.api.pods import TERMINAL_PHASES

MAX_LANES = 140
MAX_ROWS = 48
MAX_PIECES = 100


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


def main_resource(recording: Recording) -> str:
    """The resource of which a run is about: an extended one that pods ask for, else cpu, else memory; "" if none."""
    resources: dict[str, None] = {}
    for change in recording.of("pods"):
        for container in change.object["spec"]["containers"]:
            resources |= dict.fromkeys((container.get("resources") or {}).get("requests") or ())
    extended = [r for r in resources if "/" in r]
    return next((r for r in (*extended, "cpu", "memory") if r in resources), "")


def utilisation(recording: Recording) -> list[Figure]:
    """How much of each node is requested, over time. Many nodes are shown in groups of equal size, in order of name."""
    resource = main_resource(recording)
    nodes: dict[str, float] = {}
    for change in recording.of("nodes"):
        listed = change.object.get("status", {}).get("allocatable") or {}
        nodes[change.object["metadata"]["name"]] = _amount(listed, resource)
    names = sorted((n for n, amount in nodes.items() if amount > 0), key=natural)
    if not resource or not names:
        return []
    size = -(-len(names) // MAX_ROWS)
    groups = [names[n : n + size] for n in range(0, len(names), size)]
    group_of = {name: n for n, group in enumerate(groups) for name in group}
    used = _used(recording, resource, group_of)
    rows: list[Row] = []
    shown = span(recording)
    width = (shown["end"] - shown["begin"]) / MAX_PIECES or 1.0
    for n, group in enumerate(groups):
        series = Series.of([(0.0, 0.0), *used.get(n, [])])
        capacity = sum(nodes[name] for name in group)
        name = group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}"
        pieces: list[list[float]] = []
        for k in range(MAX_PIECES):
            a = shown["begin"] + k * width
            value = round(50 * series.at(a + width / 2) / capacity) / 50
            if pieces and pieces[-1][2] == value:
                pieces[-1][1] = a + width
            else:
                pieces.append([a, a + width, value])
        rows += [{"how": "box", "row": name, "time": a, "end": b, "value": value} for a, b, value in pieces]
    many = f", {size} nodes a row" if size > 1 else ""
    return [Figure(f"utilisation-{resource.replace('/', '-')}", f"{resource} requested on each node, of what it has{many}",
                   "heatmap", [*rows, *flags(recording)], {**shown, "label": f"{resource} requested"})]  # fmt: skip


def _amount(listed: Mapping[str, str], resource: str) -> float:
    return float(quantity.parse(str(listed[resource]))) if resource in listed else 0.0


def _used(recording: Recording, resource: str, group_of: Mapping[str, int]) -> dict[int, list[tuple[float, float]]]:
    """(time, requested) of each group of nodes."""
    where: dict[str, tuple[int, float]] = {}
    totals: dict[int, float] = {}
    out: dict[int, list[tuple[float, float]]] = {}
    for change in recording.of("pods"):
        tree = change.object
        over = change.type == "DELETED" or tree.get("status", {}).get("phase") in TERMINAL_PHASES
        group = None if over else group_of.get(tree["spec"].get("nodeName", ""))
        if (group is not None) == (change.key in where):
            continue
        if group is None:
            old, amount = where.pop(change.key)
            totals[old] -= amount
            out[old].append((change.time, totals[old]))
        else:
            requests = ((c.get("resources") or {}).get("requests") or {} for c in tree["spec"]["containers"])
            amount = sum(_amount(one, resource) for one in requests)
            where[change.key] = (group, amount)
            totals[group] = totals.get(group, 0.0) + amount
            out.setdefault(group, []).append((change.time, totals[group]))
    return out
