"""Runs one cell of an experiment with one seed on virtual time, and records it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson
import yaml

from controllers.config import Config as ControllersConfig
from lab.experiments import load as loads
from lab.experiments import traces
from lab.experiments.deeds import Deeds
from lab.experiments.expressions import Expression
from lab.experiments.file import CONDITIONS, Arrivals, Experiment, Load, Step, Trace, part_of, rate_of
from lab.experiments.recording import Recorder
from lab.experiments.state import State, condition
from lab.simulation.cluster import POD_RANGE, Record, Simulation, node_specs
from navarch.api import kinds, quantity
from navarch.api.errors import NotFound
from navarch.api.types import core_v1
from navarch.api.wellknown import SERVICE_NAME
from navarch.world import chance
from nodeagent.hollow.fleet import Behaviour
from nodeagent.hollow.fleet import Config as FleetConfig
from nodeagent.hollow.objects import NodeSpec
from nodeagent.runtime import stages
from nodeagent.runtime.spread import Spread, spread
from scheduler.framework.config import SchedulerConfig
from scheduler.framework.plugin import Profile
from scheduler.framework.profiles import load_plugin
from scheduler.options import SETTINGS

_POD = kinds.kind_of(core_v1.Pod)
USAGE_EVERY = 15.0  # seconds, as metrics are scraped
LABEL = "lab.navarch.dev/experiment"


class Outcome(NamedTuple):
    """A run that is over. ``timeouts``: steps whose ``until`` did not come true; ``virtual`` in seconds."""

    recorder: Recorder
    virtual: float
    timeouts: list[str]


class StepFailed(Exception):
    """A step did not end in time, and says on-timeout: fail."""


def nodes_of(experiment: Experiment) -> list[NodeSpec]:
    out: list[NodeSpec] = []
    for group in experiment.cluster.nodes:
        if group.trace:
            for one in traces.nodes(Path(group.trace), group.format):
                address = node_specs(1, first=len(out) + 1)[0].address
                out.append(NodeSpec(
                    one.name, one.cpu, one.memory, max(group.pods, 1000), address, labels=one.labels, resources=one.resources
                ))  # fmt: skip
            continue
        taints = tuple(core_v1.Taint(key=t.key, value=t.value or None, effect=t.effect) for t in group.taints)
        out += node_specs(
            group.count, group.prefix, len(out) + 1, group.zones, cpu=str(group.cpu), memory=str(group.memory), pods=group.pods,
            labels={k: str(v) for k, v in group.labels.items()}, resources={k: str(v) for k, v in group.resources.items()},
            taints=taints,
        )  # fmt: skip
    return out


def arrivals_of(experiment: Experiment, trace: Trace, seed: int) -> list[traces.TracePod]:
    """The pods of a trace in the order in which they arrive: equal at every level of every factor."""
    window = (stages_seconds(trace.window[0]), stages_seconds(trace.window[1])) if trace.window else None
    capacity = {r: sum(_capacity(n, r) for n in nodes_of(experiment)) for r in trace.demand}
    return traces.arrivals(
        traces.pods(Path(trace.file), trace.format), chance(f"{seed} trace"), window=window, sample=part_of(trace.sample),
        shuffled=trace.order == "shuffled", demand={r: part_of(p) * capacity[r] for r, p in trace.demand.items()},
        speed=trace.speed,
    )  # fmt: skip


def _capacity(node: NodeSpec, resource: str) -> float:
    listed = {"cpu": node.cpu, "memory": node.memory, **node.resources}
    return float(quantity.parse(listed[resource])) if resource in listed else 0.0


def profile_of(experiment: Experiment) -> Profile:
    """The scheduler's first profile, with its rule for ties."""
    config = _scheduler_of(experiment)
    profile = config.profiles[0]
    profile.tie_break = config.tie_break
    return profile


def _scheduler_of(experiment: Experiment) -> SchedulerConfig:
    part = experiment.cluster
    scheduler = SchedulerConfig.load(part.scheduler.config, [load_plugin(text) for text in part.scheduler.plugins])
    pairs = [f"tie-break={part.scheduler.tie_break}"]
    pairs += [f"{n.removeprefix('scheduler.')}={v}" for n, v in part.set.items() if n.startswith("scheduler.")]
    for name, value in SETTINGS.read_all(pairs).items():
        if name in ("config", "plugin"):
            raise ValueError(f"cluster.set.scheduler.{name}: say it in cluster.scheduler")
        setattr(scheduler, name.replace("-", "_"), value)
    return scheduler


def simulation_of(experiment: Experiment, seed: int, behaviour: Behaviour | None = None) -> Simulation:
    """The cluster of an experiment. Raises ValueError for a setting that a component does not have."""
    part = experiment.cluster
    controllers = []
    for name, value in part.set.items():
        component, _, flag = name.partition(".")
        if component == "controllers":
            controllers.append(f"{flag}={value}")
        elif component != "scheduler":
            raise ValueError(f"cluster.set.{name}: only controllers.* and scheduler.* can be set in a simulation")
    return Simulation(
        seed,
        nodes=nodes_of(experiment),
        scheduler=_scheduler_of(experiment),
        controllers=ControllersConfig(cluster_cidr=POD_RANGE).with_settings(controllers),
        fleet=FleetConfig(seed=str(seed), behaviour=behaviour),
        heartbeats=part.heartbeats == "full",
        events=part.events,
        history=False,
    )


class Run:
    """One run. ``say`` is told what happens now."""

    def __init__(self, experiment: Experiment, seed: int, say: Callable[[str], None] = lambda text: None) -> None:
        self.experiment, self.seed, self.say = experiment, seed, say
        self.state = State(orjson.loads)
        self.timeouts: list[str] = []
        self.marks: dict[str, float] = {}
        marks = [s.mark for s in experiment.steps if s.mark]
        self.recorder = Recorder({"experiment": experiment.metadata.name, "seed": seed, "marks": marks})
        self.cluster: Simulation
        self._conditions = {name: getattr(self.state, name) for name in CONDITIONS}

    def run(self) -> Outcome:
        """To the end. Raises StepFailed, ValueError."""
        self.cluster = simulation_of(self.experiment, self.seed, self._behaviour)
        self.cluster.on_record = self._record
        self.cluster.run(self._scenario)
        return Outcome(self.recorder, self.now, self.timeouts)

    @property
    def now(self) -> float:
        return self.cluster.world.monotonic()

    def _record(self, record: Record) -> None:
        self.recorder.change(record.time, record.type, record.key, record.revision, record.value)
        self.state.apply(record.type, record.key, record.value)

    def _mark(self, name: str) -> None:
        self.marks[name] = self.now
        self.recorder.mark(self.now, name)

    async def _scenario(self, cluster: Simulation) -> None:
        deeds = Deeds(cluster, self.state, chance(f"{self.seed} deeds"))
        self._mark("begin")
        background: list[asyncio.Task[None]] = []
        async with cluster.world.task_group() as group:
            for n, work in enumerate(self.experiment.workload):
                if work.apply is not None:
                    await deeds.apply(work.apply)
                elif work.arrivals is not None:
                    group.start(self._arrivals(work.arrivals, n, deeds), f"arrivals {n}")
                elif work.trace is not None:
                    background.append(group.start(self._trace(work.trace, deeds), f"trace {n}"))
                elif work.load is not None:
                    group.start(self._load(work.load, n), f"load {n}")
            for n, step in enumerate(self.experiment.steps):
                await self._step(n, step, deeds)
            for one in background:
                await one  # a trace is played to its end
            await cluster.sleep(stages_seconds(self.experiment.for_))
            group.cancel()
        self.recorder.finish(self.now)

    # Steps

    async def _step(self, number: int, step: Step, deeds: Deeds) -> None:
        if step.at:
            base, plus, offset = str(step.at).partition("+")
            start = self.marks.get(base.strip())
            if start is None:
                at = self.marks["begin"] + stages_seconds(step.at)
            else:
                at = start + (stages_seconds(offset) if plus else 0.0)
            await self.cluster.sleep(max(0.0, at - self.now))
        if step.when:
            await self._until(number, step.when, step)
        waits = step.wait or step.until
        if (step.mark and not waits) or (step.mark and (step.do or step.fault)):
            self._mark(step.mark)
        if step.do or step.fault:
            what = ", ".join(f"{k} {_short(v)}" for k, v in (step.do or step.fault).items())
            self.say(what)
            self.recorder.step(self.now, number, what)
            if step.do:
                await deeds.do(step.do)
            else:
                await deeds.fault(step.fault)
        if step.wait:
            await self.cluster.sleep(stages_seconds(step.wait))
        if step.until:
            await self._until(number, step.until, step)
        if step.mark and waits and not (step.do or step.fault):
            self._mark(step.mark)

    async def _until(self, number: int, text: str, step: Step) -> None:
        expression = Expression(text)
        self.say(f"until {text}")
        try:
            await self.cluster.run_until(lambda: expression.evaluate(self._conditions, {}), stages_seconds(step.within), text)
        except TimeoutError as error:
            if step.on_timeout == "fail":
                raise StepFailed(f"steps[{number}]: {error}") from error
            self.timeouts.append(f"steps[{number}]: not within {step.within}: {text}")
            self.recorder.step(self.now, number, f"timeout: {text}")

    # Work

    def _behaviour(self, pod: core_v1.Pod, container: str) -> stages.Stages:
        """The stages that the file declares for a container: "default", then by label, then by image."""
        labels = pod.metadata.labels or {}
        image = next((c.image for c in pod.spec.containers if c.name == container), pod.spec.containers[0].image)
        chosen: dict[str, Any] = {}
        for selector, declared in sorted(self.experiment.behaviour.items(), key=lambda item: _rank(item[0])):
            key, equals, value = selector.partition("=")
            if selector == "default" or (equals and labels.get(key) == value) or selector == f"image:{image}":
                chosen |= {k.replace("-", "_"): stages.value(k.replace("-", "_"), str(v)) for k, v in declared.items()}
        return stages.Stages(**chosen)

    async def _arrivals(self, arrivals: Arrivals, number: int, deeds: Deeds) -> None:
        """Of its own stream of chance: equal at every level of every factor."""
        own = chance(f"{self.seed} arrivals {number}")
        draws = {name: spread(str(text)) if _is_time(text) else text for name, text in arrivals.draw.items()}
        began, count = self.now, 0
        gap = stages_seconds(arrivals.every) if arrivals.every else 0.0
        rate = rate_of(arrivals.poisson) if arrivals.poisson else 0.0
        due = began
        while True:
            due += own.expovariate(rate) if rate else gap
            if due - began > stages_seconds(arrivals.for_) or (arrivals.count and count >= arrivals.count):
                return
            await self.cluster.world.sleep(max(0.0, due - self.now))
            values = {f"draw.{k}": v.draw(own) if isinstance(v, Spread) else v for k, v in draws.items()}
            count += 1
            text = arrivals.template if isinstance(arrivals.template, str) else yaml.safe_dump(arrivals.template)
            await deeds.apply(_filled(text, values | {"n": count}))

    async def _trace(self, trace: Trace, deeds: Deeds) -> None:
        began = self.now
        plugins = [p for profile in self.cluster.scheduler.profiles.values() for p in profile.plugins]
        gauges = [p for p in plugins if p.gauges() is not None]
        resource = self.cluster.client.tree(_POD)
        for pod in arrivals_of(self.experiment, trace, self.seed):
            if not trace.one_by_one:
                await self.cluster.world.sleep(max(0.0, began + pod.arrival - self.now))
            await resource.create(pod.manifest(leaves=not trace.one_by_one), "default")
            if trace.one_by_one:
                key = f"/registry/pods/default/{pod.name}"
                await self.cluster.run_until(partial(self._decided, key), 60, f"a decision on {pod.name}")
                if not (self.state.get(key) or {})["spec"].get("nodeName"):
                    await resource.delete(pod.name, "default")
            for plugin in gauges:
                self.recorder.sample(self.now, "gauges", plugin.gauges() or {})

    def _decided(self, key: str) -> bool:
        """Whether the scheduler has bound a pod, or said that it fits nowhere."""
        pod = self.state.get(key)
        return pod is not None and (bool(pod["spec"].get("nodeName")) or condition(pod, "PodScheduled") == "False")

    async def _load(self, load: Load, number: int) -> None:
        own, shape = chance(f"{self.seed} load {number}"), loads.rate(load.rate)
        cluster, begins = self.cluster, self.cluster.world.now() - self.now
        late: dict[str, float] = {}

        def serving(uid: str, at: float) -> float | None:
            since = cluster.fleet.serving(uid)
            return None if since is None else since - begins + late.get(uid, 0.0)

        model = loads.Model(
            own, stages_seconds(load.timeout), stages_seconds(load.latency), rate_of(load.capacity),
            stages_seconds(load.programming), serving,
        )  # fmt: skip
        endpoints: tuple[str, ...] = ()
        end = self.now + (stages_seconds(load.for_) if load.for_ else math.inf)
        latencies: list[float | None] = []
        due, sample_at, version = self.now, self.now + loads.STEP, -1
        began, cost, usage_at = self.now, stages_seconds(load.cpu) if load.cpu else 0.0, self.now
        uses: dict[str, str] = {}
        while due < end:
            due += own.expovariate(shape.peak)
            if (part := shape.at(due - began) / shape.peak) < 1.0 and own.random() >= part:
                continue  # of more requests than there are, so many are left out that the rate is right
            while sample_at <= due:
                await cluster.world.sleep(max(0.0, sample_at - self.now))
                self.recorder.sample(self.now, f"load/{load.service}", loads.sample(latencies))
                latencies, sample_at = [], sample_at + loads.STEP
            await cluster.world.sleep(max(0.0, due - self.now))
            if version != (version := self.state.versions.get("endpointslices", 0)):
                now = self._endpoints(load.service, late)
                if now != endpoints:
                    endpoints = now
                    model.endpoints(self.now, now)
            latencies.append(model.request(self.now))
            if cost and self.now - usage_at >= USAGE_EVERY:
                await self._usage(model, cost / (self.now - usage_at), uses)
                usage_at = self.now

    async def _usage(self, model: loads.Model, cost: float, uses: dict[str, str]) -> None:
        """Tells metrics what pods used since the last time: ``cost`` is cores for each request that was served."""
        for key, pod in [(p["metadata"]["uid"], p["metadata"]) for p in self.state.all("pods")]:
            cpu = f"{round(1000 * cost * model.served.get(key, 0))}m"
            if uses.get(key, "0m") != cpu:
                uses[key] = cpu
                note = {"metadata": {"annotations": {"hollow.navarch.dev/cpu": cpu}}}
                with contextlib.suppress(NotFound):  # it went meanwhile
                    await self.cluster.client.tree(_POD).patch(pod["name"], pod["namespace"], note, "strategic")
        model.served.clear()

    def _endpoints(self, service: str, late: dict[str, float]) -> tuple[str, ...]:
        """The uids of the pods that the service's slices call ready; ``late``: how long each serves nothing."""
        uids = []
        for tree in self.state.all("endpointslices"):
            if (tree["metadata"].get("labels") or {}).get(SERVICE_NAME) != service:
                continue
            for one in tree.get("endpoints") or ():
                if (one.get("conditions") or {}).get("ready") is not False and (target := one.get("targetRef")):
                    uid = target["uid"]
                    uids.append(uid)
                    if uid not in late:
                        pod = self.state.get(f"/registry/pods/{target['namespace']}/{target['name']}") or {}
                        notes = pod.get("metadata", {}).get("annotations") or {}
                        late[uid] = float(notes.get(loads.SERVES_AFTER, 0))
        return tuple(sorted(uids))


def stages_seconds(value: Any) -> float:
    seconds = spread(str(value))
    assert isinstance(seconds, float)
    return seconds


def _is_time(text: Any) -> bool:
    try:
        spread(str(text))
        return True
    except ValueError:
        return False


def _rank(selector: str) -> int:
    return 0 if selector == "default" else 2 if selector.startswith("image:") else 1


_DRAWN = re.compile(r"\$\{(draw\.[\w-]+|n)\}")


def _filled(text: str, values: Mapping[str, Any]) -> str:
    def one(match: re.Match[str]) -> str:
        value = values[match[1]]
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    return _DRAWN.sub(one, text)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 60 and "\n" not in text else f"{text.splitlines()[0][:57]}..."
