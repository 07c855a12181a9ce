"""Keeps one pod's volumes current while it runs: after changes of objects, and before tokens end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from navarch.api.types import core_v1
from navarch.world import TaskGroup, World
from nodeagent.pods.fieldrefs import Facts
from nodeagent.volumes.manager import PodVolumes, VolumeError

log = logging.getLogger(__name__)
RETRY = 20.0  # seconds


class Refresher:
    """One refresh at a time. ``due`` says when the next is wanted (Unix seconds)."""

    def __init__(self, volumes: PodVolumes, world: World, odd: Callable[[str, Exception], None]) -> None:
        """``odd(doing, error)`` is told what nobody has foreseen."""
        self._odd = odd
        self._volumes, self._world = volumes, world
        self._is_stale = False
        self._retry: float | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def due(self) -> float | None:
        if self._task is not None:
            return None
        if self._retry is not None:
            return self._retry
        return self._volumes.next_refresh

    def want(self) -> None:
        """Notes that the sources of the volumes have changed."""
        self._is_stale = True
        self._retry = None

    def begin_if_due(self, group: TaskGroup, pod: core_v1.Pod, facts: Facts, done: Callable[[], None]) -> None:
        """Starts a refresh if one is wanted; ``done`` is called at its end."""
        due = self.due
        if self._task is None and (self._is_stale or (due is not None and self._world.now() >= due)):
            self._is_stale = False
            self._task = group.start(self._refresh(pod, facts, done), name=f"volumes of {pod.metadata.uid}")

    async def stop(self) -> None:
        """Ends it; what it is writing at the moment is finished first."""
        if self._task is not None:
            task = self._task
            task.cancel()
            await asyncio.wait([task])

    async def _refresh(self, pod: core_v1.Pod, facts: Facts, done: Callable[[], None]) -> None:
        try:
            await self._volumes.set_up(pod, facts)
            self._retry = None
        except VolumeError as error:
            log.info("pod %s/%s: %s", pod.metadata.namespace, pod.metadata.name, error)
            self._retry = self._world.now() + RETRY
        except Exception as error:  # nobody has foreseen it: the pod runs on with the volumes that it has
            self._odd("refresh volumes", error)
            self._retry = self._world.now() + RETRY
        finally:
            self._task = None
            done()
