"""The work queue: each key once, never twice at a time, delays and retries."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.client.queue import EARLY, MAX_TURNS, WINDOW, QueueShutDown, WorkQueue
from navarch.virtual import SimulatedWorld
from navarch.world import RealWorld


async def test_each_key_once_and_again_after_done() -> None:
    queue: WorkQueue[str] = WorkQueue(RealWorld())
    for key in "aba":
        queue.add(key)
    assert len(queue) == 2
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "b" and len(queue) == 0
    queue.done("b")
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert queue.idle
    queue.shut_down()
    with pytest.raises(QueueShutDown):
        await queue.get()


async def test_delays_shortest_counts_and_retries_grow() -> None:
    queue: WorkQueue[str] = WorkQueue(RealWorld(), first_delay=0.001)
    queue.add_after("late", 3600)
    queue.add_after("b", 0.02)
    queue.add_after("a", 3600)
    queue.add_after("a", 0.01)
    queue.add_rate_limited("r")
    order = []
    for _ in range(3):
        order.append(await queue.get())
        queue.done(order[-1])
    assert order == ["r", "a", "b"] and queue.retries("r") == 1
    queue.forget("r")
    assert queue.retries("r") == 0


async def test_a_cancelled_getter_passes_its_wake_up_on() -> None:
    queue: WorkQueue[str] = WorkQueue(RealWorld())
    first, second = asyncio.ensure_future(queue.get()), asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    async with asyncio.timeout(5):
        assert await second == "a"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["add", "get", "done", "after"]), st.integers(0, 3)), max_size=40))
def test_no_key_is_lost_or_worked_on_twice(steps: list[tuple[str, int]]) -> None:
    async def main() -> None:
        queue: WorkQueue[int] = WorkQueue(RealWorld())
        working: list[int] = []
        wanted: dict[int, None] = {}
        for step, key in steps:
            if step == "add" or step == "after":
                queue.add(key) if step == "add" else queue.add_after(key, 0)
                wanted[key] = None
            elif step == "get" and len(queue):
                got = await queue.get()
                assert got not in working
                working.append(got)
                wanted.pop(got)
            elif step == "done" and key in working:
                working.remove(key)
                queue.done(key)
        for key in working:
            queue.done(key)
        rest = [await queue.get() for _ in range(len(queue))]
        assert sorted(rest) == sorted(wanted)

    asyncio.run(main())


def on_virtual_time(main: Callable[[SimulatedWorld], Awaitable[None]]) -> None:
    world = SimulatedWorld(most_turns=20_000)  # a livelock is found soon
    world.run(lambda: main(world))


@pytest.mark.parametrize("delay", [0.0, -5.0, float("nan"), 1e-9, -float("inf")])
def test_a_key_that_asks_for_itself_at_once_starves_nobody(delay: float) -> None:
    async def main(world: SimulatedWorld) -> None:
        queue: WorkQueue[str] = WorkQueue(world)
        looks: Counter[str] = Counter()
        queue.add("greedy")

        async def work() -> None:
            while True:
                key = await queue.get()
                looks[key] += 1  # and nothing that would let others run
                queue.again(key, delay if key == "greedy" else None)
                queue.done(key)

        async with world.task_group() as group:
            group.start(work())
            for number in range(60):
                await world.sleep(1)
                queue.add(f"modest {number}")
            await world.sleep(1)
            group.cancel()
        assert sum(looks.values()) - looks["greedy"] == 60
        assert 50 < looks["greedy"] < 100  # about once a second in the end

    on_virtual_time(main)


@pytest.mark.parametrize("how", ["add", "after", "each other", "after done"])
def test_no_way_to_ask_for_a_key_is_a_livelock(how: str) -> None:
    async def main(world: SimulatedWorld) -> None:
        queue: WorkQueue[str] = WorkQueue(world)
        looks: Counter[str] = Counter()
        queue.add("a")

        async def work() -> None:
            while True:
                key = await queue.get()
                looks[key] += 1
                other = {"a": "b", "b": "a"}[key] if how == "each other" else key
                if how == "after done":
                    queue.done(key)
                queue.add_after(other, 0) if how == "after" else queue.add(other)
                queue.done(key)
                queue.check()

        async with world.task_group() as group:
            for _ in range(3):
                group.start(work())
            await world.sleep(100)
            group.cancel()
        assert 100 < looks["a"] <= 101 * MAX_TURNS and queue.slowed > 90

    on_virtual_time(main)


class Stopped(RealWorld):
    """A clock that stands still, and is read a limited number of times."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at, self.reads = at, 0

    def monotonic(self) -> float:
        self.reads += 1
        assert self.reads < 10_000, "the queue goes round in circles"
        return self.at


@given(st.floats(0.0, 1e7), st.floats(-3 * EARLY, 3 * EARLY) | st.sampled_from([0.0, -1e-12, 1e-12, -EARLY, -2 * EARLY]))
def test_a_window_that_is_about_to_end(began: float, off: float) -> None:
    """Fuzz found it: a key that had its turns was delayed and due again in one turn of the loop, for ever."""

    async def main() -> None:
        world = Stopped(began)
        queue: WorkQueue[str] = WorkQueue(world)
        queue._window_began = began
        queue._turns["a"] = MAX_TURNS
        queue.add("a")
        assert len(queue) == 0 and queue.slowed == 1
        world.at = began + WINDOW + off
        queue._ring()
        queue.check()
        if off >= 0:
            assert await queue.get() == "a"
        queue.shut_down()

    asyncio.run(main())


@pytest.mark.parametrize("delay", [1e9, 1e18, 9.3e18, 1e300, float("inf")])
def test_absurd_delays_are_waited_for(delay: float) -> None:
    async def main() -> None:
        world = RealWorld()
        queue: WorkQueue[str] = WorkQueue(world)
        for key, seconds in (("far", delay), ("near", 0.01)):
            queue.add_after(key, seconds)
        queue.again("again", delay)
        assert await queue.get() == "near"
        queue.check()
        queue.shut_down()

    asyncio.run(main())
    RealWorld().run(main)  # another event loop has other limits
