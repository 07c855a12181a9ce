"""One run of one cell of an experiment with one seed: workload, steps, conditions and marks, on whatever driver there is."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec
import orjson

from lab.experiments.deeds import Deeds
from lab.experiments.drivers.driver import Driver
from lab.experiments.drivers.stage import Outcome, StepFailed
from lab.experiments.expressions import Expression
from lab.experiments.file import CONDITIONS, Arrivals, Experiment, Generate, Step, Trace, rate_of
from lab.experiments.inputs import arrivals_of, seconds_of
from lab.experiments.manifests import filled
from lab.experiments.recording import Recorder, listener
from lab.experiments.state import State, condition
from navarch.api import kinds
from navarch.api.types import core_v1
from navarch.world import chance

_POD = kinds.kind_of(core_v1.Pod)
BEGIN = "begin"


class Run:
    """A stage feeds it with ``changed`` and awaits its ``scenario``."""

    def __init__(self, experiment: Experiment, seed: int, **about: str) -> None:
        """``about``: more for the recording's header."""
        self.experiment, self.seed = experiment, seed
        self.listener = listener.get()
        self.state = State(orjson.loads)
        self.timeouts: list[str] = []
        self.ended = 0.0
        self.marks: dict[str, float] = {}
        marks = [s.mark for s in experiment.steps if s.mark]
        self._marked = {name: asyncio.Event() for name in (BEGIN, *marks)}
        self.recorder = Recorder({"experiment": experiment.metadata.name, "seed": seed, "marks": marks, **about})
        self.driver: Driver
        self._conditions = {name: getattr(self.state, name) for name in CONDITIONS}

    def outcome(self) -> Outcome:
        return Outcome(self.recorder, self.ended, self.timeouts)

    def finish(self) -> None:
        """Ends the recording."""
        self.ended = self.now
        self.recorder.finish(self.ended)

    @property
    def now(self) -> float:
        return self.driver.now

    def say(self, what: str) -> None:
        """Tells those who watch the run what happens now."""
        if self.listener is not None:
            self.listener.say(what)

    def changed(self, time: float, type: str, key: str, revision: int, value: bytes) -> None:
        """Takes in a change of an object; ``value`` is its JSON, of a deletion the last one."""
        self.recorder.change(time, type, key, revision, value)
        self.state.apply(type, key, value)

    def mark(self, name: str) -> None:
        self.marks[name] = self.now
        self._marked.setdefault(name, asyncio.Event()).set()
        self.recorder.mark(self.now, name)
        self._requests()

    def _requests(self) -> None:
        for component, counts in self.driver.requests().items():
            self.recorder.sample(self.now, f"requests/{component}", counts)

    async def scenario(self, driver: Driver) -> None:
        """Everything from the first manifest to the end of the recording. Raises StepFailed."""
        self.driver = driver
        deeds = Deeds(driver, self.state, chance(f"{self.seed} deeds"))
        deeds.folder = self.experiment.allow_commands
        for one in self.experiment.cluster.objects:
            await deeds.apply(one)
        self.mark(BEGIN)
        background: list[asyncio.Task[None]] = []
        async with driver.world.task_group() as group:
            for n, work in enumerate(self.experiment.workload):
                if work.apply is not None:
                    await deeds.apply(work.apply)
                elif work.generate is not None:
                    await self._generate(work.generate, n, deeds)
                elif work.arrivals is not None:
                    group.start(self._arrivals(work.arrivals, n, deeds), f"arrivals {n}")
                elif work.trace is not None:
                    background.append(group.start(self._trace(work.trace), f"trace {n}"))
                elif work.load is not None:
                    group.start(driver.load(work.load, n), f"load {n}")
            await self._steps(deeds)
            for one in background:
                await one  # a trace is played to its end
            if rest := seconds_of(self.experiment.for_):
                self.say(f"{rest:g} s more")
            await driver.sleep(rest)
            group.cancel()
        self._requests()
        self.finish()

    # Steps

    async def _steps(self, deeds: Deeds) -> None:
        """Each step begins once the one before it is over; with ``after``, once that one is, beside all others."""
        steps = self.experiment.steps
        names = {step.name: n for n, step in enumerate(steps) if step.name} | {BEGIN: -1}
        over = [asyncio.Event() for _ in steps]

        async def play(number: int, step: Step) -> None:
            before = names[step.after] if step.after else number - 1
            if before >= 0:
                await over[before].wait()
            await self.step(number, step, deeds)
            over[number].set()

        if not any(step.after for step in steps):
            for n, step in enumerate(steps):
                await self.step(n, step, deeds)
            return
        async with self.driver.world.task_group() as group:
            for n, step in enumerate(steps):
                group.start(play(n, step), f"step {n}")

    async def step(self, number: int, step: Step, deeds: Deeds) -> None:
        if step.at:
            base, plus, offset = str(step.at).partition("+")
            after = offset if plus else "0s"
            if base.strip() in self._marked:
                await self._marked[base.strip()].wait()  # of a step beside this one
                at = self.marks[base.strip()] + seconds_of(after)
            else:
                at = self.marks[BEGIN] + seconds_of(step.at)
            self.say(f"until {step.at}")
            await self.driver.sleep(max(0.0, at - self.now))
        if step.when:
            await self._until(number, step.when, step)
        waits = step.wait or step.until
        if (step.mark and not waits) or (step.mark and (step.do or step.fault)):
            self.mark(step.mark)
        if step.do or step.fault:
            what = ", ".join(f"{k} {_short(v)}" for k, v in (step.do or step.fault).items())
            self.say(what)
            self.recorder.step(self.now, number, what)
            if step.do:
                await deeds.do(step.do)
            else:
                await deeds.fault(step.fault)
        if step.wait:
            self.say(f"wait {step.wait}")
            await self.driver.sleep(seconds_of(step.wait))
        if step.until:
            await self._until(number, step.until, step)
        if step.mark and waits and not (step.do or step.fault):
            self.mark(step.mark)

    async def _until(self, number: int, text: str, step: Step) -> None:
        expression = Expression(text)
        self.say(f"until {text}")
        try:
            await self.driver.run_until(lambda: expression.evaluate(self._conditions, {}), seconds_of(step.within), text)
        except TimeoutError as error:
            if step.on_timeout == "fail":
                raise StepFailed(f"steps[{number}]: {error}") from error
            self.timeouts.append(f"steps[{number}]: not within {step.within}: {text}")
            self.recorder.step(self.now, number, f"timeout: {text}")

    # Work

    async def _generate(self, generate: Generate, number: int, deeds: Deeds) -> None:
        """As arrivals, all at once."""
        own = chance(f"{self.seed} generate {number}")
        for n in range(1, generate.count + 1):
            await deeds.apply(filled(generate.template, generate.draw, own, n))

    async def _arrivals(self, arrivals: Arrivals, number: int, deeds: Deeds) -> None:
        """Of its own stream of chance: equal at every level of every factor."""
        own = chance(f"{self.seed} arrivals {number}")
        began, count = self.now, 0
        gap = seconds_of(arrivals.every) if arrivals.every else 0.0
        rate = rate_of(arrivals.poisson) if arrivals.poisson else 0.0
        due = began
        while True:
            due += own.expovariate(rate) if rate else gap
            if due - began > seconds_of(arrivals.for_) or (arrivals.count and count >= arrivals.count):
                return
            await self.driver.world.sleep(max(0.0, due - self.now))
            count += 1
            await deeds.apply(filled(arrivals.template, arrivals.draw, own, count))

    async def _trace(self, trace: Trace) -> None:
        began, driver = self.now, self.driver
        gauges = driver.gauges()
        resource = driver.client.tree(_POD)
        for pod in arrivals_of(self.experiment, trace, self.seed):
            if not trace.one_by_one:
                await driver.world.sleep(max(0.0, began + pod.arrival - self.now))
            await resource.create(pod.manifest(leaves=not trace.one_by_one), "default")
            if trace.one_by_one:
                key = f"/registry/pods/default/{pod.name}"
                await driver.run_until(partial(self._decided, key), 60, f"a decision on {pod.name}")
                if not (self.state.get(key) or {})["spec"].get("nodeName"):
                    await resource.delete(pod.name, "default")
            for plugin in gauges:
                self.recorder.sample(self.now, "gauges", plugin.gauges() or {})

    def _decided(self, key: str) -> bool:
        """Whether the scheduler has bound a pod, or said that it fits nowhere."""
        pod = self.state.get(key)
        return pod is not None and (bool(pod["spec"].get("nodeName")) or condition(pod, "PodScheduled") == "False")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 60 and "\n" not in text else f"{text.splitlines()[0][:57]}..."
