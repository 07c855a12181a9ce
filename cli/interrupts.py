"""Ctrl-C: the command's task is cancelled, and whatever it then still waits for, the program ends a moment later.

A cancelled task may say goodbye over a connection on which nobody reads any more; that must not keep a person waiting. A second
Ctrl-C ends the program at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GRACE = 2.0  # seconds from the interrupt to the end
CODE = 130  # the exit code of what SIGINT ended


def leave(*_: Any) -> None:
    """Ends the program without asking anybody."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(CODE)


@contextmanager
def interruptible() -> Iterator[None]:
    """To be opened in the task that SIGINT is to cancel, while it runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    interrupts = 0

    def interrupted(*_: Any) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            leave()
        signal.setitimer(signal.ITIMER_REAL, GRACE)
        loop.call_soon_threadsafe(task.cancel)

    # Python's handlers run between two bytecodes of the main thread, so also when the loop does not turn.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, interrupted), signal.SIGALRM: signal.signal(signal.SIGALRM, leave)}
    try:
        yield
    finally:
        if not interrupts:
            for number, handler in before.items():
                signal.signal(number, handler)
