"""The scheduling queue: pods wait active (by priority, then age), in back-off, or until an event may help them.

    active         ready to be tried
    backoff        tried and failed; ready after 1 s, doubling to 10 s, with each attempt
    unschedulable  refused by some plugins; an event that one of those plugins registered for, and says may help (its
                   queueing hint), wakes them; all are tried again after five minutes in case an event was missed

Pods that are unschedulable are kept by the plugins that refused them, so an event costs nothing to the others.

An event can only wake pods that are in ``unschedulable``. A decision is made without giving up control in between, so
no event is lost between a refusal and the pod's return to the queue.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from navarch.world import World
from scheduler.nodes import NodeTable
from scheduler.plugin import Event, Plugin, Profile, Rejected
from scheduler.pods import PodInfo

FLUSH_AFTER = 300.0  # seconds


@dataclass
class Waiting:
    """A pod in the queue. ``since`` is monotonic."""

    pod: PodInfo
    since: float
    attempts: int = 0
    failed_at: float = 0.0
    place: str = "active"  # active, backoff, unschedulable, gated or flight
    refused_by: tuple[str, ...] = ()
    token: int = 0  # heap entries with another token are stale
    gate: str = ""


@dataclass
class SchedulingQueue:
    world: World
    profiles: Mapping[str, Profile]
    table: NodeTable
    first_backoff: float = 1.0
    most_backoff: float = 10.0
    pods: dict[str, Waiting] = field(default_factory=dict)  # by uid
    incoming: Callable[[str, str], None] = lambda place, why: None  # told of each move, for metrics

    def __post_init__(self) -> None:
        self._active: list[tuple[int, float, int, str]] = []
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
            waiting = self.pods[pod.uid] = Waiting(pod, self.world.monotonic())
        else:
            waiting.pod = pod
            if waiting.place in ("flight", "active", "backoff"):
                return
        self._enqueue(waiting)

    def remove(self, uid: str) -> None:
        waiting = self.pods.pop(uid, None)
        if waiting is not None:
            self._unpark(waiting)

    def counts(self) -> dict[str, int]:
        """How many pods are where; those in flight count as active."""
        out = {"active": 0, "backoff": 0, "unschedulable": 0, "gated": 0}
        for waiting in self.pods.values():
            out["active" if waiting.place == "flight" else waiting.place] += 1
        return out

    async def pop(self) -> PodInfo:
        """The next pod to try; it stays known, in flight, until :meth:`remove` or a failure brings it back."""
        while True:
            while self._active:
                _, _, token, uid = heapq.heappop(self._active)
                waiting = self.pods.get(uid)
                if waiting is not None and waiting.token == token and waiting.place == "active":
                    waiting.place = "flight"
                    waiting.attempts += 1
                    return waiting.pod
            self._wake.clear()
            await self._wake.wait()

    def unschedulable(self, uid: str, refused_by: Iterable[str]) -> None:
        """The pod in flight fits nowhere; it waits for an event that may help."""
        waiting = self.pods.get(uid)
        if waiting is not None:
            waiting.failed_at = self.world.monotonic()
            waiting.refused_by = tuple(refused_by)
            self._place(waiting, "unschedulable")
            for plugin in waiting.refused_by:
                self._parked[waiting.pod.profile, plugin][uid] = waiting
            if not waiting.refused_by:
                self._unexplained[uid] = waiting
            self._timer_at(waiting.failed_at + FLUSH_AFTER, waiting)

    def failed(self, uid: str) -> None:
        """The pod in flight could not be bound for a reason that has nothing to do with nodes; tried again later."""
        waiting = self.pods.get(uid)
        if waiting is not None:
            waiting.failed_at = self.world.monotonic()
            self._back_off(waiting)

    def happened(self, event: Event) -> None:
        """Wakes the pods that were refused by a plugin that says that this event may help them."""
        woken = list(self._unexplained.values())
        for plugin, parked in self._listening.get(event.kind, ()):
            if parked:
                woken += [w for w in parked.values() if plugin.helps(event, w.pod, self.table)]
        for waiting in woken:
            if waiting.place == "unschedulable":
                self._back_off(waiting)

    def _unpark(self, waiting: Waiting) -> None:
        for plugin in waiting.refused_by:
            self._parked[waiting.pod.profile, plugin].pop(waiting.pod.uid, None)
        self._unexplained.pop(waiting.pod.uid, None)
        waiting.refused_by = ()

    def _enqueue(self, waiting: Waiting) -> None:
        try:
            for plugin in self.profiles[waiting.pod.profile].pre_enqueuers:
                plugin.pre_enqueue(waiting.pod)
        except Rejected as rejected:
            waiting.gate = str(rejected)
            self._place(waiting, "gated")
            return
        waiting.gate = ""
        if waiting.attempts:
            self._back_off(waiting)
        else:
            self._activate(waiting)

    def _back_off(self, waiting: Waiting) -> None:
        delay = min(self.most_backoff, self.first_backoff * 2 ** min(max(waiting.attempts - 1, 0), 30))
        due = waiting.failed_at + delay
        if due <= self.world.monotonic():
            self._activate(waiting)
        else:
            self._place(waiting, "backoff")
            self._timer_at(due, waiting)

    def _activate(self, waiting: Waiting) -> None:
        self._place(waiting, "active")
        heapq.heappush(self._active, (-waiting.pod.priority, waiting.since, waiting.token, waiting.pod.uid))
        self._wake.set()

    def _place(self, waiting: Waiting, place: str) -> None:
        self._sequence += 1
        if waiting.place == "unschedulable":
            self._unpark(waiting)
        self.incoming(place, "PodAdd" if not waiting.attempts else "ScheduleAttemptFailure")
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
            if waiting is not None and waiting.token == token:
                self._activate(waiting)
        self._set_timer()
