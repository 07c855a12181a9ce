"""The driver of mode ``simulated``: a whole cluster in this process on virtual time (lab/simulation)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from controllers.config import Config as ControllersConfig
from lab.experiments import nodegroups
from lab.experiments.drivers.driver import Plugin
from lab.experiments.drivers.modelled import ModelledLoads, tells_metrics
from lab.experiments.drivers.stage import Outcome
from lab.experiments.inputs import fleet_of, nodes_of, scheduler_of
from lab.experiments.run import Run
from lab.nodeautoscaler.autoscaler import NodeAutoscaler
from lab.simulation.cluster import POD_RANGE, Record, Simulation, node_specs
from navarch.virtual import outside
from navarch.world import World
from nodeagent.runtime.spread import seconds

if TYPE_CHECKING:
    from lab.experiments.file import Experiment, Load

COMMAND_TIMEOUT = 600.0  # seconds
LINKS = {"controllers": "controller-manager"}  # the names of links that are not their component's


def simulation_of(experiment: Experiment, seed: int) -> Simulation:
    """The cluster of an experiment, whose file was checked. Raises ValueError for a setting that a component does not have."""
    part = experiment.cluster
    controllers = []
    for name, value in part.set.items():
        component, _, flag = name.partition(".")
        if component == "controllers":
            controllers.append(f"{flag}={value}")
    return Simulation(
        seed,
        nodes=nodes_of(experiment),
        scheduler=scheduler_of(experiment),
        controllers=ControllersConfig(cluster_cidr=POD_RANGE).with_settings(controllers),
        fleet=fleet_of(experiment, seed),
        heartbeats=part.heartbeats == "full",
        events=part.events,
        history=False,
        custom_metrics=tells_metrics(experiment),
    )


class Virtual:
    """A simulation as a driver (see the protocol). Its faults are instants: all of them are plain calls."""

    def __init__(self, cluster: Simulation, run: Run | None = None) -> None:
        """``run`` is needed for load only."""
        self.cluster, self.run = cluster, run
        self.world: World = cluster.world
        self.client = cluster.client
        self.apply, self.sleep = cluster.apply, cluster.sleep
        self.loads = ModelledLoads(self, cluster.fleet, run) if run is not None else None
        if self.loads is not None:
            self.loads.begin()

    @property
    def now(self) -> float:
        return self.world.monotonic()

    async def run_until(self, condition: Callable[[], Any], timeout: float, what: str = "") -> Any:
        return await self.cluster.run_until(condition, timeout, what)

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        self.cluster.background(work)

    def load(self, load: Load, number: int) -> Coroutine[Any, Any, None]:
        assert self.loads is not None
        return self.loads.load(load, number)

    async def change_load(self, service: str, rate: str) -> None:
        assert self.loads is not None
        self.loads.change(service, rate)

    async def command(self, argv: Sequence[str], folder: str) -> None:
        """No virtual time goes by meanwhile; the program sees it as NAVARCH_SECONDS. There is no server that it could ask."""
        assert self.run is not None
        more = {"NAVARCH_SECONDS": f"{self.now:.6f}", "NAVARCH_SEED": str(self.run.seed)}
        with outside():
            done = subprocess.run(
                argv, cwd=folder, env=os.environ | more, capture_output=True, text=True, timeout=COMMAND_TIMEOUT
            )
        if done.returncode:
            raise ValueError(f"{' '.join(argv)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")

    def requests(self) -> Mapping[str, Mapping[str, float]]:
        links = self.cluster.links
        components = {"scheduler": "scheduler", "nodes": "nodes", **LINKS}
        return {name: {"reads": links[link].reads, "writes": links[link].writes} for name, link in components.items()}

    def gauges(self) -> Sequence[Plugin]:
        plugins = [p for profile in self.cluster.scheduler.profiles.values() for p in profile.plugins]
        return [p for p in plugins if p.gauges() is not None]

    # Faults

    async def power_off(self, node: str) -> None:
        self.cluster.power_off(node)

    async def power_on(self, node: str) -> None:
        self.cluster.power_on(node)

    async def partition(self, node: str) -> None:
        self.cluster.partition(node)

    async def heal(self, node: str) -> None:
        self.cluster.heal(node)

    async def crash(self, component: str) -> None:
        self.cluster.crash(component)

    async def start(self, component: str) -> None:
        self.cluster.start(component)

    async def cut(self, component: str) -> None:
        self.cluster.links[LINKS.get(component, component)].cut()

    async def mend(self, component: str) -> None:
        self.cluster.links[LINKS.get(component, component)].mend()

    async def slow(self, component: str, by: float) -> None:
        """``by`` in seconds, for each request; what is cut stays cut."""
        self.cluster.links[LINKS.get(component, component)].latency += by

    async def delay_store(self, time: str) -> None:
        self.cluster.store.delay = seconds(time)

    async def fail_store(self, what: str) -> None:
        """``all``, or ``writes`` alone."""
        self.cluster.store.fails = what

    async def restore_store(self, _: str = "") -> None:
        self.cluster.store.delay, self.cluster.store.fails = 0.0, ""

    async def kill(self, container: str) -> None:
        """``namespace/pod/container``."""
        namespace, pod, name = container.split("/")
        self.cluster.fleet.kill_container(namespace, pod, name)


def autoscaler_of(run: Run, cluster: Simulation) -> NodeAutoscaler:
    """The simulated node autoscaler of the file, which samples the sizes of its groups into the recording."""
    part = run.experiment.cluster

    def sample(name: str, values: Mapping[str, float]) -> None:
        run.recorder.sample(cluster.world.monotonic(), f"nodegroups/{name}", values)

    return NodeAutoscaler(
        cluster, nodegroups.groups(part), nodegroups.options(part), {p.name: p for p in scheduler_of(run.experiment).profiles},
        seed=str(run.seed), first=len(cluster.nodes) + 1, address=lambda n: node_specs(1, first=n)[0].address, on_size=sample,
    )  # fmt: skip


class VirtualStage:
    """A new simulation for each run."""

    def __enter__(self) -> VirtualStage:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, experiment: Experiment, seed: int) -> Outcome:
        run = Run(experiment, seed)
        play(run, simulation_of(experiment, seed))
        return run.outcome()


def play(run: Run, cluster: Simulation) -> None:
    """Plays a run on a simulation that has not been started. Raises StepFailed, ValueError."""

    def record(record: Record) -> None:
        run.changed(record.time, record.type, record.key, record.revision, record.value)

    async def scenario(cluster: Simulation) -> None:
        if run.experiment.cluster.autoscaler is not None:
            cluster.background(autoscaler_of(run, cluster).run())
        await run.scenario(Virtual(cluster, run))

    cluster.on_record = record
    cluster.run(scenario)
