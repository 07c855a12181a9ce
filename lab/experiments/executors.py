"""Executors do the work of a sweep: this process, processes on all cores, or workers of dask.distributed on any machines.

Each is given tasks and tells, by ``heard``, how far runs are and what came of them, in whatever order that happens. What a
run gives depends on its task alone, so the executor changes nothing but the time it takes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, NamedTuple, TypeVar

from lab.experiments import origin
from lab.experiments.recording import listener
from lab.pools import PULSE, processes
from navarch.virtual import on_virtual_time
from navarch.world import RealWorld

TOPIC = "navarch"
T = TypeVar("T")
PROCESSES, DASK = "processes", "dask://"


class Task(NamedTuple):
    """One run to make: a cell's tree, its levels, the seed; ``name`` of the run."""

    name: str
    tree: dict[str, Any]
    levels: Mapping[str, str]
    seed: int
    tables: bool


class Pulse(NamedTuple):
    """A run has come so far; ``virtual`` in seconds since its start, ``what`` happens now. ``is_real``: on the wall clock."""

    name: str
    virtual: float
    what: str = ""
    is_real: bool = False


class Done(NamedTuple):
    """A run is over. ``output``: of the work; ``seconds`` of real time."""

    name: str
    output: Any
    seconds: float


Work = Callable[[Task], Any]
Heard = Callable[[Pulse | Done], None]


class ExecutorError(Exception):
    """There is no such executor, or it cannot be reached."""


def run_all(tasks: Sequence[Task], work: Work, heard: Heard, *, executor: str = PROCESSES, jobs: int = 1) -> None:
    """Does all tasks. Raises ExecutorError, and KeyboardInterrupt once what runs has been stopped."""
    if executor.startswith(DASK):
        _on_dask(tasks, work, heard, "tcp://" + executor.removeprefix(DASK))
    elif executor != PROCESSES:
        raise ExecutorError(f"there is no executor {executor!r}: processes, or dask://HOST:PORT")
    elif jobs <= 1 or len(tasks) <= 1:
        for task in tasks:
            output, seconds = apart(lambda task=task: _worked(work, task, heard))  # type: ignore[misc]
            heard(Done(task.name, output, seconds))
    else:
        _in_processes(tasks, work, heard, jobs)


def apart(work: Callable[[], T]) -> T:
    """Does work here; or in a thread of its own where an event loop runs already, as in a notebook."""
    if asyncio._get_running_loop() is None:
        return work()
    future: Future[T] = Future()

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=do, name="run", daemon=True).start()
    return future.result()


class Progress:
    """The listener (lab/experiments/recording.py) of one run: tells at once what happens, and its time every PULSE seconds."""

    def __init__(self, name: str, heard: Callable[[Pulse], None], now: Callable[[], float]) -> None:
        self.name, self.heard, self.now = name, heard, now
        self.virtual, self.what, self.is_real = 0.0, "", False
        self._lines, self._latest = 0, now()

    def line(self, time: float) -> None:
        self._lines += 1
        if self._lines & 31 == 0:  # a look at the clock costs as much as a line
            self.at(time)

    def at(self, time: float) -> None:
        self.virtual = time
        if (now := self.now()) - self._latest >= PULSE:
            self._latest = now
            self._tell()

    def say(self, what: str) -> None:
        self.what, self.is_real = what, not on_virtual_time()
        self._tell()

    def _tell(self) -> None:
        self.heard(Pulse(self.name, self.virtual, self.what, self.is_real))


def _worked(work: Work, task: Task, heard: Callable[[Pulse], None]) -> tuple[Any, float]:
    """Does a task, and tells how far it is now and then."""
    world = RealWorld()
    began = world.monotonic()
    heard(Pulse(task.name, 0.0))
    token = listener.set(Progress(task.name, heard, world.monotonic))
    try:
        return work(task), world.monotonic() - began
    finally:
        listener.reset(token)


# Processes


_queue: Any = None


def _begin(queue: Any) -> None:
    global _queue
    _queue = queue


def _in_child(work: Work, task: Task) -> tuple[Any, float]:
    return _worked(work, task, _queue.put)


def _in_processes(tasks: Sequence[Task], work: Work, heard: Heard, jobs: int) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    with processes(min(jobs, len(tasks)), context, _begin, (queue,)) as (pool, look):
        waiting: dict[Future[tuple[Any, float]], Task] = {pool.submit(_in_child, work, t): t for t in tasks}
        while waiting:
            look()
            over, _ = wait(waiting, timeout=PULSE, return_when=FIRST_COMPLETED)
            while not queue.empty():
                heard(queue.get())
            for future in over:
                heard(Done(waiting.pop(future).name, *future.result()))


# dask.distributed


def _on_worker(work: Work, task: Task, sender: str) -> tuple[Any, float]:
    from distributed import get_worker

    if origin.made_by() != sender:
        raise ExecutorError(f"a worker has {origin.made_by()}, and here is {sender}: results would not be the same")
    worker = get_worker()
    return _worked(work, task, lambda pulse: worker.log_event(TOPIC, tuple(pulse)))


def _on_dask(tasks: Sequence[Task], work: Work, heard: Heard, address: str) -> None:
    """Workers need this version of navarch, and the files that the experiment names at the same paths."""
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ExecutorError("dask.distributed is missing; install navarch[dask]") from error
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ExecutorError(f"no dask scheduler answers at {address}: {error}") from error
    pulses: deque[tuple[str, float, str, bool]] = deque()
    with client, client.as_current():
        client.subscribe_topic(TOPIC, lambda event: pulses.append(event[1]))
        futures = {client.submit(_on_worker, work, task, origin.made_by(), pure=False): task for task in tasks}
        try:
            for future in as_completed(futures):
                while pulses:
                    heard(Pulse(*pulses.popleft()))
                heard(Done(futures[future].name, *future.result()))
                future.release()
        finally:
            client.cancel(list(futures))  # of what is over nothing is left to cancel
