"""A pool of processes that Ctrl-C ends at once, and never in the middle of a lock.

concurrent.futures holds the locks of all futures for a moment when it begins to wait for them. KeyboardInterrupt raised
there keeps them for ever, and the pool's own thread waits for them without end (seen: a sweep that Ctrl-C did not end). So
Ctrl-C is only noted, and raised where whoever uses the pool looks.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any

Look = Callable[[], None]
PULSE = 0.25  # seconds after which a loop that waits for a pool should look


@contextmanager
def processes(
    jobs: int, context: BaseContext, begin: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[tuple[ProcessPoolExecutor, Look]]:
    """The pool, and a function that raises KeyboardInterrupt once Ctrl-C was pressed. Each process calls ``begin`` first. An
    exception kills the processes: what they do may take minutes to end by itself."""
    with _noted() as look, ProcessPoolExecutor(jobs, context, _begin, (begin, arguments)) as pool:
        try:
            yield pool, look
            look()
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _begin(begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    if begin is not None:
        begin(*arguments)


@contextmanager
def _noted() -> Iterator[Look]:
    """Ctrl-C is noted in place of raised: where it would be, which is in the main thread and with Python's own handler."""
    came = False

    def note(number: int, frame: Any) -> None:
        nonlocal came
        came = True

    def look() -> None:
        if came:
            raise KeyboardInterrupt

    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield look
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield look
    finally:
        signal.signal(signal.SIGINT, before)
