"""Parts of a file as the structs that clusters are made of: nodes, the scheduler's settings, arrivals, stages of containers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from lab.experiments import kwok, nodefiles, nodegroups, traces
from lab.experiments.model import Experiment, Trace
from lab.experiments.schema import part_of
from lab.experiments.serving import FIELDS, matches, rank
from lab.simulation.cluster import node_specs
from navarch.api import quantity
from navarch.api.types import core_v1
from navarch.world import chance
from nodeagent.hollow.fleet import Behaviour
from nodeagent.hollow.fleet import Config as FleetConfig
from nodeagent.hollow.objects import NodeSpec
from nodeagent.runtime import stages
from nodeagent.runtime.spread import spread
from scheduler.framework.config import SchedulerConfig
from scheduler.framework.plugin import Profile
from scheduler.framework.profiles import load_plugin
from scheduler.options import SETTINGS


def seconds_of(value: Any) -> float:
    """A time that the check of the file has let pass, in seconds."""
    seconds = spread(str(value))
    assert isinstance(seconds, float)
    return seconds


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
        if group.listed:
            addresses = [spec.address for spec in node_specs(len(group.listed), first=len(out) + 1)]
            out += [nodefiles.spec(one, address) for one, address in zip(group.listed, addresses, strict=True)]
            continue
        taints = tuple(core_v1.Taint(key=t.key, value=t.value or None, effect=t.effect) for t in group.taints)
        out += node_specs(
            group.count, group.prefix, len(out) + 1, group.zones, cpu=str(group.cpu), memory=str(group.memory), pods=group.pods,
            labels={k: str(v) for k, v in group.labels.items()}, resources={k: str(v) for k, v in group.resources.items()},
            taints=taints,
        )  # fmt: skip
    for least in nodegroups.groups(experiment.cluster):
        out += [least.node(n, node_specs(1, first=len(out) + n)[0].address) for n in range(1, least.least + 1)]
    return out


def arrivals_of(experiment: Experiment, trace: Trace, seed: int) -> list[traces.TracePod]:
    """The pods of a trace in the order in which they arrive: equal at every level of every factor."""
    window = (seconds_of(trace.window[0]), seconds_of(trace.window[1])) if trace.window else None
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
    config = scheduler_of(experiment)
    profile = config.profiles[0]
    profile.tie_break = config.tie_break
    return profile


def scheduler_of(experiment: Experiment) -> SchedulerConfig:
    part = experiment.cluster
    scheduler = SchedulerConfig.load(part.scheduler.config, [load_plugin(text) for text in part.scheduler.plugins])
    pairs = [f"tie-break={part.scheduler.tie_break}"]
    pairs += [f"{n.removeprefix('scheduler.')}={v}" for n, v in part.set.items() if n.startswith("scheduler.")]
    for name, value in SETTINGS.read_all(pairs).items():
        setattr(scheduler, name.replace("-", "_"), value)
    return scheduler


def behaviour_of(experiment: Experiment, seed: int = 0) -> Behaviour:
    """The stages that the file declares for a container: KWOK's, then "default", then by label, then by image."""
    rules = kwok.read(experiment.stages, "stages", [])
    declared = sorted(experiment.behaviour.items(), key=lambda item: rank(item[0]))

    def behaviour(pod: core_v1.Pod, container: str) -> stages.Stages:
        labels = pod.metadata.labels or {}
        image = next((c.image for c in pod.spec.containers if c.name == container), pod.spec.containers[0].image)
        chosen: dict[str, Any] = kwok.stages_of(rules, msgspec.to_builtins(pod), str(seed)) if rules else {}
        for selector, values in declared:
            if matches(selector, labels, [image or ""]):
                fields = {k.replace("-", "_"): str(v) for k, v in values.items() if k not in FIELDS}
                chosen |= {k: stages.value(k, v) for k, v in fields.items()}
        return stages.Stages(**chosen)

    return behaviour


def fleet_of(experiment: Experiment, seed: int) -> FleetConfig:
    """The simulated nodes' own settings: how their pods behave, and how often statuses are reported."""
    own = FleetConfig(seed=str(seed), behaviour=behaviour_of(experiment, seed))
    period = kwok.status_period(kwok.read(experiment.stages, "stages", []))
    return replace(own, status_period=period) if period else own
