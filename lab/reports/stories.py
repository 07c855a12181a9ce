"""Pods as stories: in which phase each was, when, and why, as far as a recording tells. Pure.

Phases: waiting (for a node), starting, ready, unready (again), stopping, ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from lab.experiments.recording import Recording
from lab.experiments.state import Tree, condition
from navarch.api.pods import TERMINAL_PHASES

HASHES = ("pod-template-hash", "controller-revision-hash")


class Span(NamedTuple):
    phase: str
    begin: float
    end: float


@dataclass
class Story:
    """One pod's; ``workload``: its owner without the hash of the version; ``number``: how many of it came before."""

    uid: str
    name: str
    namespace: str
    workload: str
    owner: str
    version: str
    image: str
    number: int
    created: float
    node: str = ""
    bound: float | None = None
    spans: list[Span] = field(default_factory=list)
    whys: list[tuple[float, str]] = field(default_factory=list)

    @property
    def end(self) -> float:
        return self.spans[-1].end if self.spans else self.created

    @property
    def identity(self) -> tuple[str, int]:
        """The same for the same pod at another level of a factor, whose names are drawn anew."""
        return (f"{self.namespace}/{self.workload or self.name}", self.number)


def stories(recording: Recording) -> list[Story]:
    """All pods in the order in which they came."""
    out: dict[str, Story] = {}
    counts: dict[tuple[str, str], int] = {}
    now: dict[str, tuple[str, float]] = {}  # uid -> phase, since
    for change in recording.of("pods"):
        tree = change.object
        meta = tree["metadata"]
        uid = meta.get("uid", change.key)
        if uid not in out:
            out[uid] = _begun(tree, uid, change.time, counts)
        story = out[uid]
        if (node := tree["spec"].get("nodeName")) and story.bound is None:
            story.node, story.bound = node, change.time
        phase = "" if change.type == "DELETED" else _phase(tree, story, now.get(uid, ("", 0.0))[0])
        before, since = now.get(uid, ("", change.time))
        if phase != before:
            if before and change.time > since:
                story.spans.append(Span(before, since, change.time))
            now[uid] = (phase, change.time)
        why = "deleted" if change.type == "DELETED" else why_of(tree)
        if not story.whys or story.whys[-1][1] != why:
            story.whys.append((change.time, why))
    for uid, (phase, since) in now.items():
        if phase:
            out[uid].spans.append(Span(phase, since, recording.end))
    return list(out.values())


def _begun(tree: Tree, uid: str, time: float, counts: dict[tuple[str, str], int]) -> Story:
    meta = tree["metadata"]
    labels = meta.get("labels") or {}
    owner = next((o["name"] for o in meta.get("ownerReferences") or () if o.get("controller")), "")
    version = next((labels[h] for h in HASHES if h in labels), "")
    workload = owner.removesuffix(f"-{version}") if version else owner
    namespace = meta.get("namespace", "default")
    number = counts.get((namespace, workload), 0) if workload else 0
    counts[namespace, workload] = number + 1
    image = tree["spec"]["containers"][0].get("image", "")
    return Story(uid, meta["name"], namespace, workload, owner, version.removeprefix(f"{workload}-"), image, number, time)


def _phase(tree: Tree, story: Story, before: str) -> str:
    status = tree.get("status", {})
    if status.get("phase") in TERMINAL_PHASES:
        return "ended"
    if "deletionTimestamp" in tree["metadata"]:
        return "stopping"
    if not tree["spec"].get("nodeName"):
        return "waiting"
    ready = condition(tree, "Ready")
    if ready == "True" or (not ready and status.get("phase") == "Running"):  # decisions alone have no readiness
        return "ready"
    return "unready" if before in ("ready", "unready") else "starting"


def why_of(pod: Tree) -> str:
    """Why a pod is as it is, in one line, from its own status."""
    status = pod.get("status", {})
    reasons = [f"{c.get('reason')}: {c.get('message') or ''}".rstrip(": ") for c in status.get("conditions") or ()
            if c.get("type") == "DisruptionTarget" and c.get("status") == "True"]  # fmt: skip
    if "deletionTimestamp" in pod["metadata"]:
        return "; ".join(["is stopping", *reasons])
    if status.get("phase") in TERMINAL_PHASES:
        return f"{status['phase']}: {status.get('message') or status.get('reason') or 'its containers ended'}"
    if not pod["spec"].get("nodeName"):
        for one in status.get("conditions") or ():
            if one.get("type") == "PodScheduled" and one.get("status") == "False":
                return f"waits for a node: {one.get('message') or one.get('reason') or ''}"
        return "waits for the scheduler"
    for one in status.get("containerStatuses") or ():
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            return f"container {one['name']}: {waiting['reason']} {waiting.get('message') or ''}".rstrip()
    if condition(pod, "Ready") == "True":
        return "; ".join(["is ready", *reasons])
    if status.get("phase") == "Running":
        return "; ".join(["runs, not ready" if status.get("conditions") else "is placed", *reasons])
    return "; ".join(["starts", *reasons])


def versions(listed: Iterable[Story]) -> dict[tuple[str, str], str]:
    """A name for each (workload, version), in order of appearance: its image, or the workload, where that tells it apart."""
    images: dict[tuple[str, str], str] = {}
    for story in listed:
        images.setdefault((story.workload, story.version), story.image)
    names = list(images.values())
    workloads = [workload for workload, _ in images]
    out = {}
    for (workload, version), image in images.items():
        if names.count(image) == 1:
            out[workload, version] = image
        else:
            out[workload, version] = workload if workloads.count(workload) == 1 else f"{workload} {version}".strip()
    return out
