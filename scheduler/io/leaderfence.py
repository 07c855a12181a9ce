"""Leader election with fenced bindings: of several schedulers on one Lease, an old leader never binds after a new one began.

A Lease alone is no lock. A leader may be stopped (SIGSTOP, a sleeping machine, a long pause) between looking at its Lease
and the moment at which its request reaches the server; by then another may lead. So there are three rules:

1. A leader reads the version of a pod, then looks at its Lease (LeaderElector.holds), then sends the Binding with that
   version as a precondition.
2. A new leader, before it decides anything, gives every pod that waits for a node a new version: it writes the annotation
   ``scheduler.navarch.dev/term``.
3. It then waits until its cache has each of these versions (or sees the pod bound, or gone).

Why that is enough. Let the old leader look at its Lease at time t and find it good. Nobody else led at t: who takes over
waits for the whole lease duration after the last renewal that it saw, which is longer than the renew deadline after which
``holds`` says no. The version in the Binding was read before t, so before any new leader began. Either the Binding reaches
the server before the new leader's write to that pod: then the write comes after it, and by rule 3 the new leader has seen
the binding before its first decision, and counts it. Or it comes after: then the version differs and the server refuses
it (409 Conflict). Pods that were made after the take-over have no version from before it. A pod is bound once in any case:
the server refuses to bind a pod that has a node.

What a late *eviction* (preemption) of an old leader does is not prevented: it carries the victim's uid, so it can only
delete a pod that some leader did choose; that costs this pod its place, but never over-commits a node.

Upstream has no such fence: it ends the process when
the Lease is lost, and trusts that it is not stopped in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from navarch.api.errors import Conflict, NotFound, StatusError
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.informer import Informer, key_of
from navarch.client.leader import LeaderElector
from navarch.client.transport import TransportError
from navarch.world import Backoff, World

log = logging.getLogger(__name__)

TERM = "scheduler.navarch.dev/term"
AT_ONCE = 32


class NotLeading(Exception):
    """The Lease may be another's by now: nothing must be written any more."""


class Fence:
    """For one leader; see the module."""

    def __init__(self, elector: LeaderElector, client: Client, world: World) -> None:
        self._elector, self._client, self._world = elector, client, world
        self._expected: dict[str, tuple[int, asyncio.Event]] = {}  # pod's key -> the version to wait for

    def check(self) -> None:
        """Raises NotLeading."""
        if not self._elector.holds:
            raise NotLeading("the lease may have been lost")

    async def take_over(self, pods: Informer[core_v1.Pod], mine: Callable[[core_v1.Pod], bool]) -> None:
        """Rules 2 and 3, for the pods that are ``mine``. ``pods`` must be synced, from a list made while leading."""
        term = self._world.uid()
        pods.add_handler(self._saw)
        room = asyncio.Semaphore(AT_ONCE)
        async with self._world.task_group() as group:
            for pod in pods.list():
                if mine(pod):
                    await room.acquire()
                    group.start(self._renew(pod, term, pods, room), name="fence")

    async def _renew(self, pod: core_v1.Pod, term: str, pods: Informer[core_v1.Pod], room: asyncio.Semaphore) -> None:
        name, namespace = pod.metadata.name or "", pod.metadata.namespace
        body = {"metadata": {"uid": pod.metadata.uid, "annotations": {TERM: term}}}
        backoff = Backoff(self._world, first=0.05, most=2.0)
        key = key_of(namespace, name)
        try:
            while True:
                try:
                    new = await self._client[core_v1.Pod].patch_status(name, namespace, body, type="merge")
                    break
                except (NotFound, Conflict):  # gone, or another of that name
                    return
                except (StatusError, TransportError) as error:
                    log.warning("fencing %s: %s", key, error)
                    await self._world.sleep(backoff.next())
            version = int(new.metadata.resource_version or 0)
            cached = pods.get_key(key)
            if cached is not None and int(cached.metadata.resource_version or 0) < version:
                is_current = asyncio.Event()
                self._expected[key] = version, is_current
                await is_current.wait()
        finally:
            room.release()

    def _saw(self, kind: str, old: core_v1.Pod | None, pod: core_v1.Pod) -> None:
        if not self._expected:
            return
        key = key_of(pod.metadata.namespace, pod.metadata.name or "")
        expected = self._expected.get(key)
        if expected is not None and (kind == "DELETED" or int(pod.metadata.resource_version or 0) >= expected[0]):
            del self._expected[key]
            expected[1].set()
