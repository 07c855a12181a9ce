"""The journal of one pod's state machine: what it was told and what it decided, kept so that it can be played again.

Entries are plain data (JSON). A chapter begins with all that the machine remembers; so :func:`replay` makes a machine from
it, tells it the same things, and compares its decisions with those that were made. A pod that behaved oddly on somebody's
node becomes a test by saving what ``navarch why POD --container -o json`` prints.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import msgspec

from navarch.api.types import core_v1
from nodeagent.pods.backoff import BackoffTable
from nodeagent.pods.machine import Decision, PodMachine
from nodeagent.pods.observed import Observed, Waiting
from nodeagent.runtime.runtime import Container

CHAPTER = 50
"""Entries in a chapter. Two chapters are kept: the last 50 to 100 entries."""
Entry = dict[str, Any]
P = ParamSpec("P")
R = TypeVar("R")

# How the arguments of what a machine is told are read back. What is not listed is text or a number.
_READ: dict[str, tuple[Any, ...]] = {
    "restarted": (core_v1.Container, Container | None, float),
}


class _State(msgspec.Struct):
    """All that a machine keeps between decisions."""

    qos: str
    failures: dict[str, Waiting]
    sandbox_failure: Waiting | None
    verdict: tuple[str, str] | None
    rejected: bool
    terminating_since: float | None
    start_time: str | None
    grace: float
    finished: bool
    backoff: dict[str, tuple[float, float]]
    disruption: str | None = None
    verdict_grace: float | None = None


def _noted(
    method: Callable[Concatenate[RecordedMachine, P], R],
) -> Callable[Concatenate[RecordedMachine, P], R]:
    """Writes a call from outside into the journal; what the machine calls itself follows from it."""

    @functools.wraps(method)
    def call(self: RecordedMachine, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if not self.inside:
            self.note({"told": method.__name__, "args": _plain(args), "options": _plain(kwargs)})
        before, self.inside = self.inside, True
        try:
            return method(self, *args, **kwargs)
        finally:
            self.inside = before

    return call


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)


class RecordedMachine(PodMachine):
    """A state machine with a journal. It decides exactly as :class:`PodMachine` does."""

    def __init__(self, *, qos: str = "", restart_backoff: BackoffTable | None = None) -> None:
        super().__init__(qos=qos, restart_backoff=restart_backoff)
        self.chapters: list[list[Entry]] = []
        self.inside = False  # within a call that is in the journal already
        self._pod = ""  # the resourceVersion of the pod in the journal

    def note(self, entry: Entry) -> None:
        if not self.chapters or len(self.chapters[-1]) >= CHAPTER:
            self.chapters = [*self.chapters[-1:], [{"state": _plain(_state_of(self))}]]
            self._pod = ""
        self.chapters[-1].append(entry)

    @property
    def journal(self) -> list[Entry]:
        """All entries, the oldest first."""
        return [entry for chapter in self.chapters for entry in chapter]

    failed = _noted(PodMachine.failed)
    sandbox_failed = _noted(PodMachine.sandbox_failed)
    started = _noted(PodMachine.started)
    restarted = _noted(PodMachine.restarted)
    retry_now = _noted(PodMachine.retry_now)
    fail = _noted(PodMachine.fail)
    reject = _noted(PodMachine.reject)

    def decide(self, pod: core_v1.Pod, observation: Observed, now: float) -> Decision:
        entry: Entry = {"now": now, "seen": _plain(observation)}
        self.note(entry)  # before the state changes, which a new chapter begins with
        version = pod.metadata.resource_version or ""
        if version != self._pod or not version:
            entry["pod"], self._pod = _plain(pod), version
        self.inside = True
        try:
            decision = super().decide(pod, observation, now)
        finally:
            self.inside = False
        entry["decided"] = shown(decision)
        return decision


def shown(decision: Decision) -> Entry:
    """A decision as plain data; actions carry the name of their class."""
    actions = [{"do": type(action).__name__, **_plain(action)} for action in decision.actions]
    return {"actions": actions, "phase": decision.status.phase, "wake": decision.wake, "ended": decision.ended}


def _state_of(machine: PodMachine) -> _State:
    return _State(
        machine.qos, machine.failures, machine.sandbox_failure, machine.verdict, machine.rejected, machine.terminating_since,
        machine.start_time, machine._grace, machine._finished_by_itself, machine.restarts._entries,
        machine.disruption, machine.verdict_grace,
    )  # fmt: skip


def _machine(state: _State) -> PodMachine:
    machine = PodMachine(qos=state.qos)
    machine.failures, machine.sandbox_failure = dict(state.failures), state.sandbox_failure
    machine.verdict, machine.rejected = state.verdict, state.rejected
    machine.terminating_since, machine.start_time = state.terminating_since, state.start_time
    machine._grace, machine._finished_by_itself = state.grace, state.finished
    machine.restarts._entries = dict(state.backoff)
    machine.disruption, machine.verdict_grace = state.disruption, state.verdict_grace
    return machine


def replay(journal: Sequence[Entry]) -> list[str]:
    """Plays a journal again. Returns the decisions that differ from those in it, as text; empty if none does.

    Raises ValueError for what is no journal."""
    machine: PodMachine | None = None
    pod: core_v1.Pod | None = None
    differences = []
    for number, entry in enumerate(journal):
        if "state" in entry:
            machine = _machine(msgspec.convert(entry["state"], _State))
            continue
        if machine is None:
            raise ValueError("a journal begins with the machine's state")
        if "told" in entry:
            types = _READ.get(entry["told"], ())
            args = [msgspec.convert(a, types[i]) if i < len(types) else a for i, a in enumerate(entry["args"])]
            getattr(machine, entry["told"])(*args, **entry.get("options") or {})
            continue
        pod = msgspec.convert(entry["pod"], core_v1.Pod) if "pod" in entry else pod
        if pod is None:
            raise ValueError(f"entry {number}: no pod yet")
        decision = machine.decide(pod, msgspec.convert(entry["seen"], Observed), entry["now"])
        if (again := cast(Entry, _plain(shown(decision)))) != entry["decided"]:
            differences.append(f"entry {number}: decided {entry['decided']}, now {again}")
    return differences
