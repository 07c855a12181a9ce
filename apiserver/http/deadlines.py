"""Requests that take too long are ended: 60 seconds, or what the parameter ``timeout`` says. Watches and streams are not.

All requests without a parameter have the same time, so they end in the order in which they came: one task looks after
the first of them, and a request that is done in time costs no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from navarch.api.durations import DurationError, parse_duration
from navarch.api.errors import BadRequest, Timeout
from navarch.world import World


def timeout_of(query: Mapping[str, str]) -> float:
    """Seconds that the client asks for, 0 if it does not. Raises BadRequest."""
    text = query.get("timeout", "")
    if not text:
        return 0.0
    try:
        seconds = parse_duration(text)
    except DurationError as error:
        raise BadRequest(f"invalid timeout specified in the request URL - {error}") from None
    return max(0.0, seconds)


def too_late() -> Timeout:
    return Timeout("Timeout: request did not complete within the allotted timeout")


class Deadlines:
    """``seconds`` a request."""

    def __init__(self, world: World, seconds: float) -> None:
        self.world, self.seconds = world, seconds
        self._running: dict[Any, tuple[asyncio.Task[Any], float]] = {}  # in order of their ends
        self._timers: dict[Any, asyncio.TimerHandle] = {}  # of requests that have a time of their own

    def begin(self, request: Any, now: float, seconds: float = 0.0) -> None:
        """The current task handles this request from now on, and has so many ``seconds``, but no more than others."""
        task = asyncio.current_task()
        assert task is not None
        if seconds and seconds < self.seconds:
            self._timers[request] = asyncio.get_running_loop().call_later(seconds, _expire, request, task)
        else:
            self._running[request] = (task, now + self.seconds)

    def end(self, request: Any) -> None:
        """The request is done."""
        if self._running.pop(request, None) is None and (timer := self._timers.pop(request, None)) is not None:
            timer.cancel()

    async def run(self) -> None:
        """Cancels the tasks of requests whose time is up, and marks these as ``expired``; until it is cancelled."""
        while True:
            now = self.world.monotonic()
            wait = self.seconds
            while self._running:
                request, (task, until) = next(iter(self._running.items()))
                if until > now:
                    wait = until - now
                    break
                del self._running[request]
                _expire(request, task)
            await self.world.sleep(max(wait, 0.05))


def _expire(request: Any, task: asyncio.Task[Any]) -> None:
    request.expired = True
    task.cancel()
