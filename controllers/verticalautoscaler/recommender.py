"""The loop of the VerticalPodAutoscaler: each minute it looks at pods and metrics, recommends, and changes pods."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from controllers.verticalautoscaler import changes
from controllers.verticalautoscaler.kinds import AUTOSCALERS, CHECKPOINTS, BadTarget, selector_of
from controllers.verticalautoscaler.memory import Memory
from controllers.verticalautoscaler.statuses import status
from controllers.verticalautoscaler.updater import Updater
from navarch.api import pods as podrules
from navarch.api.errors import NotFound, StatusError
from navarch.api.selectors import NOTHING, LabelSelector
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.events import EventRecorder
from navarch.client.informer import Informer
from navarch.client.transport import TransportError
from navarch.world import Backoff, World, describe

log = logging.getLogger(__name__)
Tree = dict[str, Any]
PERIOD = 60.0
SAVED_EACH = 10
"""Rounds between checkpoints."""
METRICS = "/apis/metrics.k8s.io/v1beta1/pods"


class Subject(NamedTuple):
    """An autoscaler as of the last round, and the pods that it is about."""

    vpa: Tree
    selector: LabelSelector


class Recommender:
    """``period`` is in seconds."""

    def __init__(self, client: Client, world: World, events: EventRecorder, period: float = PERIOD) -> None:
        self._client, self._world, self._period = client, world, period
        self.pods = Informer(client[core_v1.Pod])
        self._updater = Updater(client, world, events)
        self._memories: dict[str, Memory] = {}  # by the autoscaler's uid
        self.subjects: dict[str, Subject] = {}  # the same
        self._rounds = 0

    async def run(self) -> None:
        """Works until cancelled."""
        async with self._world.task_group() as group:
            group.start(self.pods.run(), "pods")
            group.start(self._loop(), "rounds")

    async def _loop(self) -> None:
        await self.pods.wait_synced()
        backoff = Backoff(self._world, first=1.0, most=self._period)
        while True:
            try:
                await self.round()
                backoff.reset()
                delay = self._period
            except (StatusError, TransportError) as error:
                delay = backoff.next()
                log.warning("a round failed: %s; trying again in %.1f s", error, delay)
            await self._world.sleep(delay)

    async def round(self) -> None:
        """One look at all autoscalers. Raises StatusError, TransportError."""
        listed = (await self._client.tree(AUTOSCALERS).list()).items
        uids = {vpa["metadata"]["uid"] for vpa in listed}
        for by_uid in (self._memories, self.subjects):
            for absent in [uid for uid in by_uid if uid not in uids]:
                del by_uid[absent]
        fresh = [vpa for vpa in listed if vpa["metadata"]["uid"] not in self._memories]
        if fresh:
            await self._load(fresh)
        metrics: dict[tuple[str, str], Tree] = {}
        if listed:
            for item in (await self._client.get_json(METRICS)).get("items") or ():
                metrics[item["metadata"]["namespace"], item["metadata"]["name"]] = item
        self._rounds += 1
        for vpa in listed:
            try:
                await self._one(vpa, metrics)
            except (StatusError, TransportError) as error:
                log.warning("%s/%s: %s", vpa["metadata"]["namespace"], vpa["metadata"]["name"], error)

    async def _one(self, vpa: Tree, metrics: dict[tuple[str, str], Tree]) -> None:
        meta, memory = vpa["metadata"], self._memories[vpa["metadata"]["uid"]]
        selector, fault = NOTHING, ""
        try:
            selector = await selector_of(self._client, vpa)
        except BadTarget as error:
            fault = str(error)
        pods = [p for p in self.pods.list(meta["namespace"]) if podrules.is_active(p) and selector.matches(p.metadata.labels)]
        memory.feed(pods, metrics)
        new = status(vpa, memory.states, pods, fault, self._world.now())
        vpa = vpa | {"status": new}
        self.subjects[meta["uid"]] = Subject(vpa, selector)
        await self._write(vpa, new)
        if self._rounds % SAVED_EACH == 0:
            await self._save(vpa, memory)
        await self._updater.update(vpa, pods)

    async def _write(self, vpa: Tree, new: Tree) -> None:
        meta = vpa["metadata"]
        body = {"status": new | {"recommendation": new.get("recommendation")}}  # null takes away what is no more
        try:
            await self._client.tree(AUTOSCALERS).patch_status(meta["name"], meta["namespace"], body)
        except NotFound:
            pass

    # Checkpoints

    async def _load(self, vpas: list[Tree]) -> None:
        saved = (await self._client.tree(CHECKPOINTS).list()).items
        for vpa in vpas:
            memory = self._memories[vpa["metadata"]["uid"]] = Memory()
            place = vpa["metadata"]["namespace"], vpa["metadata"]["name"]
            for one in saved:
                spec = one.get("spec") or {}
                if (one["metadata"]["namespace"], spec.get("vpaObjectName")) == place:
                    try:
                        memory.load(str(spec.get("containerName")), one.get("status") or {})
                    except (ValueError, KeyError, TypeError, AttributeError) as error:
                        log.warning("checkpoint %s of %s/%s: %s", one["metadata"]["name"], *place, describe(error))

    async def _save(self, vpa: Tree, memory: Memory) -> None:
        meta, client = vpa["metadata"], self._client.tree(CHECKPOINTS)
        for container, tree in memory.save(self._world.now()).items():
            name = f"{meta['name']}-{container}"
            try:
                await client.patch_status(name, meta["namespace"], {"status": tree})
            except NotFound:
                owner = {"apiVersion": AUTOSCALERS.api_version, "kind": AUTOSCALERS.kind, "name": meta["name"],
                         "uid": meta["uid"]}  # fmt: skip
                checkpoint = {
                    "apiVersion": CHECKPOINTS.api_version, "kind": CHECKPOINTS.kind,
                    "metadata": {"name": name, "namespace": meta["namespace"], "ownerReferences": [owner]},
                    "spec": {"vpaObjectName": meta["name"], "containerName": container},
                }  # fmt: skip
                await client.create(checkpoint)
                await client.patch_status(name, meta["namespace"], {"status": tree})

    def patch_for(self, pod: Tree, namespace: str) -> list[Tree]:
        """The JSON patch for a pod that is being created: of the oldest autoscaler that it belongs to."""
        labels = pod["metadata"].get("labels") or {}
        for subject in sorted(self.subjects.values(), key=lambda s: s.vpa["metadata"].get("creationTimestamp") or ""):
            vpa = subject.vpa
            if vpa["metadata"]["namespace"] == namespace and changes.mode(vpa) != "Off" and subject.selector.matches(labels):
                return changes.admission_patch(vpa, pod)
        return []
