"""Acts that fit every workload, and strategies that draw them."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from navarch.api.errors import StatusError
from navarch.api.types import core_v1
from tests.model.cluster import ModelCluster


class Wait(NamedTuple):
    seconds: float

    async def play(self, cluster: ModelCluster) -> None:
        await cluster.sleep(self.seconds)


class Crash(NamedTuple):
    """The controllers end at their ``after``-th write, which ``arrives`` or not, and are away for ``down`` seconds."""

    after: int
    arrives: bool
    down: float

    async def play(self, cluster: ModelCluster) -> None:
        cluster.crash_at(self.after, self.arrives, self.down)


class Lose(NamedTuple):
    """The connection breaks at the controllers' ``after``-th write, which ``arrives`` or not."""

    after: int
    arrives: bool

    async def play(self, cluster: ModelCluster) -> None:
        assert cluster.fate is not None
        cluster.fate.lose(self.after, self.arrives)


class Lag(NamedTuple):
    """The controllers hear nothing new of a resource for so long."""

    resource: str
    seconds: float

    async def play(self, cluster: ModelCluster) -> None:
        cluster.lag(self.resource, self.seconds)


class Touch(NamedTuple):
    """Somebody else writes all objects of a kind, so that the controllers' next write of them is a conflict."""

    kind: type
    n: int

    async def play(self, cluster: ModelCluster) -> None:
        for one in cluster.objects(self.kind, "default"):
            await cluster.edit(self.kind, one.metadata.name, {"metadata": {"annotations": {"touched": str(self.n)}}})


class DeletePod(NamedTuple):
    n: int
    grace: int

    async def play(self, cluster: ModelCluster) -> None:
        if pod := cluster.picked(self.n):
            try:
                await cluster.client[core_v1.Pod].delete(pod.metadata.name, "default", grace_period_seconds=self.grace)
            except StatusError as error:
                if error.code not in (404, 409):
                    raise


class KillContainer(NamedTuple):
    n: int
    exit_code: int

    async def play(self, cluster: ModelCluster) -> None:
        if pod := cluster.picked(self.n):
            try:
                cluster.fleet.kill_container(
                    "default", pod.metadata.name or "", pod.spec.containers[0].name, self.exit_code
                )
            except KeyError:
                pass  # it does not run


class Orphan(NamedTuple):
    """Takes a pod away from its owner by its label, or (``back``) gives it back."""

    n: int

    async def play(self, cluster: ModelCluster) -> None:
        if pod := cluster.picked(self.n):
            await cluster.edit(core_v1.Pod, pod.metadata.name or "", {"metadata": {"labels": {"app": "other"}}})


class PowerOff(NamedTuple):
    node: int

    async def play(self, cluster: ModelCluster) -> None:
        cluster.power_off(cluster.nodes[self.node % len(cluster.nodes)].name)


class Partition(NamedTuple):
    node: int

    async def play(self, cluster: ModelCluster) -> None:
        cluster.partition(cluster.nodes[self.node % len(cluster.nodes)].name)


class Restore(NamedTuple):
    """A node that was off or cut off is back."""

    node: int

    async def play(self, cluster: ModelCluster) -> None:
        name = cluster.nodes[self.node % len(cluster.nodes)].name
        cluster.heal(name)
        cluster.power_on(name)


small = st.integers(0, 5)
waits = st.builds(Wait, st.sampled_from([0.02, 0.2, 1.0, 4.0, 15.0, 60.0]))
crashes = st.builds(Crash, st.integers(1, 6), st.booleans(), st.sampled_from([0.1, 2.0, 20.0]))
losses = st.builds(Lose, st.integers(1, 6), st.booleans())
pod_failures = st.one_of(
    st.builds(DeletePod, small, st.sampled_from([0, 1, 30])),
    st.builds(KillContainer, small, st.sampled_from([0, 1, 137])),
)
node_failures = st.one_of(
    st.builds(PowerOff, st.integers(0, 2)),
    st.builds(Partition, st.integers(0, 2)),
    st.builds(Restore, st.integers(0, 2)),
)


def lags(*resources: str) -> st.SearchStrategy[Lag]:
    return st.builds(Lag, st.sampled_from(resources), st.sampled_from([0.5, 5.0, 30.0]))
