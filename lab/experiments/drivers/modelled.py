"""Loads on simulated pods, for the drivers that have a fleet: the queues of each load, and what pods use because of them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from lab.experiments.drivers.driver import Driver
from lab.experiments.drivers.queueing import Queueing
from lab.experiments.drivers.usage import tell
from lab.experiments.model import Experiment, Load
from lab.experiments.run import Run
from lab.experiments.serving import Servings
from nodeagent.hollow.fleet import HollowFleet


class ModelledLoads:
    """The loads of one run. ``begin`` once the cluster is up."""

    def __init__(self, driver: Driver, fleet: HollowFleet, run: Run) -> None:
        self.driver, self.fleet, self.run = driver, fleet, run
        self.queueings: dict[str, Queueing] = {}
        self._servings = Servings(run.experiment.behaviour)
        self._tells = False

    def begin(self, by_load: bool = False) -> None:
        """Has the use of pods told to metrics, if it follows their load."""
        if not self._tells and (by_load or self._servings.uses):
            self._tells = True
            state = self.run.state
            self.driver.background(tell(self.driver, state, self._servings, lambda: list(self.queueings.values())))

    def load(self, load: Load, number: int) -> Coroutine[Any, Any, None]:
        driver, run = self.driver, self.run
        begins, seed = driver.world.now() - driver.now, f"{run.seed} load {number}"
        queueing = Queueing(driver, self.fleet, run.state, run.recorder, load, seed, begins, self._servings)
        self.queueings[load.service] = queueing
        self.begin(bool(load.cpu or load.metric))
        return queueing.run()

    def change(self, service: str, rate: str) -> None:
        """Raises ValueError if there is no load on the service."""
        if service not in self.queueings:
            raise ValueError(no_load(service, list(self.queueings)))
        self.queueings[service].change(rate)


def tells_metrics(experiment: Experiment) -> bool:
    """Whether autoscalers shall see a load by a custom metric, which somebody has to serve."""
    return any(work.load is not None and work.load.metric for work in experiment.workload)


def no_load(service: str, services: list[str]) -> str:
    return f"load: there is none on a service {service!r}; there is on: {', '.join(services) or 'none'}"
