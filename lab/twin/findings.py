"""Effects of a change on a cluster, from the recording of it. Pure: a rehearsal's recording and a live one are read alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab.experiments.recording import Recording
from lab.experiments.state import State, condition, is_live, is_ready
from lab.twin.learning import workload_of
from lab.twin.settling import KINDS, restless
from lab.twin.snapshot import Tree

CHANGE, REST, BEGIN = "change", "rest", "begin"
EVICTED, PREEMPTED, TAINTED = "EvictionByEvictionAPI", "PreemptionByScheduler", "DeletionByTaintManager"


@dataclass
class Low:
    """One workload: pods that were ready before, fewest at any time, and at the end; ``below``: seconds with fewer than
    before; ``desired`` at the end; ``created`` and ``removed``: pods."""

    before: int = 0
    fewest: int = 0
    after: int = 0
    desired: int = 0
    below: float = 0.0
    created: int = 0
    removed: int = 0


@dataclass
class Findings:
    """``seconds`` until all was at rest, None if that did not come. Pods are ``namespace/name``."""

    seconds: float | None
    workloads: dict[str, Low] = field(default_factory=dict)
    evicted: dict[str, str] = field(default_factory=dict)  # pod -> workload
    preempted: dict[str, str] = field(default_factory=dict)
    tainted: dict[str, str] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)  # pod -> why, of those that have no node at the end
    blocked: dict[str, int] = field(default_factory=dict)  # text of a refusal -> how often
    refused: list[str] = field(default_factory=list)  # the change itself
    quotas: list[str] = field(default_factory=list)
    restless: dict[str, str] = field(default_factory=dict)
    noticed: dict[str, float] = field(default_factory=dict)  # lost node -> seconds until it was NotReady
    orphans: list[str] = field(default_factory=list)  # pods that went and that nobody makes anew


def findings(recording: Recording, drained: tuple[str, ...] = (), lost: tuple[str, ...] = ()) -> Findings:
    """Reads a recording from its mark ``change`` to its end."""
    change = recording.mark(CHANGE) or 0.0
    rest = recording.mark(REST)
    out = Findings(None if rest is None else rest - change)
    end = recording.end if rest is None else rest
    counts = _Counts(change, end)
    state, before = State(), State()
    moved = False
    final: dict[str, Tree] = {}
    for one in recording.changes:
        if not moved and one.time > change:
            moved = True
            counts.begin()
            before_restless = restless(before)
        if not moved:
            before.apply(one.type, one.key, one.object)
        state.apply(one.type, one.key, one.object)
        kind = one.key.split("/")[2]
        if kind == "pods":
            counts.pod(one.time, one.type, one.key, one.object)
            if moved:
                _disrupted(out, one.object)
            final[one.key] = one.object
            if one.type == "DELETED":
                del final[one.key]
        elif kind == "nodes" and one.object["metadata"]["name"] in lost and moved:
            name = one.object["metadata"]["name"]
            if condition(one.object, "Ready") != "True":
                out.noticed.setdefault(name, one.time - change)
        elif kind == "events" and moved and one.object.get("reason") == "FailedCreate":
            text = one.object.get("message") or ""
            if "exceeded quota" in text:
                where = one.object.get("involvedObject") or {}
                owner = f"{where.get('kind')} {where.get('namespace')}/{where.get('name')}"
                line = f"{owner}: {text[text.index('exceeded quota') :]}"
                if line not in out.quotas:
                    out.quotas.append(line)
    if not moved:
        counts.begin()
        before_restless = restless(before)
    desired = {
        f"{kind} {t['metadata']['namespace']}/{t['metadata']['name']}": _desired(resource, t)
        for resource, kind in KINDS.items()
        for t in state.all(resource)
    }
    generations = [
        {
            (r, t["metadata"].get("namespace"), t["metadata"]["name"]): t["metadata"].get("generation")
            for r in KINDS
            for t in s.all(r)
        }
        for s in (before, state)
    ]
    changed = {
        f"{KINDS[key[0]]} {key[1]}/{key[2]}"
        for key, generation in generations[1].items()
        if generations[0].get(key) != generation
    }
    for name, low in counts.lows(end).items():
        low.desired = desired.get(name, 0)
        if low.created or low.removed or low.fewest < low.before or name in changed:
            out.workloads[name] = low
    for key, pod in final.items():
        if (
            is_live(pod)
            and not pod["spec"].get("nodeName")
            and (key not in counts.earlier or workload_of(pod) in out.workloads)
        ):
            out.pending[key.removeprefix("/registry/pods/")] = _why_pending(pod)
    for step in recording.steps:
        word, _, rest_of = step.what.partition(": ")
        if word == "blocked":
            text = rest_of.partition(": ")[2]
            out.blocked[text] = out.blocked.get(text, 0) + 1
        elif word == "refused":
            out.refused.append(rest_of)
    if rest is None:
        for name, why in restless(state, drained, lost).items():
            if name not in before_restless or name in changed:
                out.restless[name] = "; ".join(filter(None, (why, *_reasons(state, name))))
    disrupted = out.evicted | out.tainted | out.preempted
    out.orphans = [name for name, workload in disrupted.items() if workload.startswith("Pod ")]
    return out


def rested(
    recording: Recording, change: float, drained: tuple[str, ...] = (), lost: tuple[str, ...] = ()
) -> float | None:
    """When a live recording came to rest for good after ``change`` (seconds since its start); None if it did not. A rehearsal
    marks it itself."""
    state = State()
    rest: float | None = None
    for one in recording.changes:
        state.apply(one.type, one.key, one.object)
        if one.time > change and one.key.split("/")[2] in (*KINDS, "pods", "nodes"):
            rest = None if restless(state, drained, lost) else (one.time if rest is None else rest)
    return rest


class _Counts:
    """Ready pods by workload, over time."""

    def __init__(self, change: float, end: float) -> None:
        self.change, self.end = change, end
        self.earlier: set[str] = set()  # keys of pods that were there before
        self._ready: dict[str, str] = {}  # key -> workload
        self._now: dict[str, int] = {}
        self._lows: dict[str, Low] = {}
        self._since: dict[str, float] = {}
        self._begun = False
        self._there: set[str] = set()

    def begin(self) -> None:
        self._begun = True
        self.earlier = set(self._there)
        for name, count in self._now.items():
            self._lows[name] = Low(count, count)
            self._since[name] = self.change

    def pod(self, time: float, type: str, key: str, pod: Tree) -> None:
        name = workload_of(pod)
        ready = type != "DELETED" and is_ready(pod)
        self._now.setdefault(name, 0)
        if type == "DELETED":
            self._there.discard(key)
        else:
            self._there.add(key)
        if self._begun and name not in self._lows:
            self._lows[name] = Low()
            self._since[name] = time
        if self._begun:
            self._lows[name].created += type == "ADDED"
            self._lows[name].removed += type == "DELETED"
        if ready == (key in self._ready):
            return
        if ready:
            self._ready[key] = name
        else:
            del self._ready[key]
        if self._begun:
            self._pass(name, min(time, self.end))
        self._now[name] += 1 if ready else -1
        if self._begun and time <= self.end:
            self._lows[name].fewest = min(self._lows[name].fewest, self._now[name])

    def _pass(self, name: str, time: float) -> None:
        low = self._lows[name]
        if self._now[name] < low.before:
            low.below += max(0.0, time - self._since[name])
        self._since[name] = time

    def lows(self, end: float) -> dict[str, Low]:
        for name, low in self._lows.items():
            self._pass(name, end)
            low.after = self._now[name]
        return self._lows


def _disrupted(out: Findings, pod: Tree) -> None:
    for one in pod.get("status", {}).get("conditions") or ():
        if one.get("type") == "DisruptionTarget" and one.get("status") == "True":
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            place = {EVICTED: out.evicted, PREEMPTED: out.preempted, TAINTED: out.tainted}.get(one.get("reason", ""))
            if place is not None:
                place[name] = workload_of(pod)


def _desired(resource: str, tree: Tree) -> int:
    if resource == "daemonsets":
        return int(tree.get("status", {}).get("desiredNumberScheduled", 0))
    return int(tree["spec"].get("replicas", 1))


def _why_pending(pod: Tree) -> str:
    for one in pod.get("status", {}).get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return str(one.get("message") or one.get("reason") or "")
    return "the scheduler has not looked at it yet"


def _reasons(state: State, name: str) -> list[str]:
    """Why a workload does not get on: its conditions, and what its pods wait for."""
    kind, _, where = name.partition(" ")
    namespace, _, own = where.partition("/")
    resource = next((r for r, k in KINDS.items() if k == kind), "")
    tree = state.get(f"/registry/{resource}/{namespace}/{own}") if resource else None
    out = []
    for one in (tree or {}).get("status", {}).get("conditions") or ():
        if one.get("reason") == "ProgressDeadlineExceeded" or (
            one.get("type") == "ReplicaFailure" and one.get("status") == "True"
        ):
            out.append(str(one.get("message") or one.get("reason")))
    waits: dict[str, int] = {}
    for pod in state.all("pods"):
        if workload_of(pod) != name or not is_live(pod) or is_ready(pod):
            continue
        why = "" if pod["spec"].get("nodeName") else _why_pending(pod)
        for status in pod.get("status", {}).get("containerStatuses") or ():
            waiting = (status.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                why = why or f"{status['name']}: {waiting['reason']}"
        waits[why or "running, not ready"] = waits.get(why or "running, not ready", 0) + 1
    out += [f"{count} pods: {why}" for why, count in waits.items()]
    return out
