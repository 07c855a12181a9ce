"""The fast path of the one event that every pod gets: Scheduled.

It is said once, always in the same words, so it needs none of the recorder's folding and counting; its bytes are written
directly. A few senders share the work, more when they fall behind, so that bindings come first.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import msgspec

from navarch.api.errors import StatusError
from navarch.api.times import format_time
from navarch.client.client import Client
from navarch.client.transport import TransportError
from navarch.world import TaskGroup, World
from scheduler.state.pods import PodInfo

log = logging.getLogger(__name__)

MAX_WAITING = 50_000
MAX_SENDERS = 8
BEHIND = 100  # events waiting for each sender before there is one more

_encode = msgspec.json.Encoder().encode


class ScheduledEvents:
    def __init__(self, client: Client, world: World, component: str) -> None:
        self._client, self._world, self._component = client, world, component
        self._waiting: deque[tuple[PodInfo, str, float]] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()
        self._senders = 0
        self._stamp = 0
        self._jitter = world.random.randrange(1000)

    def scheduled(self, pod: PodInfo, node: str) -> None:
        """Notes that a pod was bound. Never waits."""
        if self._client.tells_events:
            self._waiting.append((pod, node, self._world.now()))
            self._wake.set()

    async def run(self) -> None:
        """Sends until cancelled."""
        async with self._world.task_group() as group:
            while True:
                if not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                await self._send_all(group)

    async def _send_all(self, group: TaskGroup) -> None:
        while self._waiting:
            if self._senders < min(MAX_SENDERS, len(self._waiting) // BEHIND):
                self._senders += 1
                group.start(self._help(), name="events")
            await self._send(*self._waiting.popleft())

    async def _help(self) -> None:
        try:
            while len(self._waiting) > BEHIND:
                await self._send(*self._waiting.popleft())
        finally:
            self._senders -= 1

    async def _send(self, pod: PodInfo, node: str, when: float) -> None:
        meta = pod.pod.metadata
        # Grows even among many events of one instant, as virtual time has them.
        self._stamp = stamp = max(int(when * 1e6) * 1000 + self._jitter, self._stamp + 1)
        time, namespace = format_time(when), pod.namespace or "default"
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta.name}.{stamp:x}", "namespace": namespace},
            "involvedObject": {
                "kind": "Pod",
                "namespace": pod.namespace,
                "name": meta.name,
                "uid": pod.uid,
                "apiVersion": "v1",
                "resourceVersion": meta.resource_version,
            },
            "reason": "Scheduled",
            "message": f"Successfully assigned {pod.key} to {node}",
            "source": {"component": self._component},
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
            "type": "Normal",
            "reportingComponent": self._component,
        }
        try:
            await self._client.request("POST", f"/api/v1/namespaces/{namespace}/events", body=_encode(body))
        except (StatusError, TransportError) as error:
            log.debug("event about %s: %s", pod.key, error)
