"""What blocks an event loop: callbacks that take much CPU time, and where they spend it.

    watchdog = Watchdog(bound=0.05)
    watchdog.run(main)
    assert not watchdog.slow, watchdog.report()

CPU time of the loop's thread is measured, not the time on the wall: a busy machine makes nothing slow. What other
threads do meanwhile (and that they hold the GIL) is not counted.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

BOUND = 0.05  # seconds of CPU that one callback may take
LOOK_SECONDS = 0.004  # between two looks at the loop's thread


@dataclass(frozen=True)
class Slow:
    """One callback that took ``seconds`` of CPU; ``stack`` is where it was when the bound was passed, if it was seen."""

    seconds: float
    callback: str
    stack: str

    def __str__(self) -> str:
        return f"{self.seconds * 1000:.0f} ms of CPU in {self.callback}\n{self.stack or '  (in one call of C)'}"


class Watchdog:
    """Runs coroutines on an event loop of its own and notes in ``slow`` what takes longer than ``bound``."""

    def __init__(self, bound: float = BOUND) -> None:
        self.bound = bound
        self.slow: list[Slow] = []
        self._began: float | None = None  # CPU seconds of the thread when the running callback began
        self._stack = ""

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        """Like ``World.run``."""

        async def body() -> T:
            return await main()

        thread = threading.current_thread().ident
        assert thread is not None
        ended = threading.Event()
        looker = threading.Thread(target=self._look, args=(thread, ended), name="loopwatch", daemon=True)
        looker.start()
        try:
            with asyncio.Runner(loop_factory=lambda: _Loop(self)) as runner:
                return runner.run(body())
        finally:
            ended.set()
            looker.join()

    def report(self) -> str:
        """The slowest first, for the message of an assertion."""
        return "\n".join(str(slow) for slow in sorted(self.slow, key=lambda s: -s.seconds)[:10])

    def _look(self, thread: int, ended: threading.Event) -> None:
        clock = time.pthread_getcpuclockid(thread)
        while not ended.wait(LOOK_SECONDS):
            began = self._began
            if began is None or self._stack or time.clock_gettime(clock) - began < self.bound * 0.7:
                continue
            frame = sys._current_frames().get(thread)
            if frame is not None and self._began == began:
                self._stack = "".join(traceback.format_stack(frame)[-14:])

    def _timed(self, handle: Any) -> None:
        self._stack, began = "", time.thread_time()
        self._began = began
        try:
            handle._run()
        finally:
            seconds, self._began = time.thread_time() - began, None
            if seconds > self.bound:
                self.slow.append(Slow(seconds, repr(handle), self._stack))


class _Timed:
    """A handle as the loop's next turn sees it."""

    __slots__ = ("_handle", "_run")

    def __init__(self, handle: Any, watchdog: Watchdog) -> None:
        self._handle = handle
        self._run = lambda: watchdog._timed(handle)

    @property
    def _cancelled(self) -> bool:
        return bool(self._handle._cancelled)


class _Ready(deque[Any]):
    """The loop's queue of what is due. Each entry is timed when its turn has come."""

    watchdog: Watchdog

    def popleft(self) -> Any:
        return _Timed(super().popleft(), self.watchdog)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, watchdog: Watchdog) -> None:
        super().__init__()
        self._ready = _Ready()
        self._ready.watchdog = watchdog
