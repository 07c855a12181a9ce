"""Stops one pod's containers: preStop hook, then the signal, each within what is left of the grace period."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from navarch.world import Backoff, TaskGroup, World
from nodeagent.pods import lifecycle
from nodeagent.pods.handlers import Outcome
from nodeagent.pods.machine import StopContainer
from nodeagent.pods.mishaps import words
from nodeagent.pods.observed import AnyContainer
from nodeagent.runtime.runtime import Runtime, RuntimeError_

log = logging.getLogger(__name__)
MIN_GRACE = 2.0  # what a container gets after its preStop hook used the grace period up
SLACK = 0.5  # seconds by which a deadline must come nearer to count as a shorter grace period


class Stopper:
    """One task for each container that is being stopped. ``done(container_id)`` is called at the end of each."""

    def __init__(
        self,
        runtime: Runtime,
        world: World,
        group: TaskGroup,
        done: Callable[[str], None],
        tell: Callable[[str, str, str, AnyContainer | None], None],
        odd: Callable[[str, Exception], None],
    ) -> None:
        """``odd(doing, error)`` is told what nobody has foreseen."""
        self._odd = odd
        self._backoffs: dict[str, Backoff] = {}  # by container id, while its end does not come
        self._runtime, self._world, self._group, self._done, self._tell = runtime, world, group, done, tell
        self._stops: dict[str, tuple[float, asyncio.Task[None]]] = {}  # container id -> deadline, task

    @property
    def busy(self) -> bool:
        return bool(self._stops)

    def stop(self, action: StopContainer, spec: AnyContainer | None, ip: str) -> None:
        """Begins to stop a container, or hurries up if it is being stopped with more time."""
        running = self._stops.get(action.id)
        if running is not None:
            if running[0] <= action.deadline + SLACK:
                return
            running[1].cancel()
        else:
            self._tell("Normal", "Killing", action.why, spec)
        task = self._group.start(self._run(action, spec, ip, again=running is not None), name=f"stop {action.id}")
        self._stops[action.id] = action.deadline, task

    async def _run(self, action: StopContainer, spec: AnyContainer | None, ip: str, again: bool) -> None:
        try:
            remaining = action.deadline - self._world.now()
            if spec is not None and spec.lifecycle and spec.lifecycle.pre_stop and not again and remaining > 0:
                await self._pre_stop(action, spec, ip, remaining)
                remaining = max(action.deadline - self._world.now(), MIN_GRACE)
            await self._runtime.stop_container(action.id, max(0.0, remaining))
            self._backoffs.pop(action.id, None)
        except RuntimeError_ as error:
            self._tell("Warning", "FailedKillPod", f"error killing pod: {error.message}", spec)
            await self._world.sleep(self._delay(action.id))
        except Exception as error:  # nobody has foreseen it; the machine will ask again
            self._odd("stop container", error)
            self._tell("Warning", "FailedKillPod", f"error killing pod: {words(error)}", spec)
            await self._world.sleep(self._delay(action.id))
        finally:
            stop = self._stops.get(action.id)
            if stop is not None and stop[0] == action.deadline:
                del self._stops[action.id]
            self._done(action.id)

    def _delay(self, container_id: str) -> float:
        return self._backoffs.setdefault(container_id, Backoff(self._world, first=2.0, most=60.0)).next()

    async def _pre_stop(self, action: StopContainer, spec: AnyContainer, ip: str, remaining: float) -> None:
        hook = spec.lifecycle.pre_stop if spec.lifecycle else None
        if hook is None:
            return
        try:
            async with asyncio.timeout(remaining):
                await lifecycle.run(self._runtime, self._world, hook, spec, action.id, ip, remaining)
        except Outcome as outcome:
            # As with kubelet the event does not say why: what a hook printed or a server answered may be a secret.
            log.warning("container %s: preStop hook failed: %s", action.name, outcome.output)
            self._tell("Warning", "FailedPreStopHook", "PreStopHook failed", spec)
        except TimeoutError:
            log.warning("container %s: preStop hook not completed in grace period", action.name)
