"""A run whose steps come from another thread, one call after another: how a cluster is used from a notebook or a test.

On virtual time the event loop itself blocks while it waits for the next call, so time stands still between two calls: what
happens depends on the seed and the calls alone, however long the caller thinks.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import yaml

from lab.experiments.deeds import Deeds
from lab.experiments.drivers.driver import UNDO, Driver, has_fault
from lab.experiments.expressions import Expression
from lab.experiments.file import CONDITIONS, Experiment
from lab.experiments.run import BEGIN, Run
from lab.experiments.state import State
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

    def __init__(self, experiment: Experiment, seed: int, **more: Any) -> None:
        super().__init__(experiment, seed, **more)
        self.tape = self.recorder = Tape({"experiment": experiment.metadata.name, "seed": seed})
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.current: Future[Any] = Future()
        self.ready = self.current
        self._resources: list[Resource] = []

    async def scenario(self, driver: Driver) -> None:
        self.driver = driver
        self.deeds = Deeds(driver, self.state, chance(f"{self.seed} deeds"))
        self.mark(BEGIN)
        async with driver.world.task_group():
            self.ready.set_result(None)
            while (job := await self._next()) is not None:
                work, self.current = job
                try:
                    self.current.set_result(await work(self))
                except Exception as error:
                    self.current.set_exception(error)
        self.recorder.finish(self.now)

    async def _next(self) -> Job | None:
        if on_virtual_time():
            return self.jobs.get()
        return await self.driver.world.blocking(self.jobs.get)

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
        self.step_begins(deeds)
        await self.deeds.do(deeds)
        await self.driver.sleep(0)

    async def fault(self, fault: Mapping[str, Any]) -> None:
        self.step_begins(fault)
        await self.deeds.fault(fault)

    async def end_fault(self, name: str, target: str) -> None:
        """Ends a fault that was begun. Raises ValueError."""
        undo = UNDO.get(name, "")
        if not undo or not has_fault(type(self.driver), undo):
            raise ValueError(f"{name} does not end")
        self.step_begins({f"end of {name}": target})
        await getattr(self.driver, undo)(target)

    def step_begins(self, what: Mapping[str, Any]) -> None:
        words = (f"{k} {v if isinstance(v, str) else ', '.join(f'{a} {b}' for a, b in v.items())}" for k, v in what.items())
        self.recorder.step(self.now, sum("step" in line for line in self.tape.lines), "; ".join(words))

    async def set_mark(self, name: str) -> None:
        self._marked.setdefault(name, asyncio.Event())
        self.mark(name)
