"""A world in which time jumps: whole clusters run in one process, fast, and twice the same.

:class:`SimulatedWorld` runs ``main`` on an asyncio loop whose clock stands still while anything can run and then jumps
to the next timer. An hour of leases costs what their handling costs. Chance comes from one seed. Whatever would bring
the outside in, and with it an order that nobody chose (sockets, threads, executors, processes, signals), is refused
with :class:`Refused`. When nothing can ever happen again that is a :class:`Deadlock`; when things go on happening but
time does not, a :class:`Livelock`; and a task that outlives ``main`` is a :class:`LeakedTasks`.

What makes two runs equal, byte for byte: timers run in the order (time, order of setting); tasks and futures hash by
the order in which they were made, so even sets of them (asyncio.wait) iterate alike; task groups cancel in order
(navarch.world). What remains for the code on top: never let the order of a set of text leak (PYTHONHASHSEED), never
use ``id()`` or ``hash()``, close async generators.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import heapq
import itertools
import math
import random
import selectors
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, NoReturn, TypeVar

from navarch.world import TaskGroup, calm_gc

T = TypeVar("T")

START = 1767225600.0  # 2026-01-01T00:00:00Z
# So many turns of the loop at one instant are taken for an endless loop.
MAX_TURNS = 2_000_000
# Two timers nearer than this (seconds) are due together. Far below what anyone asks for.
RESOLUTION = 1e-9
SHOWN_TASKS = 20


class Refused(RuntimeError):
    """Something of the real world was asked for on virtual time."""


class Deadlock(RuntimeError):
    """Nothing can run and no timer is set: every task waits for another."""


class Livelock(RuntimeError):
    """The loop turned MAX_TURNS times without time going on."""


class LeakedTasks(RuntimeError):
    """Tasks were left running when main returned."""


class SimulatedWorld:
    """A :class:`navarch.world.World` on virtual time. ``start`` is Unix time at monotonic time 0.

    One seed gives one history. Uids are drawn apart from everything else, so that a component that asks for more
    chance does not rename every object.
    """

    def __init__(self, seed: int = 0, start: float = START, most_turns: int = MAX_TURNS) -> None:
        self.seed = seed
        self.start = start
        self.random = random.Random(seed)
        self._uids = random.Random(f"uids of {seed}")
        self._most_turns = most_turns
        self._clock = _Clock()

    def now(self) -> float:
        return self.start + self._clock.time

    def monotonic(self) -> float:
        return self._clock.time

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def uid(self) -> str:
        return str(uuid.UUID(int=self._uids.getrandbits(128), version=4))

    def task_group(self) -> TaskGroup:
        return TaskGroup()

    async def blocking(self, work: Callable[..., T], *arguments: Any) -> T:
        """At once, in the loop: threads have an order that nobody chose."""
        return work(*arguments)

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        """Runs ``main`` to its end. May be called again: time goes on from where it stood."""
        _guard()
        calm_gc()

        async def body() -> T:
            result = await main()
            mine = asyncio.current_task()
            leaks = sorted(str(task.get_name()) for task in asyncio.all_tasks() if task is not mine and not task.done())
            if leaks:
                raise LeakedTasks(f"main returned, but these still run: {', '.join(leaks[:SHOWN_TASKS])}")
            return result

        with asyncio.Runner(loop_factory=lambda: VirtualLoop(self._clock, self._most_turns)) as runner:
            return runner.run(body())


class _Clock:
    __slots__ = ("time",)

    def __init__(self) -> None:
        self.time = 0.0


class _Task(asyncio.Task[Any]):
    """A task that hashes by its number, not by its address."""

    def __init__(self, *args: Any, number: int, **kw: Any) -> None:
        self._number = number  # first: the base class puts itself into a set
        super().__init__(*args, **kw)

    def __hash__(self) -> int:
        return self._number


class _Future(asyncio.Future[Any]):
    def __init__(self, *args: Any, number: int, **kw: Any) -> None:
        self._number = number
        super().__init__(*args, **kw)

    def __hash__(self) -> int:
        return self._number


class _Timer(asyncio.TimerHandle):
    """A timer that goes before those of the same time that were set after it."""

    __slots__ = ("_number",)
    _number: int

    def __lt__(self, other: Any) -> bool:
        # _when, not when(): this runs some twenty times for each timer in a large simulation.
        mine: float = self._when  # type: ignore[attr-defined]
        others: float = other._when
        return mine < others or (mine == others and self._number < other._number)


class _Selector(selectors.BaseSelector):
    """Knows one file, the loop's own wake-up pipe; "waiting" moves the clock."""

    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}
        self.wait: Callable[[float | None], None] = lambda timeout: None

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self._keys:
            raise Refused("no file or socket can be waited for on virtual time")
        key = selectors.SelectorKey(fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Any:
        return self._keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[fileobj]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.wait(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop on a clock that jumps. See the module's docstring."""

    # Set up by BaseEventLoop; the heap of timers.
    _scheduled: list[_Timer]
    _clock_resolution: float

    def __init__(self, clock: _Clock, most_turns: int = MAX_TURNS) -> None:
        selector = _Selector()
        self._clock = clock
        self._numbers = itertools.count(1)
        self._turns = 0
        self._most_turns = most_turns
        super().__init__(selector)
        selector.wait = self._wait
        self._clock_resolution = RESOLUTION
        self.set_task_factory(_make_task)
        self.slow_callback_duration = float("inf")

    def time(self) -> float:
        return self._clock.time

    def _wait(self, timeout: float | None) -> None:
        """Waits when the loop would sleep: timeout 0 means that callbacks are ready, None that there are no timers."""
        if timeout == 0:
            self._turns += 1
            if self._turns > self._most_turns:
                self._turns = 0
                text = f"{self._most_turns} turns at time {self._clock.time:.3f} without an end; running: "
                raise Livelock(text + self._who())
            return
        self._turns = 0
        if timeout is None:
            raise Deadlock(f"at time {self._clock.time:.3f} nothing can ever happen again; waiting: {self._who()}")
        # Assigned, not added: sums of floats would drift away from what was asked for.
        self._clock.time = self._scheduled[0].when()
        # The loop takes what is due before time + resolution; after half a year the sum must still be more than time.
        self._clock_resolution = max(RESOLUTION, 2 * math.ulp(self._clock.time))

    def _who(self) -> str:
        """The tasks and where they wait, for error messages."""
        shown = []
        for task in sorted(asyncio.all_tasks(self), key=hash)[:SHOWN_TASKS]:
            shown.append(f"{task.get_name()} at {_place(task)}")
        return "; ".join(shown)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        timer._number = next(self._numbers)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._clock.time + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(loop=self, number=next(self._numbers))

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> NoReturn:  # type: ignore[override]
        raise Refused(f"no executor on virtual time: {getattr(func, '__qualname__', func)}")

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> NoReturn:  # type: ignore[override]
        raise Refused("no signal handlers on virtual time")

    async def shutdown_default_executor(self, *args: Any) -> None:
        pass  # there is none


def _place(task: asyncio.Task[Any]) -> str:
    """Where a task waits: the innermost place that is not asyncio's own."""
    place = "?"
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None and "/asyncio/" not in frame.f_code.co_filename:
            place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return place


def _refusing(name: str) -> Callable[..., Coroutine[Any, Any, NoReturn]]:
    async def refuse(self: VirtualLoop, *args: Any, **kw: Any) -> NoReturn:
        raise Refused(f"no {name} on virtual time")

    return functools.update_wrapper(refuse, getattr(asyncio.SelectorEventLoop, name))


for _name in (
    "create_connection", "create_server", "create_unix_connection", "create_unix_server", "create_datagram_endpoint",
    "connect_read_pipe", "connect_write_pipe", "subprocess_exec", "subprocess_shell", "getaddrinfo", "getnameinfo",
    "sock_connect", "sock_accept", "sock_recv", "sock_sendall", "connect_accepted_socket",
):  # fmt: skip
    setattr(VirtualLoop, _name, _refusing(_name))


def _make_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T] | Generator[Any, None, T],
    context: contextvars.Context | None = None,
) -> asyncio.Task[T]:
    assert isinstance(loop, VirtualLoop)
    number = next(loop._numbers)
    # Named after their number in this loop: asyncio's own counter goes on from run to run.
    return _Task(coroutine, loop=loop, context=context, number=number, name=f"task {number}")


def on_virtual_time() -> bool:
    """Whether the calling thread is running a virtual loop."""
    return isinstance(asyncio._get_running_loop(), VirtualLoop)


@contextlib.contextmanager
def outside() -> Iterator[None]:
    """Steps out of virtual time: a program may run, and the loop stands still meanwhile. What comes of it repeats only if the
    program does the same each time."""
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)


REFUSED_EVENTS = frozenset({
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "signal.pthread_kill",
    "socket.bind", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen",
})  # fmt: skip


@functools.cache
def _guard() -> None:
    """Refuses, in threads that run a virtual loop, what the loop itself cannot see. Installed once a process."""

    def audit(event: str, args: Any) -> None:
        if event in REFUSED_EVENTS and on_virtual_time():
            raise Refused(f"no {event} on virtual time: {args!r}")

    # Neither of these two raises an audit event in Python 3.11.
    start, sleep = threading.Thread.start, time.sleep

    def guarded_start(self: threading.Thread) -> None:
        if on_virtual_time():
            raise Refused(f"no threads on virtual time: {self.name}")
        start(self)

    def guarded_sleep(seconds: Any, /) -> None:
        if on_virtual_time():
            raise Refused("time.sleep stops the loop: use world.sleep")
        sleep(seconds)

    threading.Thread.start = guarded_start  # type: ignore[method-assign]
    time.sleep = guarded_sleep
    sys.addaudithook(audit)
