"""The only source of time, chance, uids and task groups.

Components take a :class:`World` and ask it; so the same code runs in the real world and in a simulation, where time
jumps to the next timer and everything repeats exactly (see :mod:`navarch.virtual`). A lint in CI bans time, random,
uuid, secrets and datetime.now elsewhere.

We stand on asyncio alone. anyio, which we tried first, cancels children in the order of their memory addresses.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

from navarch.liveness import answering

T = TypeVar("T")

# Safe alphabet of generated names (Kubernetes' util/rand): no vowels, no look-alikes, so that no words come out.
NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class OrderedTasks:
    """A set of tasks that iterates in the order they were added."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def add(self, task: asyncio.Task[Any]) -> None:
        self._tasks[task] = None

    def discard(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(list(self._tasks))

    def __len__(self) -> int:
        return len(self._tasks)


class TaskGroup(asyncio.TaskGroup):
    """asyncio's TaskGroup, whose children are cancelled in the order they were started."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks = OrderedTasks()  # type: ignore[assignment]

    def start(self, coroutine: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Starts a child; the group waits for it, and its failure cancels its siblings."""
        return self.create_task(coroutine, name=name)

    def cancel(self) -> None:
        """Cancels every child; the group then ends without an error of its own."""
        for task in self._tasks:
            task.cancel()


def chance(seed: str) -> random.Random:
    """A stream of chance of its own: equal for equal texts, whoever draws from others meanwhile."""
    return random.Random(seed)


class World(Protocol):
    """Time in seconds; ``now`` is Unix time, ``monotonic`` only ever grows."""

    random: random.Random

    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...

    def uid(self) -> str:
        """A new RFC 4122 uid."""
        ...

    def task_group(self) -> TaskGroup: ...

    async def blocking(self, work: Callable[..., T], *arguments: Any) -> T:
        """Does work that blocks (files, hashing) beside the event loop. Cancelled, it ends after the work has: nothing
        goes on behind the back of a caller who has let go."""
        ...

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        """Runs ``main`` on a new event loop of this world until it returns."""
        ...


class RealWorld:
    """The wall clock, the system's randomness, asyncio on uvloop; ``brief``: on asyncio's own loop, which starts sooner."""

    def __init__(self, brief: bool = False) -> None:
        self.brief = brief
        self.random: random.Random = random.Random()  # seeded by the system; what must be secret uses secrets

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def uid(self) -> str:
        return str(uuid.uuid4())

    def task_group(self) -> TaskGroup:
        return TaskGroup()

    async def blocking(self, work: Callable[..., T], *arguments: Any) -> T:
        future = asyncio.get_running_loop().run_in_executor(None, functools.partial(work, *arguments))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # nobody asks any more
            raise

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        calm_gc()

        async def body() -> T:
            with answering():
                return await main()

        with asyncio.Runner(loop_factory=None if self.brief else _fast_loop) as runner:
            return runner.run(body())


def _fast_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def calm_gc() -> None:
    """Lets the collector of cycles come seldom. We hold many objects and make few cycles (API objects have none): with
    Python's defaults, decoding a pod beside 5,000 cached ones costs 140 us, of which the collector takes 100."""
    gc.enable()
    gc.set_threshold(50_000, 20, 100)


def name_suffix(world: World, length: int = 5) -> str:
    """Random characters as generateName appends them."""
    return "".join(world.random.choices(NAME_ALPHABET, k=length))


class Backoff:
    """Exponential delays with jitter: ``next()`` gives seconds, ``reset()`` after a success."""

    def __init__(self, world: World, first: float = 0.1, most: float = 30.0, factor: float = 2.0, jitter: float = 0.1) -> None:
        self.world, self.first, self.most, self.factor, self.jitter = world, first, most, factor, jitter
        self._delay = 0.0

    def next(self) -> float:
        self._delay = min(self.most, self._delay * self.factor or self.first)
        return self._delay * (1 + self.jitter * self.world.random.random())

    def reset(self) -> None:
        self._delay = 0.0


MAX_DESCRIPTION = 300


def describe(error: BaseException) -> str:
    """An exception in one line; of a group that holds only one, that one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    return f"{type(error).__name__}: {text}"[:MAX_DESCRIPTION] if text else type(error).__name__


async def keep_running(world: World, log: logging.Logger, name: str, body: Callable[[], Awaitable[None]]) -> None:
    """Runs ``body`` to its end, and anew whenever it raises: at first after a second, later after a minute. For the parts of
    a component that must not end the others by a mistake of theirs."""
    backoff = Backoff(world, first=1.0, most=60.0)
    while True:
        began = world.monotonic()
        try:
            await body()
            return
        except Exception:
            if world.monotonic() - began > 60.0:
                backoff.reset()
            delay = backoff.next()
            log.exception("%s failed, and begins anew in %.1f s", name, delay)
        await world.sleep(delay)
