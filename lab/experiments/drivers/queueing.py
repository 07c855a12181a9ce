"""Load on services of simulated pods: the queueing model of lab/experiments/load.py, fed with a fleet's pods and the endpoints
that the cluster has."""

from __future__ import annotations

import contextlib
import math

from lab.experiments import load as loads
from lab.experiments.drivers.driver import Driver
from lab.experiments.file import Load, rate_of
from lab.experiments.inputs import seconds_of
from lab.experiments.recording import Recorder
from lab.experiments.state import State
from navarch.api import kinds
from navarch.api.errors import NotFound
from navarch.api.types import core_v1
from navarch.api.wellknown import SERVICE_NAME
from navarch.world import chance
from nodeagent.hollow.fleet import HollowFleet

_POD = kinds.kind_of(core_v1.Pod)
USAGE_EVERY = 15.0  # seconds, as metrics are scraped


class Queueing:
    """The requests of one load. ``begins``: when the recording began, Unix time."""

    def __init__(
        self, driver: Driver, fleet: HollowFleet, state: State, recorder: Recorder, load: Load, seed: str, begins: float
    ) -> None:
        self.driver, self.fleet, self.state, self.recorder, self.load = driver, fleet, state, recorder, load
        self.chance, self.begins = chance(seed), begins
        self.late: dict[str, float] = {}  # by uid: for how long a pod that runs serves nothing
        self.uses: dict[str, str] = {}  # by uid: the cpu that metrics were told last
        self.model = loads.Model(
            self.chance, seconds_of(load.timeout), seconds_of(load.latency), rate_of(load.capacity),
            seconds_of(load.programming), self._serving,
        )  # fmt: skip

    def _serving(self, uid: str, at: float) -> float | None:
        since = self.fleet.serving(uid)
        return None if since is None else since - self.begins + self.late.get(uid, 0.0)

    async def run(self) -> None:
        """Until the load is over, or cancelled."""
        load, driver, own, shape = self.load, self.driver, self.chance, loads.rate(self.load.rate)
        endpoints: tuple[str, ...] = ()
        end = driver.now + (seconds_of(load.for_) if load.for_ else math.inf)
        latencies: list[float | None] = []
        due, sample_at, version = driver.now, driver.now + loads.STEP, -1
        began, cost, usage_at = driver.now, seconds_of(load.cpu) if load.cpu else 0.0, driver.now
        while due < end:
            due += own.expovariate(shape.peak)
            if (part := shape.at(due - began) / shape.peak) < 1.0 and own.random() >= part:
                continue  # of more requests than there are, so many are left out that the rate is right
            while sample_at <= due:
                await driver.world.sleep(max(0.0, sample_at - driver.now))
                self.recorder.sample(driver.now, f"load/{load.service}", loads.sample(latencies))
                latencies, sample_at = [], sample_at + loads.STEP
            await driver.world.sleep(max(0.0, due - driver.now))
            if version != (version := self.state.versions.get("endpointslices", 0)):
                now = self._endpoints()
                if now != endpoints:
                    endpoints = now
                    self.model.endpoints(driver.now, now)
            latencies.append(self.model.request(driver.now))
            if cost and driver.now - usage_at >= USAGE_EVERY:
                await self._usage(cost / (driver.now - usage_at))
                usage_at = driver.now

    async def _usage(self, cost: float) -> None:
        """Tells metrics what pods used since the last time: ``cost`` is cores for each request that was served."""
        for key, pod in [(p["metadata"]["uid"], p["metadata"]) for p in self.state.all("pods")]:
            cpu = f"{round(1000 * cost * self.model.served.get(key, 0))}m"
            if self.uses.get(key, "0m") != cpu:
                self.uses[key] = cpu
                note = {"metadata": {"annotations": {"hollow.navarch.dev/cpu": cpu}}}
                with contextlib.suppress(NotFound):  # it went meanwhile
                    await self.driver.client.tree(_POD).patch(pod["name"], pod["namespace"], note, "strategic")
        self.model.served.clear()

    def _endpoints(self) -> tuple[str, ...]:
        """The uids of the pods that the service's slices call ready; notes how long each serves nothing."""
        uids = []
        for tree in self.state.all("endpointslices"):
            if (tree["metadata"].get("labels") or {}).get(SERVICE_NAME) != self.load.service:
                continue
            for one in tree.get("endpoints") or ():
                if (one.get("conditions") or {}).get("ready") is not False and (target := one.get("targetRef")):
                    uid = target["uid"]
                    uids.append(uid)
                    if uid not in self.late:
                        pod = self.state.get(f"/registry/pods/{target['namespace']}/{target['name']}") or {}
                        notes = pod.get("metadata", {}).get("annotations") or {}
                        self.late[uid] = float(notes.get(loads.SERVES_AFTER, 0))
        return tuple(sorted(uids))
