"""Load on services of simulated pods: the queues of lab/experiments/queues.py, fed with a fleet's pods and the endpoints that
the cluster has."""

from __future__ import annotations

import heapq
import math

from lab.experiments import load as loads
from lab.experiments.drivers.driver import Driver
from lab.experiments.file import Load
from lab.experiments.inputs import seconds_of
from lab.experiments.queues import Proxies, Queues
from lab.experiments.recording import Recorder
from lab.experiments.serving import Servings
from lab.experiments.state import State, condition
from navarch.api.wellknown import SERVICE_NAME
from navarch.world import chance
from nodeagent.hollow.fleet import HollowFleet
from nodeagent.runtime.spread import spread


class Queueing:
    """The requests of one load. ``begins``: when the recording began, Unix time."""

    def __init__(
        self, driver: Driver, fleet: HollowFleet, state: State, recorder: Recorder, load: Load, seed: str, begins: float,
        servings: Servings,
    ) -> None:  # fmt: skip
        self.driver, self.fleet, self.state, self.recorder, self.load = driver, fleet, state, recorder, load
        self.chance, self.begins, self.servings = chance(seed), begins, servings
        self.late: dict[str, float] = {}  # by uid: for how long a pod that runs serves nothing
        self.homes: dict[str, str] = {}  # by uid: the node of an endpoint
        self.rates: dict[str, float] = {}  # by uid: capacity
        self.shape = loads.rate(load.rate)
        self.began = self.due = driver.now
        self.proxies = Proxies(spread(str(load.programming)), lambda what: chance(f"{seed} {what}"), fleet.is_connected)
        self.queues = Queues(
            self.chance, self.proxies, seconds_of(load.timeout), seconds_of(load.latency), self._capacity, self._serving,
            self._reached, lambda uid: not self._reached(self.homes.get(uid, "")),
        )  # fmt: skip
        self._entries: list[str] = []
        self._versions = (-1, -1)
        self._current: tuple[str, ...] = ()
        self._tries: list[tuple[float, int, float, int, int | None]] = []  # due, order, first sent, number, client
        self._answers: list[float | None] = []
        self._retries = self._number = 0

    def change(self, rate: str) -> None:
        """From now on: another rate, or a shape that begins now."""
        self.shape, self.began = loads.rate(rate), self.driver.now
        self.due = self.driver.now + self.chance.expovariate(self.shape.peak)

    async def run(self) -> None:
        """Until the load is over, or cancelled."""
        driver, load = self.driver, self.load
        end = driver.now + (seconds_of(load.for_) if load.for_ else math.inf)
        sample_at = driver.now + loads.STEP
        self.due = driver.now + self.chance.expovariate(self.shape.peak)
        while self.due < end or self._tries:
            next_try = self._tries[0][0] if self._tries else math.inf
            due = min(next_try, self.due if self.due < end else math.inf)
            if sample_at <= due:
                await driver.world.sleep(max(0.0, sample_at - driver.now))
                self._sample()
                sample_at += loads.STEP
                continue
            await driver.world.sleep(max(0.0, due - driver.now))
            if min(next_try, self.due) > driver.now:
                continue  # the rate was changed meanwhile
            if next_try <= self.due:
                _, _, first, number, client = heapq.heappop(self._tries)
                self._retries += 1
                self._try(first, number, client)
                continue
            now, shape = self.due, self.shape
            self.due += self.chance.expovariate(shape.peak)
            if (part := shape.at(now - self.began) / shape.peak) < 1.0 and self.chance.random() >= part:
                continue  # of more requests than there are, so many are left out that the rate is right
            self._try(now, 0, self.chance.randrange(load.clients) if load.connections == "kept" else None)
        self._sample()

    def _try(self, first: float, number: int, client: int | None) -> None:
        """The number-th try of a request that was ``first`` sent at that time."""
        self._look()
        at = self.driver.now
        node = self._entry(client)
        answer = self.queues.request(at, node, client)
        if answer.good:
            self._answers.append(at - first + answer.seconds)
        elif number < self.load.retries:
            self._number += 1
            again = at + answer.seconds + seconds_of(self.load.backoff)
            heapq.heappush(self._tries, (again, self._number, first, number + 1, client))
        else:
            self._answers.append(None)

    def _entry(self, client: int | None) -> str:
        """The node through whose proxy a try goes; a client that keeps its connection keeps to one."""
        if self.load.from_ != "outside":
            return self.load.from_.removeprefix("node/")
        if not self._entries:
            return ""
        return self._entries[self.chance.randrange(len(self._entries)) if client is None else client % len(self._entries)]

    def _sample(self) -> None:
        self.recorder.sample(self.driver.now, f"load/{self.load.service}", loads.sample(self._answers, self._retries))
        self._answers, self._retries = [], 0

    # The cluster

    def _capacity(self, uid: str) -> float:
        return self.rates.get(uid, 1.0)

    def _reached(self, node: str) -> bool:
        return self.fleet.is_connected(node)

    def _serving(self, uid: str) -> float | None:
        since = self.fleet.serving(uid)
        return None if since is None else since - self.begins + self.late.get(uid, 0.0)

    def _look(self) -> None:
        """Takes in what the API server says of endpoints and nodes, if it says something new."""
        versions = self.state.versions.get("endpointslices", 0), self.state.versions.get("nodes", 0)
        if versions == self._versions:
            return
        self._versions = versions
        self._entries = [n["metadata"]["name"] for n in self.state.all("nodes") if condition(n, "Ready") == "True"]
        uids = tuple(sorted(self._endpoints()))
        if uids != self._current or not self._current:
            self._current = uids
            self.proxies.change(self.driver.now, uids)

    def _endpoints(self) -> list[str]:
        """The uids of the pods that the service's slices call ready; notes where each is, and how it serves."""
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
                        self.homes[uid] = one.get("nodeName") or ""
                        self.rates[uid] = self.servings.capacity(pod) or loads.per_second(self.load.capacity)
        return uids
