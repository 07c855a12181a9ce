"""The scheduling queue: pods wait active (by priority, then age), in back-off, or until an event may help them.

    active         ready to be tried
    backoff        tried and failed; ready after 1 s, doubling to 10 s, with each attempt
    unschedulable  refused by some plugins; an event that one of those plugins registered for, and says may help (its
                   queueing hint), wakes them; all are tried again after five minutes in case an event was missed

Pods that are unschedulable are kept by the plugins that refused them, so an event costs nothing to the others.

No wake-up is lost: what happens while a pod is in flight (being decided on, waiting for a permit or its volumes, being
bound) is kept until it is back, and asked then. Nobody starves: a pod that failed goes behind those of its priority that
came before it returned, and the flush brings back what no event would.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from navarch.world import World
from scheduler.framework.blame import Fault, blame
from scheduler.framework.outcomes import Rejected
from scheduler.framework.plugin import POD_CHANGED, Event, Plugin, Profile
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo

FLUSH_AFTER = 300.0  # seconds
FAILURE = "ScheduleAttemptFailure"
TRIMMED = 1024  # entries that the log of events may keep too long


@dataclass
class Waiting:
    """A pod in the queue. ``since`` is when it was first seen, ``queued`` when it last came (back); both monotonic."""

    pod: PodInfo
    since: float
    attempts: int = 0
    failed_at: float = 0.0
    place: str = "active"  # active, backoff, unschedulable, gated or flight
    refused_by: tuple[str, ...] = ()
    queued: float = 0.0
    changed: PodInfo | None = None  # what it was when it took off, if it changed in flight
    token: int = 0  # heap entries with another token are stale
    gate: str = ""


@dataclass
class SchedulingQueue:
    """See the module. ``profiles``: by scheduler name. ``table``: what queueing hints look at. ``first_backoff`` and
    ``most_backoff``: seconds after the first failed attempt, and at most. ``pods``: all that want a node, those in flight
    too, by uid. ``incoming``: called with (place, why) at each move."""

    world: World
    profiles: Mapping[str, Profile]
    table: NodeTable
    first_backoff: float = 1.0
    most_backoff: float = 10.0
    pods: dict[str, Waiting] = field(default_factory=dict)  # by uid
    incoming: Callable[[str, str], None] = lambda place, why: None  # told of each move, for metrics
    faulty: Callable[[PodInfo, Fault], None] = lambda pod, fault: None  # told when a plugin raises what it should not

    def __post_init__(self) -> None:
        self._active: list[tuple[Any, int, str]] = []  # (the sorter's key, token, uid)
        self._log: list[Event] = []  # what happened since the oldest pod in flight was popped
        self._log_start = 0  # how many entries were dropped from its front
        self._flying: dict[str, int] = {}  # uid -> where the log was when it was popped, oldest first
        self._sorter = next((p.sorter for p in self.profiles.values() if p.sorter), None)
        self._timers: list[tuple[float, int, str]] = []  # (due, token, uid): ends of back-off, and the flush
        self._sequence = 0
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._listening: dict[str, list[tuple[Plugin, dict[str, Waiting]]]] = {}  # event kind -> who may be woken
        self._parked: dict[tuple[str, str], dict[str, Waiting]] = {}  # (profile, plugin) -> uid -> pod
        for profile in self.profiles.values():
            for plugin in profile.plugins:
                parked = self._parked[profile.name, plugin.name] = {}
                for kind in sorted(plugin.events):
                    self._listening.setdefault(kind, []).append((plugin, parked))
        self._unexplained: dict[str, Waiting] = {}  # unschedulable, no plugin to blame: any event wakes them

    def __len__(self) -> int:
        return len(self.pods)

    def add(self, pod: PodInfo) -> None:
        """A pod that wants a node, new or changed."""
        waiting = self.pods.get(pod.uid)
        if waiting is None:
            now = self.world.monotonic()
            waiting = self.pods[pod.uid] = Waiting(pod, now, queued=now)
        else:
            old, waiting.pod = waiting.pod, pod
            if waiting.place in ("flight", "active", "backoff"):
                if waiting.place == "flight" and waiting.changed is None:
                    waiting.changed = old
                return
            if waiting.place == "unschedulable" and not self._own_change_helps(waiting, old):
                return
        self._enqueue(waiting, "PodUpdate" if waiting.attempts else "PodAdd")

    def _own_change_helps(self, waiting: Waiting, old: PodInfo) -> bool:
        """Whether a plugin that refused a pod says that the pod's own change may help."""
        pod, by = waiting.pod, waiting.refused_by
        plugins = [p for p in self.profiles[pod.profile].plugins if p.name in by]
        return not by or any(POD_CHANGED in p.events and self._own_hint(p, old, pod) for p in plugins)

    def _own_hint(self, plugin: Plugin, old: PodInfo, pod: PodInfo) -> bool:
        try:
            return plugin.own_change_helps(old, pod)
        except Exception as error:
            self.faulty(pod, blame(error))
            return True  # as upstream: a hint that fails is no reason to let the pod wait

    def _hint(self, plugin: Plugin, event: Event, pod: PodInfo) -> bool:
        try:
            return plugin.helps(event, pod, self.table)
        except Exception as error:
            self.faulty(pod, blame(error))
            return True

    def remove(self, uid: str) -> None:
        waiting = self.pods.pop(uid, None)
        if waiting is not None:
            self._unpark(waiting)
            self._land(uid)

    def counts(self) -> dict[str, int]:
        """How many pods are where; those in flight count as active."""
        out = {"active": 0, "backoff": 0, "unschedulable": 0, "gated": 0}
        for waiting in self.pods.values():
            out["active" if waiting.place == "flight" else waiting.place] += 1
        return out

    def parked(self) -> dict[tuple[str, str], int]:
        """(profile, plugin) -> how many pods it keeps from being scheduled."""
        return {key: len(pods) for key, pods in self._parked.items() if pods}

    async def pop(self) -> PodInfo:
        """The next pod to try; it stays known, in flight, until :meth:`remove` or a failure brings it back."""
        while True:
            while self._active:
                _, token, uid = heapq.heappop(self._active)
                waiting = self.pods.get(uid)
                if waiting is not None and waiting.token == token and waiting.place == "active":
                    waiting.place, waiting.changed = "flight", None
                    waiting.attempts += 1
                    self._flying[uid] = self._log_start + len(self._log)
                    return waiting.pod
            self._wake.clear()
            await self._wake.wait()

    def unschedulable(self, uid: str, refused_by: Iterable[str]) -> None:
        """The pod in flight fits nowhere; it waits for an event that may help, unless that came already."""
        waiting = self.pods.get(uid)
        if waiting is None:
            return
        missed = self._land(uid)
        waiting.failed_at = waiting.queued = self.world.monotonic()
        waiting.refused_by = refusing = tuple(refused_by)
        if waiting.changed and self._own_change_helps(waiting, waiting.changed):
            self._enqueue(waiting, "PodUpdate")
            return
        plugins = [p for p in self.profiles[waiting.pod.profile].plugins if p.name in refusing]
        for event in missed:
            if not plugins or any(
                event.kind in p.events and self._hint(p, event, waiting.pod) for p in plugins
            ):
                self._enqueue(waiting, event.kind)
                return
        self._park(waiting, "unschedulable", refusing)
        self._timer_at(waiting.failed_at + FLUSH_AFTER, waiting)

    def _park(self, waiting: Waiting, place: str, refused_by: tuple[str, ...]) -> None:
        self._place(waiting, place, FAILURE)
        waiting.refused_by = refused_by
        for plugin in refused_by:
            parked = self._parked.get((waiting.pod.profile, plugin))
            if parked is not None:
                parked[waiting.pod.uid] = waiting
        if not refused_by:
            self._unexplained[waiting.pod.uid] = waiting

    def failed(self, uid: str) -> None:
        """The pod in flight could not be bound for a reason that has nothing to do with nodes; tried again later."""
        waiting = self.pods.get(uid)
        if waiting is not None:
            self._land(uid)
            waiting.failed_at = waiting.queued = self.world.monotonic()
            self._back_off(waiting, FAILURE)

    def happened(self, event: Event) -> None:
        """Wakes the pods that were refused by a plugin that says that this event may help them."""
        if self._flying:
            self._log.append(event)
        woken = list(self._unexplained.values())
        for plugin, parked in self._listening.get(event.kind, ()):
            if parked:
                woken += [w for w in parked.values() if self._hint(plugin, event, w.pod)]
        for waiting in woken:
            if waiting.place in ("unschedulable", "gated"):
                self._enqueue(waiting, event.kind)

    def activate(self, uids: Iterable[str]) -> None:
        """Moves pods to the active queue at once, whatever they wait for (but gates)."""
        for uid in uids:
            waiting = self.pods.get(uid)
            if waiting is not None and waiting.place in ("unschedulable", "backoff"):
                self._activate(waiting, "ForceActivate")

    def _land(self, uid: str) -> list[Event]:
        """A pod is not in flight any more: what happened meanwhile. The log forgets what nobody asks for."""
        began = self._flying.pop(uid, None)
        if began is None:
            return []
        missed = self._log[began - self._log_start :]
        if not self._flying:
            self._log_start += len(self._log)
            self._log.clear()
        elif (oldest := next(iter(self._flying.values()))) - self._log_start > TRIMMED:
            del self._log[: oldest - self._log_start]
            self._log_start = oldest
        return missed

    def _unpark(self, waiting: Waiting) -> None:
        for plugin in waiting.refused_by:
            parked = self._parked.get((waiting.pod.profile, plugin))
            if parked is not None:
                parked.pop(waiting.pod.uid, None)
        self._unexplained.pop(waiting.pod.uid, None)
        waiting.refused_by = ()

    def _enqueue(self, waiting: Waiting, why: str) -> None:
        for plugin in self.profiles[waiting.pod.profile].pre_enqueuers:
            try:
                plugin.pre_enqueue(waiting.pod)
            except Rejected as rejected:
                waiting.gate = str(rejected)
                self._park(waiting, "gated", (plugin.name,))
                return
            except Exception as error:
                fault = blame(error)
                waiting.gate = str(fault)
                self._park(waiting, "gated", (plugin.name,))
                self._timer_at(self.world.monotonic() + self.most_backoff, waiting)  # it may do better then
                self.faulty(waiting.pod, fault)
                return
        waiting.gate = ""
        if waiting.attempts:
            self._back_off(waiting, why)
        else:
            self._activate(waiting, why)

    def _back_off(self, waiting: Waiting, why: str) -> None:
        delay = min(self.most_backoff, self.first_backoff * 2 ** min(max(waiting.attempts - 1, 0), 30))
        due = waiting.failed_at + delay
        if due <= self.world.monotonic():
            self._activate(waiting, why)
        else:
            self._place(waiting, "backoff", why)
            self._timer_at(due, waiting)

    def _activate(self, waiting: Waiting, why: str) -> None:
        self._place(waiting, "active", why)
        pod = waiting.pod
        key: Any = -pod.priority, waiting.queued
        if self._sorter is not None:
            try:
                key = _Sortable(self._sorter.order(pod, waiting.queued), key)
            except Exception as error:
                self.faulty(pod, blame(error))
                key = _Sortable(None, key)
        heapq.heappush(self._active, (key, waiting.token, pod.uid))
        self._wake.set()

    def _place(self, waiting: Waiting, place: str, why: str) -> None:
        self._sequence += 1
        if waiting.refused_by or waiting.place == "unschedulable":
            self._unpark(waiting)
        self.incoming(place, why)
        waiting.place, waiting.token = place, self._sequence

    def _timer_at(self, due: float, waiting: Waiting) -> None:
        heapq.heappush(self._timers, (due, waiting.token, waiting.pod.uid))
        self._set_timer()

    def _set_timer(self) -> None:
        if not self._timers:
            return
        due = self._timers[0][0]
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due - self.world.monotonic()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self.world.monotonic()
        # A timer may ring a hair early; what is due within a millisecond is due.
        while self._timers and self._timers[0][0] <= now + 0.001:
            _, token, uid = heapq.heappop(self._timers)
            waiting = self.pods.get(uid)
            if waiting is not None and waiting.token == token and waiting.place == "gated":
                self._enqueue(waiting, "BackoffComplete")
            elif waiting is not None and waiting.token == token:
                self._activate(
                    waiting, "UnschedulableTimeout" if waiting.place == "unschedulable" else "BackoffComplete"
                )
        self._set_timer()

    def check(self) -> None:
        """Raises AssertionError unless every pod is in exactly one part of the queue, and whoever should wake it can."""
        active = {(token, uid) for _, token, uid in self._active}
        timed = {(token, uid) for _, token, uid in self._timers}
        for uid, waiting in self.pods.items():
            assert waiting.pod.uid == uid, f"{waiting.pod.key} is kept under {uid}"
            mark = waiting.token, uid
            assert (mark in active) == (waiting.place == "active"), f"{waiting.pod.key} is {waiting.place}"
            assert (uid in self._flying) == (waiting.place == "flight"), f"{waiting.pod.key} is {waiting.place}"
            assert mark in timed or waiting.place not in ("backoff", "unschedulable"), f"nothing wakes {waiting.pod.key}"
            refusers = waiting.refused_by if waiting.place in ("unschedulable", "gated") else ()
            for (profile, plugin), parked in self._parked.items():
                expected = profile == waiting.pod.profile and plugin in refusers
                assert (uid in parked) == expected, f"{waiting.pod.key} with {plugin}"
            lone = waiting.place in ("unschedulable", "gated") and not waiting.refused_by
            assert (uid in self._unexplained) == lone, f"{waiting.pod.key} is {waiting.place}"
        parts: list[Iterable[str]] = [self._flying, self._unexplained, *self._parked.values()]
        assert all(uid in self.pods for part in parts for uid in part), "a pod that is gone is still waited for"
        assert not self._timers or self._timer is not None, "nobody will ring"
        assert self._wake.is_set() or all(w.place != "active" for w in self.pods.values()), "nobody is woken"


class _Sortable:
    """A key of a user's order beside the usual one, which counts where the user's cannot be compared."""

    __slots__ = ("own", "usual")

    def __init__(self, own: Any, usual: tuple[float, float]) -> None:
        self.own, self.usual = own, usual

    def __lt__(self, other: _Sortable) -> bool:
        try:
            if self.own == other.own:
                return False
            return bool(self.own < other.own)
        except Exception:
            return self.usual < other.usual

    def __eq__(self, other: object) -> bool:
        try:
            return isinstance(other, _Sortable) and bool(self.own == other.own)
        except Exception:
            return False
