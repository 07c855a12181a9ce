"""The work queue: each key once, never twice at a time, delays and retries."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.client.queue import QueueShutDown, WorkQueue
from navarch.world import RealWorld


def test_each_key_once_and_again_after_done() -> None:
    async def main() -> None:
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

    asyncio.run(main())


def test_delays_shortest_counts_and_retries_grow() -> None:
    async def main() -> None:
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

    asyncio.run(main())


def test_a_cancelled_getter_passes_its_wake_up_on() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue(RealWorld())
        first, second = asyncio.ensure_future(queue.get()), asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        queue.add("a")
        first.cancel()
        async with asyncio.timeout(5):
            assert await second == "a"

    asyncio.run(main())


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
