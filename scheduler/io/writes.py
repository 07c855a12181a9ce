"""The scheduler's writes to the API server about pods: bindings, evictions, and why a pod is pending.

Each is one small request or two, and says no more than whether it worked: what follows from that is the shell's.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from navarch.api.errors import StatusError
from navarch.api.times import format_time
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.transport import TransportError
from navarch.world import World
from scheduler.io.leaderfence import Fence, NotLeading
from scheduler.state.pods import PodInfo

log = logging.getLogger(__name__)

ASIDE_AT_ONCE = 16  # evictions and conditions: bindings do not wait behind them

_encode = msgspec.json.Encoder().encode


class Writes:
    """``fence``: checked before each write that only the leader may make; None where nobody else schedules. Bindings go
    out at once, evictions and conditions at most ``ASIDE_AT_ONCE`` at a time."""

    def __init__(self, client: Client, world: World, fence: Fence | None = None) -> None:
        self.client, self.world, self.fence = client, world, fence
        self._aside = asyncio.Semaphore(ASIDE_AT_ONCE)

    async def bind(self, pod: PodInfo, node: str, version: str) -> None:
        """``version``: which the pod must have, if the binding is fenced. Raises StatusError, TransportError, NotLeading."""
        meta = pod.pod.metadata
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        if self.fence:
            body["metadata"]["resourceVersion"] = version
            self.fence.check()
        path = f"/api/v1/namespaces/{meta.namespace}/pods/{meta.name}/binding"
        await self.client.request("POST", path, body=_encode(body))

    async def evict(self, victim: PodInfo, by: str) -> bool:
        """Says on a victim why it goes, and deletes it with its own grace period. ``by``: the scheduler's name. False if it
        did not work."""
        meta = victim.pod.metadata
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{by}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": format_time(self.world.now()),
        }
        body: dict[str, Any] = {"metadata": {"uid": meta.uid}, "status": {"conditions": [condition]}}
        pods = self.client[core_v1.Pod]
        try:
            async with self._aside:
                if self.fence:
                    self.fence.check()
                await pods.patch_status(meta.name or "", meta.namespace, body, type="strategic")
                await pods.delete(meta.name or "", meta.namespace, uid=meta.uid)
        except (StatusError, TransportError, NotLeading) as error:
            log.warning("preempting %s: %s", victim.key, error)
            return False
        return True

    async def denominate(self, pod: PodInfo) -> None:
        """The pod is to be on no node's account any more."""
        await self._patch_status(pod, {"nominatedNodeName": None})

    async def report(
        self, pod: PodInfo, message: str, nominated: str = "", reason: str = "Unschedulable"
    ) -> None:
        """Sets the PodScheduled condition that says why the pod is pending."""
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastTransitionTime": format_time(self.world.now()),
        }
        status: dict[str, Any] = {"conditions": [condition]}
        await self._patch_status(pod, status | ({"nominatedNodeName": nominated} if nominated else {}))

    async def _patch_status(self, pod: PodInfo, status: dict[str, Any]) -> None:
        meta = pod.pod.metadata
        body = {"metadata": {"uid": meta.uid}, "status": status}
        try:
            async with self._aside:
                await self.client[core_v1.Pod].patch_status(meta.name or "", meta.namespace, body, type="strategic")
        except (StatusError, TransportError) as error:
            log.info("condition of %s: %s", pod.key, error)
