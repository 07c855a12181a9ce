"""Writes pod statuses to the API server: the newest one of each pod, as small patches, never an older one after it.

The worker hands every new status in; what is not yet sent is replaced by what comes later. A status that changes
nothing important (no phase, readiness or end) waits a moment for company, because a pod that is starting goes through
several such states in a few hundredths of a second: longer where many pods start at once, for so do their starts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from navarch.api.errors import Conflict, NotFound, StatusError
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.transport import TransportError
from navarch.world import Backoff, TaskGroup, World

log = logging.getLogger(__name__)
PATIENCE, MOST_PATIENCE = 0.15, 2.0  # seconds that an unimportant status waits, for each pod whose status waits; at most
WRITERS = 6
PASSING = ("PodResizePending", "PodResizeInProgress")  # conditions of ours that go when they are over
_NULLABLE = ("reason", "message", "nominatedNodeName", "initContainerStatuses", "ephemeralContainerStatuses")


@dataclass
class _Entry:
    pod: core_v1.Pod
    status: core_v1.PodStatus
    sent: core_v1.PodStatus  # what the API server has, as far as we know
    version: int = 0  # the resourceVersion of ``sent``
    dirty: bool = False
    final: bool = False  # delete the API object after this status
    queued: bool = False  # a writer will come to it
    patient: bool = False  # it waits for company first
    backoff: Backoff | None = None  # while the server does not take it


class StatusManager:
    """One for the node. ``set`` takes a status in, writers send it; the object of a pod that is over is deleted."""

    def __init__(self, client: Client, world: World, group: TaskGroup) -> None:
        self._pods = client[core_v1.Pod]
        self._world, self._group = world, group
        self._entries: dict[str, _Entry] = {}
        self._waiting = 0  # pods whose status waits for company
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self.shown: Callable[[core_v1.Pod], core_v1.Pod | None] = lambda pod: pod
        """The API object of a pod, if there is one: a static pod's is its mirror."""

    def start(self) -> None:
        for i in range(WRITERS):
            self._group.start(self._write(), name=f"status writer {i}")

    def set(self, pod: core_v1.Pod, status: core_v1.PodStatus, *, final: bool = False) -> None:
        """The pod's newest status. ``final``: nothing of it is left on the node and its object may be deleted."""
        shown = self.shown(pod)
        if shown is None:
            return
        pod, uid = shown, shown.metadata.uid or ""
        entry = self._entries.get(uid)
        if entry is None:
            entry = self._entries[uid] = _Entry(pod, status, pod.status, _version(pod))
            entry.dirty = bool(patch(entry.sent, status))
        elif entry.status != status:
            entry.dirty = True
        elif not entry.queued and _version(pod) > entry.version:
            # Somebody else wrote to it after us: what we know better is written again.
            entry.sent, entry.version = pod.status, _version(pod)
            entry.dirty = bool(patch(entry.sent, status))
        important = final or any(_important(old, status, pod) for old in (entry.status, entry.sent))
        entry.pod, entry.status = pod, status
        entry.final = entry.final or final
        if not (entry.dirty or entry.final):
            return
        if important and (entry.patient or not entry.queued):
            entry.queued, entry.patient = True, False
            self._ready.put_nowait(uid)
        elif not entry.queued:
            entry.queued = entry.patient = True
            self._group.start(self._later(uid), name=f"status of {uid}")

    def latest(self, uid: str) -> core_v1.PodStatus | None:
        """The newest status handed in, sent or not."""
        entry = self._entries.get(uid)
        return entry.status if entry else None

    def forget(self, uid: str) -> None:
        self._entries.pop(uid, None)

    async def _later(self, uid: str) -> None:
        began = self._world.monotonic()
        self._waiting += 1
        try:
            while True:
                await self._world.sleep(PATIENCE)
                entry = self._entries.get(uid)
                if entry is None or not entry.patient:
                    return
                if self._world.monotonic() - began >= min(MOST_PATIENCE, PATIENCE * self._waiting):
                    break
        finally:
            self._waiting -= 1
        entry.patient = False
        self._ready.put_nowait(uid)

    async def _again(self, uid: str, delay: float) -> None:
        await self._world.sleep(delay)
        self._ready.put_nowait(uid)

    async def _write(self) -> None:
        while True:
            uid = await self._ready.get()
            entry = self._entries.get(uid)
            if entry is None:
                continue
            try:
                await self._send(uid, entry)
                entry.backoff = None
                entry.queued = False
                if entry.dirty and self._entries.get(uid) is entry:
                    entry.queued = True
                    self._ready.put_nowait(uid)
            except (StatusError, TransportError) as error:
                log.warning("status of pod %s/%s: %s", entry.pod.metadata.namespace, entry.pod.metadata.name, error)
                entry.dirty = True
                entry.backoff = entry.backoff or Backoff(self._world, first=0.2, most=10.0)
                # Not here: one pod that the server refuses must not hold the others up.
                self._group.start(self._again(uid, entry.backoff.next()), name=f"status of {uid}")

    async def _send(self, uid: str, entry: _Entry) -> None:
        meta = entry.pod.metadata
        name, namespace = meta.name or "", meta.namespace
        if entry.dirty:
            entry.dirty = False
            status = entry.status
            body = patch(entry.sent, status)
            if body:
                try:
                    answer = await self._pods.patch_status(
                        name, namespace, {"metadata": {"uid": uid}, "status": body}, "strategic"
                    )
                    entry.version = _version(answer)
                except NotFound:
                    self._forget(uid)
                    return
                except Conflict:
                    if (await self._pods.get(name, namespace)).metadata.uid == uid:
                        raise  # too many writers at once: again later
                    self._forget(uid)  # another pod has the name by now
                    return
            entry.sent = status
        if entry.final and not entry.dirty and meta.deletion_timestamp is not None:
            try:
                await self._pods.delete(name, namespace, grace_period_seconds=0, uid=uid)
            except (NotFound, Conflict):
                pass
            self._forget(uid)

    def _forget(self, uid: str) -> None:
        self._entries.pop(uid, None)


def _version(pod: core_v1.Pod) -> int:
    """resourceVersion as a number: here it is only compared with others of the same object."""
    text = pod.metadata.resource_version or "0"
    return int(text) if text.isdigit() else 0


def _important(old: core_v1.PodStatus, new: core_v1.PodStatus, pod: core_v1.Pod) -> bool:
    """Whether somebody may wait for what has changed. Of a pod that goes, whose containers are dead, it is only its end."""
    if old.phase != new.phase and not (old.phase is None and new.phase == "Pending"):
        return True
    if pod.metadata.deletion_timestamp is not None and not any(_runs(s) for s in new.container_statuses or ()):
        return False
    return bool(_facts(old) != _facts(new))


def _runs(status: core_v1.ContainerStatus) -> bool:
    return status.state is not None and status.state.running is not None


def _facts(status: core_v1.PodStatus) -> Any:
    ready = [c.status for c in status.conditions or () if c.type == "Ready"]
    return (ready or ["False"], [s.ready for s in status.container_statuses or () if s.ready])


def patch(old: core_v1.PodStatus, new: core_v1.PodStatus) -> dict[str, Any]:
    """The strategic merge patch of ``status`` that leads from ``old`` to ``new``; conditions of others are left alone."""
    before: dict[str, Any] = msgspec.to_builtins(old)
    after: dict[str, Any] = msgspec.to_builtins(new)
    out: dict[str, Any] = {}
    for key, value in after.items():
        if before.get(key) == value:
            continue
        if key == "conditions":
            old_conditions = {c["type"]: c for c in before.get("conditions", ())}
            out[key] = [_condition(old_conditions.get(c["type"]), c) for c in value if old_conditions.get(c["type"]) != c]
            now = {c["type"] for c in value}
            out[key] += [{"type": t, "$patch": "delete"} for t in PASSING if t in old_conditions and t not in now]
        elif key in ("podIPs", "hostIPs"):
            # These lists merge by ip upstream: say that this is all of it.
            out[key] = [*value, {"$patch": "replace"}]
        else:
            out[key] = value
    for key in before:
        if key not in after and key in _NULLABLE:
            out[key] = None
    return out


def _condition(before: dict[str, Any] | None, after: dict[str, Any]) -> dict[str, Any]:
    """A condition for the merge: what it no longer has must be taken away by name."""
    return dict.fromkeys((k for k in before or () if k not in after), None) | after
