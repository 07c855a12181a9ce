"""Measures the local storage of pods: writable layers, logs and emptyDirs, in a thread and at a bounded cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from navarch.world import World
from nodeagent.config import Config
from nodeagent.linux.cgroups import NodeUsage, Usage
from nodeagent.linux.diskusage import DiskUse, Meter, measure_tmpfs
from nodeagent.node.eviction import ContainerUse, PodUse
from nodeagent.pods.containerspec import log_directory
from nodeagent.pods.observed import roles
from nodeagent.pods.worker import PodWorker
from nodeagent.runtime.runtime import Container, Runtime
from nodeagent.volumes.local import empty_dir_folder


@dataclass(frozen=True)
class PodDisk:
    """Usage by container name and by volume name. ``memory_volumes``: emptyDirs of medium Memory."""

    layers: dict[str, DiskUse] = field(default_factory=dict)
    logs: dict[str, DiskUse] = field(default_factory=dict)
    volumes: dict[str, DiskUse] = field(default_factory=dict)
    memory_volumes: dict[str, DiskUse] = field(default_factory=dict)


@dataclass(frozen=True)
class _Places:
    uid: str
    containers: dict[str, str]  # name -> id
    logs: dict[str, str]
    volumes: dict[str, str]
    memory_volumes: dict[str, str]


class LocalStorage:
    """``stop``: whether the agent ends."""

    def __init__(self, config: Config, world: World, runtime: Runtime, stop: Callable[[], bool]) -> None:
        self._config, self._world, self._runtime, self._stop = config, world, runtime, stop
        self._meter = Meter(world.monotonic)

    async def of(self, workers: Iterable[PodWorker], max_age: float) -> dict[str, PodDisk]:
        """The local storage of pods by uid, at most ``max_age`` seconds old where that can be had at a bearable cost."""
        places = [self._places(worker) for worker in workers]
        ids = [container_id for place in places for container_id in place.containers.values()]
        layers = await self._runtime.layers(ids, max_age)

        def work() -> dict[str, PodDisk]:
            return {place.uid: self._measure(place, dict(layers), max_age) for place in places}

        return await self._world.blocking(work)

    def forget_all_but(self, workers: Iterable[PodWorker]) -> None:
        """Forgets the trees of pods that are gone."""
        places = [self._places(worker) for worker in workers]
        self._meter.keep(path for p in places for path in (*p.logs.values(), *p.volumes.values()))

    def _places(self, worker: PodWorker) -> _Places:
        config, pod = self._config, worker.pod
        uid = pod.metadata.uid or ""
        newest = {c.name: c for c in (newest_of(worker, r.container.name) for r in roles(pod.spec)) if c is not None}
        logs = log_directory(config.logs_dir, pod)
        dirs = {v.name: v.empty_dir for v in pod.spec.volumes or () if v.empty_dir is not None}
        folders = {name: str(empty_dir_folder(config.pods_dir, uid, name)) for name in dirs}
        return _Places(
            uid,
            {name: container.id for name, container in newest.items()},
            {name: str(Path(logs) / name) for name in newest},
            {name: folder for name, folder in folders.items() if dirs[name].medium != "Memory"},
            {name: folder for name, folder in folders.items() if dirs[name].medium == "Memory"},
        )

    def _measure(self, place: _Places, layers: dict[str, DiskUse], max_age: float) -> PodDisk:
        walked = self._meter.of([*place.logs.values(), *place.volumes.values()], max_age, self._stop)
        return PodDisk(
            {name: layers[i] for name, i in place.containers.items() if i in layers},
            {name: walked[path] for name, path in place.logs.items()},
            {name: walked[path] for name, path in place.volumes.items()},
            {name: measure_tmpfs(path) for name, path in place.memory_volumes.items()},
        )


def newest_of(worker: PodWorker, name: str) -> Container | None:
    """The newest container of a name, running or not."""
    return max((c for c in worker.containers.values() if c.name == name), key=lambda c: c.attempt, default=None)


def pod_use(worker: PodWorker, used: NodeUsage, disk: PodDisk | None) -> PodUse:
    """All that is known of a pod's usage."""
    containers = []
    for role in roles(worker.pod.spec):
        name = role.container.name
        newest = newest_of(worker, name)
        own = used.containers.get(newest.id) if newest is not None else None
        if newest is None:
            continue
        layer, logs = (disk.layers.get(name), disk.logs.get(name)) if disk else (None, None)
        containers.append(ContainerUse(name, own.working_set if own else None, layer, logs))
    whole = used.pods.get(worker.uid)
    if whole is None:
        parts = [used.containers[c.id] for c in worker.containers.values() if c.id in used.containers]
        whole = Usage.total(parts) if parts else None
    memory, pids = (whole.working_set, whole.pids) if whole else (None, 0)
    volumes, memory_volumes = (disk.volumes, disk.memory_volumes) if disk else ({}, {})
    return PodUse(memory, pids, tuple(containers), volumes, memory_volumes)
