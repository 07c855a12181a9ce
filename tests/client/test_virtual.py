"""Virtual time: it jumps, repeats, and refuses the outside."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from navarch.client.queue import WorkQueue
from navarch.virtual import START, Deadlock, LeakedTasks, Livelock, Refused, SimulatedWorld
from navarch.world import RealWorld


def test_time_jumps_in_order() -> None:
    world = SimulatedWorld(1)
    seen: list[tuple[str, float]] = []

    async def main() -> None:
        async def at(name: str, seconds: float) -> None:
            await world.sleep(seconds)
            seen.append((name, world.monotonic()))

        async with world.task_group() as group:
            for name, seconds in (("c", 86400.0 * 40), ("a", 1.5), ("x", 7), ("y", 7), ("z", 7), ("b", 3.25)):
                group.start(at(name, seconds))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.Event().wait()

    began = time.monotonic()
    world.run(main)
    assert time.monotonic() - began < 5
    assert seen == [("a", 1.5), ("b", 3.25), ("x", 7), ("y", 7), ("z", 7), ("c", 86400.0 * 40)]
    assert world.now() == START + 86400 * 40 + 10


def test_centuries_pass() -> None:
    world = SimulatedWorld()

    async def main() -> None:
        for _ in range(40):
            await world.sleep(86400 * 365 + 0.1)
            await world.sleep(0.001)

    world.run(main)
    assert world.monotonic() == pytest.approx(40 * (86400 * 365 + 0.101))


def test_deadlock_livelock_and_leaks_are_errors() -> None:
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def never_waits() -> None:
        while True:
            await asyncio.sleep(0)

    async def leaks() -> None:
        leaked.append(asyncio.create_task(asyncio.sleep(1), name="lost one"))

    leaked: list[Any] = []
    with pytest.raises(Deadlock, match=r"test_virtual\.py"):
        SimulatedWorld().run(waits_for_ever)
    with pytest.raises(Livelock, match=r"test_virtual\.py"):
        SimulatedWorld(most_turns=1000).run(never_waits)
    with pytest.raises(LeakedTasks, match="lost one"):
        SimulatedWorld().run(leaks)


def test_the_outside_is_refused() -> None:
    def connect() -> None:
        with socket.socket() as made:
            made.connect(("127.0.0.1", 9))

    async def executor() -> None:
        await asyncio.to_thread(len, "a")

    async def server() -> None:
        await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)

    async def process() -> None:
        await asyncio.create_subprocess_exec("true")

    async def reader() -> None:
        asyncio.get_running_loop().add_reader(0, len)

    async def handler() -> None:
        asyncio.get_running_loop().add_signal_handler(10, len)

    plain: list[Any] = [
        connect, threading.Thread(target=len).start, lambda: time.sleep(0), lambda: subprocess.run(["true"]),
    ]  # fmt: skip
    for outside in (executor, server, process, reader, handler):
        with pytest.raises(Refused):
            SimulatedWorld().run(outside)
    for call in plain:

        async def calls(call: Any = call) -> None:
            call()

        with pytest.raises(Refused):
            SimulatedWorld().run(calls)
    time.sleep(0)  # and works again outside
    threading.Thread(target=len, args=("",)).start()


PROGRAM = """
import asyncio
from navarch.virtual import SimulatedWorld
from navarch.world import Backoff, name_suffix
world = SimulatedWorld(SEED)

async def main():
    async def work(name):
        backoff = Backoff(world)
        try:
            for _ in range(20):
                await world.sleep(backoff.next())
                print(f"{world.monotonic():.9f}", name, name_suffix(world), world.uid())
        finally:
            print("end", name)
    async with world.task_group() as group:
        tasks = [group.start(work(f"t{n}")) for n in range(30)]
        done, pending = await asyncio.wait(tasks[:10], return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(tasks[:10])
        print([t.get_name() for t in done])
        group.cancel()
world.run(main)
"""


def run(seed: int, hash_seed: str) -> str:
    program = PROGRAM.replace("SEED", str(seed))
    env = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, check=True)
    return done.stdout


def test_one_seed_one_history() -> None:
    first = run(7, "1")
    assert len(first) > 5000
    assert run(7, "2") == first
    assert run(8, "1") != first


async def test_queue_delays_are_exact(world: SimulatedWorld) -> None:
    queue: WorkQueue[str] = WorkQueue(world)
    queue.add_after("b", 90)
    queue.add_after("a", 30)
    queue.add_after("b", 60)
    got = []
    for _ in range(2):
        key = await queue.get()
        got.append((key, world.monotonic()))
        queue.done(key)
    assert got == [("a", 30), ("b", 60)]
    for _ in range(20):
        queue.add_rate_limited("x")
        await queue.get()
        queue.done("x")
    assert world.monotonic() == pytest.approx(60 + 0.005 * (2**14 - 1) + 6 * 60)


def test_blocking_work_is_awaited_even_when_its_caller_is_cancelled() -> None:
    steps: list[str] = []
    enter, go_on = threading.Event(), threading.Event()

    def work(name: str) -> str:
        enter.set()
        assert go_on.wait(10)
        steps.append(name)
        return name

    async def real() -> None:
        task = asyncio.ensure_future(RealWorld().blocking(work, "a"))
        while not enter.is_set():
            await asyncio.sleep(0)  # the loop turns meanwhile
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done() and not steps
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps == ["a"]
        with pytest.raises(ZeroDivisionError):
            await RealWorld().blocking(lambda: 1 / 0)

    RealWorld().run(real)

    async def virtual() -> str:
        return await world.blocking(work, "b")

    world = SimulatedWorld()
    assert world.run(virtual) == "b" and steps == ["a", "b"]
