"""Keeps container logs from filling the disk: a log above its limit is moved aside and begun anew."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from navarch.world import World
from nodeagent.config import Config
from nodeagent.pods.worker import PodWorker
from nodeagent.runtime.runtime import RUNNING, Runtime, RuntimeError_

log = logging.getLogger(__name__)
PERIOD = 10.0  # seconds


class Node(Protocol):
    config: Config
    runtime: Runtime
    world: World

    def workers(self) -> list[PodWorker]: ...


async def run(node: Node) -> None:
    """Looks at every running container's log again and again, until cancelled."""
    while True:
        await node.world.sleep(PERIOD)
        running = [c for worker in node.workers() for c in worker.containers.values() if c.state == RUNNING]
        sizes = await node.world.blocking(lambda: [_size(container.log_path) for container in running])  # noqa: B023
        for container, size in zip(running, sizes, strict=True):
            if size > node.config.max_log_size:
                await rotate(node, container.id, Path(container.log_path))


async def rotate(node: Node, container_id: str, path: Path) -> None:
    """Moves the log aside, has the runtime begin a new one, and removes the oldest beyond the limit."""
    stamp = datetime.fromtimestamp(node.world.now(), UTC).strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.{stamp}")
    try:
        os.rename(path, aside)
        await node.runtime.reopen_log(container_id)
    except (OSError, RuntimeError_) as error:
        log.warning("rotating %s: %s", path, error)
        if aside.exists() and not path.exists():
            os.rename(aside, path)
        return
    await node.world.blocking(_thin_out, path, node.config.max_log_files - 1)


def _thin_out(path: Path, keep: int) -> None:
    """Removes the oldest of the logs that were moved aside. It blocks: to free a large file takes its time."""
    old = sorted(path.parent.glob(f"{path.name}.*"))
    for extra in old[: max(0, len(old) - keep)]:
        extra.unlink(missing_ok=True)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
