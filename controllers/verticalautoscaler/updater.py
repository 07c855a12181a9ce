"""Changes pods whose requests no longer fit their recommendation: in place (InPlaceOrRecreate), or by eviction (Recreate).

A pod that is evicted comes back with new requests because the admission webhook gives them to it. Evictions go through the API,
so that PodDisruptionBudgets hold.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from controllers.verticalautoscaler import changes
from navarch.api import pods as podrules
from navarch.api.conditions import get_condition
from navarch.api.errors import NotFound, StatusError
from navarch.api.times import parse_time
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.events import NORMAL, EventRecorder
from navarch.client.transport import TransportError
from navarch.world import World

log = logging.getLogger(__name__)
Tree = dict[str, Any]
DEFERRED = 300.0
"""Seconds for which a resize that waits for room on its node is waited for."""
PENDING, INFEASIBLE = "PodResizePending", "Infeasible"


class Updater:
    def __init__(self, client: Client, world: World, events: EventRecorder) -> None:
        self._client, self._world, self._events = client, world, events

    async def update(self, vpa: Tree, pods: Sequence[core_v1.Pod]) -> None:
        """Changes those of an autoscaler's pods that are due."""
        mode, now = changes.mode(vpa), self._world.now()
        if mode not in ("Recreate", "InPlaceOrRecreate"):
            return
        least = (vpa["spec"].get("updatePolicy") or {}).get("minReplicas") or changes.MIN_REPLICAS
        allowed = changes.evictable(sum(podrules.is_ready(p) for p in pods), len(pods), least)
        for pod in sorted(pods, key=lambda p: p.metadata.creation_timestamp or ""):
            parts = changes.of_pod(pod)
            began = parse_time(pod.status.start_time) if pod.status.start_time else now
            stuck = mode == "InPlaceOrRecreate" and self._is_stuck(pod, now)
            new = changes.containers(vpa, parts)
            if not stuck and not (new and changes.is_due(vpa, parts, now - began)):
                continue
            if mode == "InPlaceOrRecreate" and not stuck and await self._resize(pod, new):
                continue
            if allowed > 0 and podrules.controller_of(pod.metadata) is not None and await self._evict(pod):
                allowed -= 1

    def _is_stuck(self, pod: core_v1.Pod, now: float) -> bool:
        """Whether the node cannot give the pod what it was resized to."""
        condition = get_condition(pod.status.conditions, PENDING)
        if condition is None or condition.status != "True":
            return False
        since = parse_time(condition.last_transition_time) if condition.last_transition_time else now
        return condition.reason == INFEASIBLE or now - since > DEFERRED

    async def _resize(self, pod: core_v1.Pod, new: list[Tree]) -> bool:
        """False if it was refused for good: the API server knows why this pod cannot be resized."""
        meta = pod.metadata
        try:
            body = {"spec": {"containers": new}}
            await self._client[core_v1.Pod].patch(
                meta.name or "", meta.namespace, body, "strategic", subresource="resize", field_manager="vpa-updater"
            )
        except NotFound:
            return True
        except StatusError as error:
            log.info("pod %s/%s cannot be resized: %s", meta.namespace, meta.name, error)
            return error.http_code not in (403, 422)
        except TransportError as error:
            log.warning("pod %s/%s: %s", meta.namespace, meta.name, error)
            return True
        self._events.event(pod, NORMAL, "InPlaceResizedByVPA", "Pod was resized in place by VPA Updater.")
        return True

    async def _evict(self, pod: core_v1.Pod) -> bool:
        meta = pod.metadata
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": meta.name, "namespace": meta.namespace}}
        try:
            await self._client[core_v1.Pod].sub(meta.name or "", meta.namespace, "eviction", body)
        except (StatusError, TransportError) as error:  # a budget may refuse; the next round asks again
            log.info("pod %s/%s is not evicted: %s", meta.namespace, meta.name, error)
            return False
        self._events.event(pod, NORMAL, "EvictedByVPA", "Pod was evicted by VPA Updater to apply resource recommendation.")
        return True
