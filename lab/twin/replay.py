"""Replay: the arrivals, deletions and node changes of a recording, fed into a virtual cluster with components of one's choice.

What users do is fed; what controllers, the scheduler and node agents did is left to those of the virtual cluster. With ``pods``
the pods themselves arrive, without their owners: the same work for every scheduler, whatever the controllers made of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from apiserver.kinds.batch.jobs import NAME_LABELS, UID_LABELS
from lab.experiments.recording import Change, Recorder, Recording
from lab.experiments.state import condition
from lab.simulation.cluster import Record, Simulation
from lab.twin.cluster import MODELLED, Settings, Twin, node_spec
from lab.twin.learning import Learned, learn
from lab.twin.snapshot import Snapshot, Tree, started
from navarch.api import kinds
from navarch.api.errors import StatusError
from navarch.api.pods import TERMINAL_PHASES
from navarch.api.types import core_v1
from nodeagent.runtime.stages import Stages

log = logging.getLogger(__name__)

BEGIN = "begin"
LEAD = 2.0  # seconds that the virtual cluster has before ``begin``, to learn what there is
DERIVED = {"endpoints", "endpointslices", "controllerrevisions", "nodes", "csinodes"}
WORKLOADS = {
    "replicationcontrollers", "replicasets", "deployments", "statefulsets", "daemonsets", "jobs", "cronjobs",
    "poddisruptionbudgets",
}  # fmt: skip
GENERATED = {*NAME_LABELS, *UID_LABELS}
"""Labels that the API server gives a Job's pods, with its selector, and refuses from anyone else."""
KINDS = {kind.resource: kind for kind in kinds.KINDS if kind.resource in MODELLED and kind.version != "v2"}


@dataclass(frozen=True)
class Feed:
    """One thing to do at a time: ``create``, ``update`` or ``delete`` of an object, or ``add``, ``remove``, ``off``, ``on`` of
    a node."""

    time: float
    what: str
    key: str
    object: Tree


class Exact(Learned):
    """Pods behave as the very pods of that name did in the recording, as far as it tells."""

    lives: dict[str, dict[str, Any]]

    def behaviour(self, pod: core_v1.Pod, container: str) -> Stages:
        stages = super().behaviour(pod, container)
        own = self.lives.get(f"{pod.metadata.namespace}/{pod.metadata.name}")
        return Stages(**{**vars(stages), **own}) if own and container else stages


def lives(recording: Recording) -> dict[str, dict[str, Any]]:
    """How long each pod ran that ended by itself, in the recording's own time."""
    running: dict[str, float] = {}
    out: dict[str, dict[str, Any]] = {}
    for change in recording.of("pods"):
        name, phase = change.key.removeprefix("/registry/pods/"), change.object.get("status", {}).get("phase")
        if phase == "Running":
            running.setdefault(name, change.time)
        elif phase in TERMINAL_PHASES and name in running and name not in out:
            out[name] = {"run": change.time - running[name], "exit_code": 0 if phase == "Succeeded" else 1}
    return out


def is_root(resource: str, tree: Tree, pods: bool) -> bool:
    """Whether people, not controllers, made an object (``pods``: or whether it is a pod, or no workload)."""
    if resource not in MODELLED or resource in DERIVED:
        return False
    owned = any(o.get("controller") for o in tree["metadata"].get("ownerReferences") or ())
    if pods:
        return resource == "pods" or (not owned and resource not in WORKLOADS)
    return not owned


def feeds(recording: Recording, begin: float, pods: bool, grace: float) -> list[Feed]:
    """Lists what is to be done after ``begin``, in order. ``grace``: seconds after which a silent node is noticed; so much
    earlier it went."""
    out: list[Feed] = []
    before: dict[str, Tree] = {}
    for change in recording.changes:
        resource = change.key.split("/")[2]
        old = before.get(change.key)
        if change.type == "DELETED":
            before.pop(change.key, None)
        else:
            before[change.key] = change.object
        if change.time <= begin:
            continue
        if resource == "nodes":
            out += _node(change, old, grace, begin)
        elif is_root(resource, change.object, pods):
            out += _object(change, old)
    return sorted(out, key=lambda feed: feed.time)


def _node(change: Change, old: Tree | None, grace: float, begin: float) -> Iterable[Feed]:
    if change.type == "DELETED":
        yield Feed(change.time, "remove", change.key, change.object)
        return
    if old is None:
        yield Feed(change.time, "add", change.key, change.object)
        return
    was, now = condition(old, "Ready"), condition(change.object, "Ready")
    if was == "True" != now:
        yield Feed(max(begin, change.time - grace), "off", change.key, change.object)
    elif now == "True" != was:
        yield Feed(change.time, "on", change.key, change.object)
    if bool(old["spec"].get("unschedulable")) != bool(change.object["spec"].get("unschedulable")):
        yield Feed(change.time, "update", change.key, change.object)


def _object(change: Change, old: Tree | None) -> Iterable[Feed]:
    leaving = "deletionTimestamp" in change.object["metadata"]
    if change.type == "DELETED" or leaving:
        if old is not None and "deletionTimestamp" not in old["metadata"]:
            yield Feed(change.time, "delete", change.key, change.object)
    elif old is None:
        yield Feed(change.time, "create", change.key, change.object)
    elif not change.key.startswith("/registry/pods/") and (_essence(old) != _essence(change.object)):
        yield Feed(change.time, "update", change.key, change.object)


def _essence(tree: Tree) -> dict[str, Any]:
    meta = tree["metadata"]
    return {**{k: v for k, v in tree.items() if k not in ("status", "metadata")}, "labels": meta.get("labels")}


def fresh(tree: Tree) -> Tree:
    """An object as if it were made anew: without what servers, controllers and schedulers wrote into it."""
    meta = {
        k: v for k, v in tree["metadata"].items() if k in ("name", "namespace", "labels", "annotations", "finalizers")
    }
    out = {k: v for k, v in tree.items() if k not in ("status", "metadata")} | {"metadata": meta}
    if tree.get("kind") == "Job" and not tree["spec"].get("manualSelector"):
        template = tree["spec"]["template"]
        labels = (template.get("metadata") or {}).get("labels") or {}
        own = {**(template.get("metadata") or {}), "labels": {k: v for k, v in labels.items() if k not in GENERATED}}
        out["spec"] = {k: v for k, v in tree["spec"].items() if k != "selector"} | {
            "template": {**template, "metadata": own}
        }
        meta["labels"] = {k: v for k, v in (meta.get("labels") or {}).items() if k not in GENERATED}
    if tree.get("kind") == "Pod":
        out["spec"] = {k: v for k, v in tree["spec"].items() if k not in ("nodeName", "priority", "preemptionPolicy")}
    return out


class Replay:
    """One replay from ``begin`` (seconds since the recording's start; None: from its mark ``begin``) to its end."""

    def __init__(
        self, recording: Recording, begin: float | None = None, *, pods: bool = False, seed: int = 1,
        settings: Settings | None = None,
    ) -> None:  # fmt: skip
        self.recording, self.pods, self.seed, self.settings = recording, pods, seed, settings or Settings()
        self.begin = (recording.mark(BEGIN) or 0.0) if begin is None else begin
        if not 0 <= self.begin <= recording.end:
            raise ValueError(f"the recording lasts {recording.end:.0f} s: it cannot be replayed from {self.begin:g} s")
        self.refused: list[str] = []
        snapshot = Snapshot.at(recording, self.begin)
        if not snapshot.of("nodes"):
            raise ValueError(f"at {self.begin:g} s the recording has no nodes; replay it from a later time")
        if pods:
            snapshot.objects = {k: v for k, v in snapshot.objects.items() if k.split("/")[2] not in WORKLOADS}
        learned = learn(snapshot, recording)
        self.learned = Exact(**{k: v for k, v in vars(learned).items() if not k.startswith("_")})
        self.learned.lives = lives(recording)
        self.snapshot = snapshot
        header = {"source": f"replay of {recording.header.get('source', 'a recording')}", "seed": seed}
        begin_text = recording.header.get("start")
        self.recorder = Recorder(header | ({"start": begin_text} if begin_text else {}))
        self.twin: Twin

    def run(self) -> Recording:
        """Plays it. ``refused`` then holds what the virtual cluster's server refused."""
        self.snapshot = replace(self.snapshot, now=started(self.recording) + self.begin - LEAD)
        self.twin = Twin(self.snapshot, self.learned, self.seed, self.settings)
        self.twin.on_record = self._record
        self.twin.run(self._scenario)
        return self.recorder.recording()

    def _record(self, record: Record) -> None:
        self.recorder.change(self._now(record.time), record.type, record.key, record.revision, record.value)

    def _now(self, monotonic: float) -> float:
        """Seconds since the recording's start, at a virtual time."""
        return max(self.begin, self.begin + monotonic - LEAD)

    async def _scenario(self, cluster: Simulation) -> None:
        await cluster.sleep(max(0.0, LEAD - cluster.world.monotonic()))
        self.recorder.mark(self.begin, BEGIN)
        grace = self.twin.manager.context.config.node_monitor_grace_period
        for feed in feeds(self.recording, self.begin, self.pods, grace):
            await cluster.world.sleep(max(0.0, feed.time - self._now(cluster.world.monotonic())))
            try:
                await self._do(cluster, feed)
            except StatusError as error:
                if error.status_reason != "AlreadyExists" and not (feed.what == "delete" and error.http_code == 404):
                    self.refused.append(f"{feed.what} {feed.key.removeprefix('/registry/')}: {error.message}")
        await cluster.sleep(max(0.0, self.recording.end - self._now(cluster.world.monotonic())))
        self.recorder.finish(self._now(cluster.world.monotonic()))

    async def _do(self, cluster: Simulation, feed: Feed) -> None:
        meta = feed.object["metadata"]
        name, namespace = meta["name"], meta.get("namespace")
        if feed.what == "add":
            cluster.fleet.add_node(node_spec(feed.object))
        elif feed.what == "remove":
            cluster.fleet.remove_node(name)
            await cluster.client[core_v1.Node].delete(name)
        elif feed.what in ("off", "on"):
            (cluster.power_off if feed.what == "off" else cluster.power_on)(name)
        else:
            resource = feed.key.split("/")[2]
            verbs = cluster.client.tree(kinds_of(resource))
            if feed.what == "create":
                await verbs.create(fresh(feed.object), namespace)
            elif feed.what == "delete":
                await verbs.delete(name, namespace)
            elif resource == "nodes":
                await verbs.patch(name, None, {"spec": {"unschedulable": feed.object["spec"].get("unschedulable")}})
            else:
                await verbs.patch(name, namespace, fresh(feed.object))


def kinds_of(resource: str) -> Any:
    """The kind of a resource that the twin has."""
    return KINDS[resource]
