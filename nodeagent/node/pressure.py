"""The eviction manager: looks at the node every ten seconds, keeps its pressure conditions, and evicts pods.

What it decides is in eviction.py. As kubelet does, it evicts one pod at a time and looks again when that is gone; pods
above a limit of local storage are evicted first, whatever the node has left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from navarch.world import World
from nodeagent.config import Config
from nodeagent.linux.cgroups import NodeUsage
from nodeagent.node import counters, eviction, signals
from nodeagent.node import thresholds as names
from nodeagent.node.counters import Counters
from nodeagent.node.eviction import HARD_GRACE, REASON, Memory, Observation, PodUse
from nodeagent.node.storage import LocalStorage, PodDisk, pod_use
from nodeagent.node.thresholds import Threshold
from nodeagent.pods.worker import PodWorker
from nodeagent.runtime.runtime import ImagePolicy, Runtime, RuntimeError_

log = logging.getLogger(__name__)
PERIOD = 10.0  # seconds between two looks
CLEANUP_PATIENCE, CLEANUP_PERIOD = 30.0, 1.0  # seconds that an evicted pod may take before the next look
EVERY_IMAGE = ImagePolicy(high=0, low=0, min_age=0)


class Node(Protocol):
    """The agent, as far as it is needed here. ``set_pressure`` takes the conditions that are true."""

    config: Config
    world: World
    runtime: Runtime
    capacity_memory: int
    storage: LocalStorage

    def workers(self) -> list[PodWorker]: ...
    def set_pressure(self, conditions: tuple[str, ...]) -> None: ...


class EvictionManager:
    """``tell(reason, message)`` records a warning about the node."""

    def __init__(self, node: Node, counts: Counters, tell: Callable[[str, str], None]) -> None:
        self._node, self._counters, self._tell = node, counts, tell
        self._thresholds = node.config.thresholds
        self._memory = Memory()

    async def run(self) -> None:
        while True:
            evicted = await self.once()
            waited = 0.0
            while any(not worker.ended for worker in evicted) and waited < CLEANUP_PATIENCE:
                await self._node.world.sleep(CLEANUP_PERIOD)
                waited += CLEANUP_PERIOD
            if not evicted:
                await self._node.world.sleep(PERIOD)

    async def once(self) -> list[PodWorker]:
        """One look; the pods that it evicted."""
        node = self._node
        used = await node.runtime.usage()
        observed = await self._signals(used)
        look = eviction.look(
            self._memory, self._thresholds, observed, node.world.monotonic(), node.config.eviction_transition
        )
        self._memory = look.memory
        node.set_pressure(look.conditions)
        if evicted := await self._enforce_limits(used):
            return evicted
        return await self._reclaim(look.due[0], used, observed) if look.due else []

    def _active(self) -> list[PodWorker]:
        return [worker for worker in self._node.workers() if worker.counts]

    async def _signals(self, used: NodeUsage) -> dict[str, Observation]:
        node, config = self._node, self._node.config
        total: int | None = None
        if signals.declared_disk(config):
            disk = await node.storage.of(self._active(), PERIOD)
            total = sum(use.disk.bytes for use in self._uses(self._active(), used, disk).values())
        observations = await node.world.blocking(signals.disks, config, total)
        observations[names.MEMORY] = signals.memory(config, used, node.capacity_memory)
        if config.is_real:
            observations[names.PIDS] = signals.processes(config, used)
        return observations

    def _uses(
        self, workers: Iterable[PodWorker], used: NodeUsage, disk: Mapping[str, PodDisk]
    ) -> dict[str, PodUse]:
        return {worker.uid: pod_use(worker, used, disk.get(worker.uid)) for worker in workers}

    # --- limits of local storage ---

    async def _enforce_limits(self, used: NodeUsage) -> list[PodWorker]:
        workers = [worker for worker in self._active() if eviction.limits_storage(worker.granted)]
        self._node.storage.forget_all_but(self._node.workers())
        if not workers:
            return []
        uses = self._uses(workers, used, await self._node.storage.of(workers, PERIOD))
        evicted = []
        for worker in workers:
            why = eviction.exceeds_storage(worker.granted, uses[worker.uid]) if worker.counts else ""
            if why and eviction.candidates([worker.pod]):
                self._evict(worker, HARD_GRACE, why, "ephemeral-storage limit", with_condition=False)
                evicted.append(worker)
        return evicted

    # --- pressure ---

    async def _reclaim(
        self, threshold: Threshold, used: NodeUsage, observed: dict[str, Observation]
    ) -> list[PodWorker]:
        resource = eviction.RESOURCE[threshold.signal]
        self._tell("EvictionThresholdMet", f"Attempting to reclaim {resource}")
        if eviction.CONDITION[threshold.signal] == eviction.DISK_PRESSURE:
            observed = await self._reclaim_node(threshold, used)
            if not eviction.is_met(threshold, observed.get(threshold.signal), with_reclaim=True):
                log.info("reclaimed %s without evicting pods", resource)
                return []
        active = {worker.uid: worker for worker in self._active()}
        disk = await self._node.storage.of(active.values(), PERIOD) if resource not in ("memory", "pids") else {}
        uses = self._uses(active.values(), used, disk)
        pods = eviction.candidates(worker.granted for worker in active.values())
        for pod in eviction.rank(threshold.signal, pods, uses):
            worker = active[pod.metadata.uid or ""]
            if not worker.counts:
                continue  # it ended meanwhile
            grace = eviction.grace_of(threshold, pod, self._node.config.eviction_max_grace)
            why = eviction.message(threshold, observed, pod, uses.get(worker.uid))
            self._evict(worker, grace, why, threshold.signal, with_condition=True)
            return [worker]
        log.warning("low on %s, and no pod can be evicted", resource)
        return []

    async def _reclaim_node(self, threshold: Threshold, used: NodeUsage) -> dict[str, Observation]:
        """Removes dead containers of pods that are over, and images that nobody uses; what is left afterwards."""
        node = self._node
        try:
            for worker in node.workers():
                await worker.remove_dead()
            image_disk = threshold.signal in (names.IMAGE_DISK, names.IMAGE_INODES)
            if image_disk or await node.world.blocking(signals.shares_disk, node.config):
                await node.runtime.collect_images(EVERY_IMAGE)
        except (OSError, RuntimeError_) as error:
            log.warning("reclaiming disk: %s", error)
        return await self._signals(used)

    def _evict(self, worker: PodWorker, grace: float, why: str, signal: str, *, with_condition: bool) -> None:
        log.warning("evicting pod %s/%s: %s", worker.pod.metadata.namespace, worker.pod.metadata.name, why)
        self._counters.add(counters.EVICTIONS, eviction_signal=signal)
        worker.tell("Warning", REASON, why)
        worker.end(REASON, why, grace, why if with_condition else None)
