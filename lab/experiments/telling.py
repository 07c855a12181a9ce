"""A recording in words: its story, how the cluster looked at a time, and where two of them part. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from lab.experiments.measures import Measures
from lab.experiments.recording import Change, Recording
from lab.experiments.state import State, condition, images, is_ready
from nodeagent.runtime.spread import spread

MAX_FIELDS = 5


def seconds(text: str) -> float:
    number = spread(text)
    if not isinstance(number, float):
        raise ValueError(f"{text!r} is no time")
    return number


def story(recording: Recording) -> list[str]:
    """Steps and marks in order, with how many pods were ready."""
    ready = Measures(recording).ready()
    entries = [(s.time, s.what) for s in recording.steps] + [(m.time, f"-- {m.name} --") for m in recording.marks]
    lines = [f"{at:10.3f} s  {what:60} {ready.at(at):4.0f} ready" for at, what in sorted(entries, key=lambda one: one[0])]
    kinds = len({c.key for c in recording.changes})
    return [*lines, f"{recording.end:10.3f} s  end; {len(recording.changes)} changes of {kinds} objects"]


def at(recording: Recording, time: float) -> list[str]:
    """Nodes and pods as they were."""
    state = State()
    for change in recording.changes:
        if change.time > time:
            break
        state.apply(change.type, change.key, change.object)
    lines = [f"node {n['metadata']['name']:20} ready={condition(n, 'Ready') or '?'}" for n in state.all("nodes")]
    for pod in state.all("pods"):
        meta, where = pod["metadata"], pod["spec"].get("nodeName", "-")
        going = " terminating" if "deletionTimestamp" in meta else ""
        phase = pod.get("status", {}).get("phase", "Pending")
        name = f"{meta['namespace']}/{meta['name']}"
        lines.append(f"pod {name:48} {phase:10} ready={is_ready(pod)!s:5} {where:14} {','.join(images(pod))}{going}")
    return lines


def parting(a: Recording, b: Recording) -> list[str]:
    """The first placement, and the first change, in which two runs part; nothing if they are equal."""
    lines = []
    for one, other in zip(a.changes, b.changes, strict=False):
        if one != other:
            lines.append(f"first change that differs: {_shown(one)}")
            if _shown(one) != _shown(other):
                lines.append(f"                     here: {_shown(other)}")
            lines += _fields(one.object, other.object) if one.key == other.key else []
            break
    else:
        if len(a.changes) != len(b.changes) or a.samples != b.samples:
            longer = a if len(a.changes) > len(b.changes) else b
            shorter = min(len(a.changes), len(b.changes))
            what = _shown(longer.changes[shorter]) if len(longer.changes) > shorter else "samples of load"
            lines.append(f"one goes on where the other ends: {what}")
    places = [{p.name: p.node for p in Measures(r).lives()} for r in (a, b)]
    for name, node in places[0].items():
        if name in places[1] and places[1][name] != node:
            lines.append(f"first pod on another node: {name}: {node or 'none'}, and {places[1][name] or 'none'}")
            break
    return lines


def _fields(one: Any, other: Any, path: str = "") -> list[str]:
    """The fields in which two objects differ, the first few."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(k for k in other if k not in one)]
        listed = [line for k in keys for line in _fields(one.get(k), other.get(k), f"{path}.{k}".lstrip("."))]
        return listed[:MAX_FIELDS]
    if one == other:
        return []
    return [f"  {path}: {_value(one)}, and {_value(other)}"]


def _value(value: Any) -> str:
    text = "none" if value is None else orjson.dumps(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shown(change: Change) -> str:
    return f"{change.time:.6f} s {change.type} {change.key.removeprefix('/registry/')} (revision {change.revision})"
