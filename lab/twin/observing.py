"""Times of pods from recordings: how long they took to start, get ready and stop, as they were recorded. Pure.

A recording has the time at which each change was heard, to the millisecond, where the API's own times are whole seconds; and a
run of an experiment has pods that started together, as a rollout lets them: one alone starts sooner.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from lab.experiments.recording import Recording
from lab.experiments.state import Tree, condition
from lab.twin.measuring import pulls


@dataclass
class _Times:
    """When a pod was first so far; None: not yet."""

    bound: float | None = None
    running: float | None = None
    ready: float | None = None
    ending: float | None = None


Samples = dict[str, list[float]]


class Observed(NamedTuple):
    """Seconds by stage (see lab/twin/calibration.py); a stage of which nothing was recorded is not in it. ``images``: by image,
    of pods with one container."""

    stages: Samples
    images: dict[str, Samples]


def observe(recordings: Iterable[Recording]) -> Observed:
    """The times of all pods. Restarts do not count."""
    out = Observed({}, {})
    for recording in recordings:
        pods: dict[str, _Times] = {}
        for time, type, _, _, tree in recording.of("pods"):
            containers = tree["spec"]["containers"]
            into = [out.stages]
            if len(containers) == 1:
                into.append(out.images.setdefault(containers[0].get("image", ""), {}))
            _look(pods.setdefault(tree["metadata"].get("uid", ""), _Times()), time, type, tree, into)
        if pulled := pulls([c.object for c in recording.of("events")]):
            out.stages.setdefault("pull", []).extend(pulled)
    return out._replace(images={image: samples for image, samples in out.images.items() if samples})


def _look(times: _Times, time: float, type: str, tree: Tree, into: list[Samples]) -> None:
    def add(stage: str, seconds: float) -> None:
        for samples in into:
            samples.setdefault(stage, []).append(max(0.0, seconds))

    if type == "DELETED":
        if times.ending is not None and times.running is not None:
            add("stop", time - times.ending)
        return
    if "deletionTimestamp" in tree["metadata"]:
        times.ending = time if times.ending is None else times.ending
        return
    if times.bound is None and tree["spec"].get("nodeName"):
        times.bound = time
    states = tree.get("status", {}).get("containerStatuses") or ()
    if times.running is None and states and all((s.get("state") or {}).get("running") for s in states):
        times.running = time
        if times.bound is not None and not any(s.get("restartCount") for s in states):
            add("start", time - times.bound)
    if times.ready is None and times.running is not None and condition(tree, "Ready") == "True":
        times.ready = time
        periods = [float(p.get("periodSeconds", 10)) for c in tree["spec"]["containers"] if (p := c.get("readinessProbe"))]
        if periods:
            # The probe's own rhythm comes on top of what is learned: half a period back lies between two questions.
            add("ready", time - times.running - max(periods) / 2)
