"""A run whose steps come from another thread, one call after another: how a cluster is used from a notebook or a test.

On virtual time the event loop itself blocks while it waits for the next call, so time stands still between two calls: what
happens depends on the seed and the calls alone, however long the caller thinks. On the wall clock the loop goes on, and the
calling thread wakes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import yaml

from lab.experiments.deeds import Deeds
from lab.experiments.drivers.driver import UNDO, Driver, has_fault
from lab.experiments.expressions import Expression
from lab.experiments.file import CONDITIONS, Experiment, Step
from lab.experiments.limits import refusals
from lab.experiments.run import BEGIN, Run
from lab.experiments.schema import Problem, WrongFile
from lab.experiments.state import State
from lab.experiments.stepchecks import check_steps
from lab.interactive.tape import Tape
from navarch.client.client import ResourceClient
from navarch.client.codec import TreeCodec
from navarch.client.discovery import Resource, discover
from navarch.virtual import on_virtual_time
from navarch.world import chance

Tree = dict[str, Any]
Trees = list[Tree]
Condition = str | Callable[[State], Any]
Work = Callable[["Session"], Awaitable[Any]]
Job = tuple[Work, "Future[Any]"]


class Session(Run):
    """``jobs``: what to do next; None ends it. ``ready`` is done once the cluster stands."""

    def __init__(self, experiment: Experiment, seed: int, **about: str) -> None:
        super().__init__(experiment, seed, **about)
        self.tape = self.recorder = Tape({"experiment": experiment.metadata.name, "seed": seed, **about})
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.current: Future[Any] = Future()
        self.ready = self.current
        self.is_over = False
        self._resources: list[Resource] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # on the wall clock
        self._news = asyncio.Event()
        self._call: asyncio.Task[None] | None = None

    async def scenario(self, driver: Driver) -> None:
        self.driver = driver
        self.deeds = Deeds(driver, self.state, chance(f"{self.seed} deeds"))
        self.deeds.folder = "."
        self._loop = None if on_virtual_time() else asyncio.get_running_loop()
        self.mark(BEGIN)
        try:
            async with driver.world.task_group() as group:
                self.ready.set_result(None)
                while (job := await self._next()) is not None:
                    work, self.current = job
                    self._call = group.start(self._answer(work, self.current), "call")
                    await asyncio.wait([self._call])
        finally:
            self.finish()
            self.is_over = True

    async def _next(self) -> Job | None:
        if self._loop is None:
            return self.jobs.get()
        while self.jobs.empty():
            await self._news.wait()
            self._news.clear()
        return self.jobs.get()

    async def _answer(self, work: Work, future: Future[Any]) -> None:
        try:
            future.set_result(await work(self))
        except Exception as error:
            future.set_exception(error)

    @property
    def now(self) -> float:
        return self.ended if self.is_over else self.driver.now

    # From other threads

    def submit(self, job: Job | None) -> None:
        """Has a job done after those before it; None ends the session."""
        self.jobs.put(job)
        self._in_loop(self._news.set)

    def interrupt(self) -> None:
        """Ends the call that goes on. On virtual time it goes on to its end."""
        self._in_loop(lambda: self._call and self._call.cancel())

    def _in_loop(self, do: Callable[[], Any]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(do)

    # Objects

    async def apply(self, what: str | Path | Mapping[str, Any] | Sequence[Any], namespace: str) -> None:
        """Manifests: a text, a file or folder, an object, or several."""
        if isinstance(what, str):
            await self.driver.apply(what, namespace)
        elif isinstance(what, Path):
            files = sorted(p for p in what.iterdir() if p.suffix in (".yaml", ".yml", ".json")) if what.is_dir() else [what]
            for path in files:
                await self.driver.apply(path.read_text(), namespace)
        elif isinstance(what, Mapping):
            await self.driver.apply(yaml.safe_dump(dict(what)), namespace)
        else:
            for one in what:
                await self.apply(one, namespace)

    async def resource(self, word: str) -> ResourceClient[Tree]:
        """The verbs of a kind by its plural, singular or short name, or kind, with or without ``.group``. Raises ValueError."""
        name, _, group = word.lower().partition(".")
        for again in (False, True):
            if again or not self._resources:
                self._resources = await discover(self.driver.client)
            for one in self._resources:
                kind = one.kind
                names = (kind.resource, kind.singular_name, kind.kind.lower(), *kind.short_names)
                if name in names and group in ("", kind.group):
                    return ResourceClient(self.driver.client, kind, TreeCodec(kind))
        raise ValueError(f"the server does not have a resource type {word!r}")

    async def _place(self, reference: str, namespace: str) -> tuple[ResourceClient[Tree], str, str | None]:
        word, slash, name = reference.partition("/")
        if not slash:
            raise ValueError(f"{reference!r} is no reference such as deployment/web")
        resource = await self.resource(word)
        return resource, name, namespace if resource.kind.namespaced else None

    async def get(self, reference: str, namespace: str) -> Tree:
        """Raises NotFound."""
        resource, name, where = await self._place(reference, namespace)
        return await resource.get(name, where)

    async def objects(self, word: str, namespace: str | None, selector: str) -> Trees:
        resource = await self.resource(word)
        where = namespace if resource.kind.namespaced else None
        return list((await resource.list(where, label_selector=selector or None)).items)

    async def delete(self, reference: str, namespace: str) -> None:
        resource, name, where = await self._place(reference, namespace)
        self.step_begins({"delete": reference})
        await resource.delete(name, where)
        await self.driver.sleep(0)

    # Steps

    async def wait(self, condition: Condition, timeout: float) -> Any:
        """Raises TimeoutError, ExpressionError."""
        if not isinstance(condition, str):
            return await self.driver.run_until(lambda: condition(self.state), timeout, "")
        expression = Expression(condition)
        expression.check(CONDITIONS, ())
        return await self.driver.run_until(lambda: expression.evaluate(self._conditions, {}), timeout, condition)

    async def value(self, condition: str) -> Any:
        """The value of a condition now. Raises ExpressionError."""
        expression = Expression(condition)
        expression.check(CONDITIONS, ())
        return expression.evaluate(self._conditions, {})

    async def do(self, deeds: Mapping[str, Any]) -> None:
        """Raises WrongFile for what is no deed, or none that this mode can do."""
        self._check(Step(do=dict(deeds)))
        self.step_begins(deeds)
        await self.deeds.do(deeds)
        await self.driver.sleep(0)

    async def fault(self, fault: Mapping[str, Any]) -> None:
        """Raises WrongFile for what is no fault, or none that this mode can do."""
        self._check(Step(fault=dict(fault)))
        self.step_begins(fault)
        await self.deeds.fault(fault)

    async def end_fault(self, name: str, target: str) -> None:
        """Ends a fault that was begun. Raises ValueError."""
        undo = UNDO.get(name, "")
        if not undo or not has_fault(type(self.driver), undo):
            raise ValueError(f"{name} does not end")
        self.step_begins({f"end of {name}": target})
        await getattr(self.driver, undo)(target)

    def _check(self, step: Step) -> None:
        one = msgspec.structs.replace(self.experiment, steps=[step], allow_commands=self.deeds.folder)
        problems: list[Problem] = []
        check_steps(one, problems)
        problems += refusals(one)
        if problems:
            raise WrongFile([p._replace(path=p.path.removeprefix("steps[0].")) for p in dict.fromkeys(problems)])

    def step_begins(self, what: Mapping[str, Any]) -> None:
        words = (f"{k} {v if isinstance(v, str) else ', '.join(f'{a} {b}' for a, b in v.items())}" for k, v in what.items())
        self.recorder.step(self.now, sum("step" in line for line in self.tape.lines), "; ".join(words))

    async def copy_of_state(self) -> State:
        return self.state.copy()

    async def set_mark(self, name: str) -> None:
        self._marked.setdefault(name, asyncio.Event())
        self.mark(name)
