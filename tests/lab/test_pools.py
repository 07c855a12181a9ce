"""Pools of processes, and Ctrl-C."""

from __future__ import annotations

import multiprocessing
import signal
import time
from concurrent.futures import wait

import pytest

from lab.pools import processes


def rest(seconds: float) -> None:
    """Not time.sleep itself: other tests put their own in its place, which cannot be pickled."""
    time.sleep(seconds)


def test_ctrl_c_is_raised_where_it_is_looked_for_and_ends_the_processes() -> None:
    context = multiprocessing.get_context("fork")
    with pytest.raises(KeyboardInterrupt), processes(2, context) as (pool, look):
        futures = [pool.submit(rest, seconds) for seconds in (0, 1000, 1000)]
        wait(futures[:1])
        look()
        signal.raise_signal(signal.SIGINT)
        assert wait(futures, timeout=0.1).done == {futures[0]}  # nothing is raised while locks are held
        children = list(pool._processes.values())
        look()
    assert children and not any(child.is_alive() for child in children)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_at_the_very_end_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt), processes(1, multiprocessing.get_context("fork")) as (pool, _):
        assert pool.submit(abs, -1).result() == 1
        signal.raise_signal(signal.SIGINT)
