"""The node's image garbage collection: looks every few minutes, and tells on the Node when it cannot free enough."""

from __future__ import annotations

import logging
from collections.abc import Callable

from navarch.world import World
from nodeagent.config import Config
from nodeagent.runtime.runtime import ImagePolicy, Runtime, RuntimeError_

log = logging.getLogger(__name__)


class ImageGC:
    """``tell(reason, message)`` records a warning about the node."""

    def __init__(self, config: Config, runtime: Runtime, world: World, tell: Callable[[str, str], None]) -> None:
        self._runtime, self._world, self._tell = runtime, world, tell
        self._period = config.image_gc_period
        self._policy = ImagePolicy(config.image_gc_high, config.image_gc_low, config.image_min_age, config.image_max_age)
        self._failed = False

    async def run(self) -> None:
        while True:
            await self._world.sleep(self._period)
            await self.once()

    async def once(self) -> None:
        """One look. As kubelet does, a failure is an event of its own only if the look before failed, too."""
        try:
            done = await self._runtime.collect_images(self._policy)
        except (OSError, RuntimeError_) as error:
            self._failure(str(error))
            return
        for image in done.removed:
            log.info("removed image %s, which nobody used", image)
        if done.freed >= done.target:
            self._failed = False
            return
        text = (
            f"Failed to garbage collect required amount of images. Attempted to free {done.target} bytes, "
            f"but only found {done.freed} bytes eligible to free."
        )
        self._tell("FreeDiskSpaceFailed", text)
        self._failure(text)

    def _failure(self, text: str) -> None:
        log.warning("image garbage collection: %s", text)
        if self._failed:
            self._tell("ImageGCFailed", text)
        self._failed = True
