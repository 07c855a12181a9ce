"""Graceful shutdown of a node: in which order its pods end, and how much time each group gets.

The order is in shutdownperiods.py; :class:`Shutdown` ends one group after the other. Who switches the node off tells the
agent by SIGPWR, and reads in a file of the agent's root directory when all pods have ended.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from navarch.api.times import format_time
from navarch.world import World
from nodeagent.config import Config
from nodeagent.node.shutdownperiods import STATE_FILE, grace_of, groups
from nodeagent.pods.worker import PodWorker

log = logging.getLogger(__name__)
REASON, MESSAGE = "Terminated", "Pod was terminated in response to imminent node shutdown."
REJECTION = ("NodeShutdown", "Pod was rejected as the node is shutting down.")
NOT_READY = "node is shutting down"
POLL = 0.1  # seconds between two looks at pods that are ending


class Node(Protocol):
    """The agent, as far as it is needed here. ``set_shutting_down`` makes the node not ready."""

    config: Config
    world: World

    def workers(self) -> list[PodWorker]: ...
    def set_shutting_down(self) -> None: ...


class Shutdown:
    """``tell(reason, message)`` records an event about the node."""

    def __init__(self, node: Node, tell: Callable[[str, str], None]) -> None:
        self._node, self._tell = node, tell
        self._periods = node.config.shutdown_periods
        self._file = node.config.root_dir / STATE_FILE
        self.began = False

    @property
    def graceful(self) -> bool:
        return bool(self._periods)

    async def run(self) -> None:
        """Ends all pods of the node, and returns."""
        if self.began:
            return
        node, self.began = self._node, True
        log.info("Shutdown manager detected new shutdown event")
        self._tell("Shutdown", "Shutdown manager detected shutdown event")
        start = format_time(node.world.now())
        await self._note({"startTime": start})
        node.set_shutting_down()
        workers = {worker.uid: worker for worker in node.workers() if worker.counts}
        for seconds, pods in groups(self._periods, [worker.pod for worker in workers.values()]):
            await self._end(seconds, [workers[pod.metadata.uid or ""] for pod in pods])
        await self._note({"startTime": start, "endTime": format_time(node.world.now())})
        log.info("Shutdown manager completed processing shutdown event, node will shutdown shortly")

    async def _note(self, state: dict[str, str]) -> None:
        """Writes the state; pods end also where the disk is full."""
        try:
            await self._node.world.blocking(self._file.write_text, json.dumps(state))
        except OSError as error:
            log.error("%s: %s", self._file, error)

    async def _end(self, seconds: float, workers: Sequence[PodWorker]) -> None:
        world = self._node.world
        for worker in workers:
            worker.end(REASON, MESSAGE, grace_of(seconds, worker.pod), MESSAGE)
        deadline = world.monotonic() + seconds
        while any(not worker.ended for worker in workers) and world.monotonic() < deadline:
            await world.sleep(POLL)
        slow = [worker.pod.metadata.name for worker in workers if not worker.ended]
        if slow:
            log.warning("Shutdown manager pod killing time out: %s still there after %g s", ", ".join(map(str, slow)), seconds)
