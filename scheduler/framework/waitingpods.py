"""Pods that Permit plugins hold back: they have a node, and their room is kept, but they are not bound yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from scheduler.framework.outcomes import Rejected
from scheduler.state.pods import PodInfo


class WaitingPod:
    """Waits until every plugin in ``plugins`` (name -> seconds) has allowed it, or one rejects it, or time is over."""

    def __init__(self, pod: PodInfo, node: str, plugins: Mapping[str, float]) -> None:
        loop = asyncio.get_running_loop()
        self.pod, self.node = pod, node
        self.rejected_by = ""
        self._answer: asyncio.Future[str] = loop.create_future()
        self._timers = {
            name: loop.call_later(seconds, self.reject, name, f"timeout after waiting {seconds:g}s at plugin {name}")
            for name, seconds in plugins.items()
        }

    @property
    def pending(self) -> list[str]:
        """The plugins that have not allowed it yet."""
        return list(self._timers)

    def allow(self, plugin: str) -> None:
        timer = self._timers.pop(plugin, None)
        if timer is not None:
            timer.cancel()
        if not self._timers and not self._answer.done():
            self._answer.set_result("")

    def reject(self, plugin: str, why: str) -> None:
        self.cancel()
        if not self._answer.done():
            self.rejected_by = plugin
            self._answer.set_result(why)

    def cancel(self) -> None:
        for timer in self._timers.values():
            timer.cancel()

    async def wait(self) -> None:
        """Until it may go. Raises Rejected."""
        why = await self._answer
        if why:
            raise Rejected(f"rejected due to {why}" if why.startswith("timeout") else why)


class WaitingPods:
    """By uid, in the order in which they came."""

    def __init__(self) -> None:
        self._pods: dict[str, WaitingPod] = {}

    def __iter__(self) -> Iterator[WaitingPod]:
        return iter(list(self._pods.values()))

    def __len__(self) -> int:
        return len(self._pods)

    def get(self, uid: str) -> WaitingPod | None:
        return self._pods.get(uid)

    def add(self, pod: WaitingPod) -> None:
        self._pods[pod.pod.uid] = pod

    def remove(self, uid: str) -> None:
        waiting = self._pods.pop(uid, None)
        if waiting is not None:
            waiting.cancel()
