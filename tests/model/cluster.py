"""A cluster whose controllers meet with everything that can go wrong, and a judge who looks at every change of every object.

A test draws a list of acts (edits, failures, crashes, stale caches), a model of the workload says after each change which
rule was broken, and at the end all faults are mended and the workload has to arrive where its spec says, and stay there.
Hypothesis shortens the list of a failure; such lists are kept as examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

from lab.simulation.cluster import Record, Simulation
from navarch.api.errors import StatusError
from navarch.api.types import core_v1
from navarch.client.client import Client
from tests.model.fate import Fate

NODES = 3
QUIET = ("leases", "events", "nodes")  # resources whose changes are no sign of unrest
REST = 90.0  # seconds in which nothing may change once all has arrived
STALE = 2.0  # seconds by which a controller may be behind without any fault: back-offs of its retries


class Act(Protocol):
    async def play(self, cluster: ModelCluster) -> None: ...


class Judge(Protocol):
    """The rules of one workload."""

    manifest: str

    def look(self, cluster: ModelCluster, record: Record, tree: Mapping[str, Any] | None) -> None:
        """Takes one change in; ``tree`` is the object, None if it is gone. Tells ``cluster.broken`` what broke a rule."""

    def missing(self, cluster: ModelCluster) -> str:
        """What it still waits for; "" once the workload is what its spec says."""


class ModelCluster(Simulation):
    """``broken`` collects the rules that were broken. ``stale`` is how far back the controllers may look right now."""

    def __init__(self, judge: Judge, nodes: int = NODES, seed: int = 0) -> None:
        super().__init__(seed, nodes=nodes, events=False, history=False)
        self.judge, self.broken = judge, list[str]()
        self.on_record = self._judge
        self.fate: Fate | None = None
        self._stale_until = 0.0
        self._stale_from = 0.0
        self.changed = 0.0  # when anything but the QUIET last changed
        self.crashed = False  # controllers that crashed have forgotten what they remember only

    def _connect(self, name: str, user: str, groups: tuple[str, ...], agent: str) -> Client:
        client = super()._connect(name, user, groups, agent)
        if name == "controller-manager":
            link = self.links[name]
            if self.fate is None:
                self.fate = Fate(link.inner, self.world)
            self.fate.inner = link.inner
            link.inner = self.fate
        return client

    def _judge(self, record: Record) -> None:
        resource = record.key.split("/")[2]
        if resource not in QUIET:
            self.changed = record.time
        tree = None if record.type == "DELETED" else orjson.loads(record.value)
        self.judge.look(self, record, tree)

    def say(self, record: Record, what: str) -> None:
        self.broken.append(f"{record.time:.3f} {record.type} {record.key}: {what}")

    # What the acts do

    @property
    def since(self) -> float:
        """Specs that were in force at this time or later may still be what a controller acts on."""
        now = self.world.monotonic()
        return min(self._stale_from, now - STALE) if now < self._stale_until + STALE else now - STALE

    def lag(self, resource: str, seconds: float) -> None:
        assert self.fate is not None
        self.fate.lag(resource, seconds)
        self._behind(seconds)

    def _behind(self, seconds: float) -> None:
        """For so long controllers may act on what holds now."""
        now = self.world.monotonic()
        if now >= self._stale_until + STALE:
            self._stale_from = now - STALE
        self._stale_until = max(self._stale_until, now + seconds)

    def crash_at(self, after: int, arrives: bool, down: float) -> None:
        """Ends the controllers at their ``after``-th write from now on, and starts them ``down`` seconds later."""
        assert self.fate is not None
        self.fate.crash(after, arrives, lambda: self._crash(down))

    def _crash(self, down: float) -> None:
        self.crashed = True
        self._behind(down)  # one controller's decision before it, the next one's deed after it
        self.crash("controllers")
        self.background(self._start_again(down))

    async def _start_again(self, down: float) -> None:
        await self.world.sleep(down)
        task = self._tasks["controllers"]
        while not task.done():
            await self.world.sleep(0.01)
        if self._tasks["controllers"] is task:
            self.start("controllers")

    def pods_of(self, app: str = "web") -> list[core_v1.Pod]:
        return [p for p in self.objects(core_v1.Pod, "default") if (p.metadata.labels or {}).get("app") == app]

    def picked(self, n: int) -> core_v1.Pod | None:
        """The n-th pod, counted round."""
        every = self.pods_of()
        return every[n % len(every)] if every else None

    async def edit(self, resource: Any, name: str, patch: Mapping[str, Any], how: str = "merge") -> None:
        """Changes an object; a refusal (it is gone, the edit is invalid) is no fault of anybody."""
        try:
            await self.client[resource].patch(name, "default", patch, how)
        except StatusError as error:
            if error.code not in (404, 409, 422):
                raise


def play(judge: Judge, acts: Sequence[Act], *, seed: int = 0, timeout: float = 1800.0) -> None:
    """Plays the acts, mends everything, and asserts that no rule was broken, that all arrives, and that it rests then."""
    cluster = ModelCluster(judge, seed=seed)

    async def scenario(_: Simulation) -> None:
        await cluster.apply(judge.manifest)
        for act in acts:
            await act.play(cluster)
            if cluster.broken:
                return
        await _mend(cluster)
        await cluster.run_until(lambda: cluster.broken or not judge.missing(cluster), timeout, "convergence")
        await cluster.run_until(lambda: cluster.world.monotonic() - cluster.changed > REST, timeout, "rest")
        assert not judge.missing(cluster), judge.missing(cluster)

    try:
        cluster.run(scenario)
    except TimeoutError as error:
        raise AssertionError(f"{judge.missing(cluster) or 'never at rest'}: {error}") from error
    assert not cluster.broken, "\n".join(cluster.broken)


async def _mend(cluster: ModelCluster) -> None:
    assert cluster.fate is not None
    cluster.fate.calm()
    for node in cluster.nodes:
        cluster.heal(node.name)
        cluster.power_on(node.name)
    await cluster.sleep(1)
    await cluster.run_until(lambda: not cluster._tasks["controllers"].done(), 60, "controllers are back")


def is_active(tree: Mapping[str, Any]) -> bool:
    """Whether a pod, as stored, counts: neither ended nor going away."""
    return "deletionTimestamp" not in tree["metadata"] and tree.get("status", {}).get("phase") not in (
        "Succeeded",
        "Failed",
    )


def is_ready(tree: Mapping[str, Any]) -> bool:
    return is_active(tree) and any(
        c["type"] == "Ready" and c["status"] == "True" for c in tree.get("status", {}).get("conditions", ())
    )


def owner_of(tree: Mapping[str, Any]) -> str:
    """The uid of the controller of an object, or ""."""
    return next((o["uid"] for o in tree["metadata"].get("ownerReferences", ()) if o.get("controller")), "")
