"""Gang scheduling: all of a group or none, and no two groups that block each other."""

from __future__ import annotations

import logging

import pytest

from lab.simulation import Simulation
from navarch.api.types import core_v1
from nodeagent.hollow.fleet import NodeSpec
from scheduler.framework.config import SchedulerConfig

logging.getLogger("scheduler").setLevel(logging.ERROR)

CONFIG = """
profiles:
- plugins: {multiPoint: {enabled: [{name: Coscheduling}]}}
  pluginConfig: [{name: Coscheduling, args: {permitWaitingTimeSeconds: 20}}]
"""
POD = """
{{apiVersion: v1, kind: Pod, metadata: {{name: {group}-{n}, labels: {{scheduling.x-k8s.io/pod-group: {group}}},
  annotations: {{{notes}}}}}, spec: {{containers: [{{name: c, image: i, resources: {{requests: {{cpu: 900m}}}}}}]}}}}
"""
NODES = [NodeSpec(f"n{i}", address=f"10.0.0.{i + 1}", cpu="2") for i in range(2)]  # room for four such pods


def member(group: str, n: int, least: int | None) -> str:
    notes = f'scheduling.x-k8s.io/min-member: "{least}"' if least else ""
    return POD.format(group=group, n=n, notes=notes)


def bound(cluster: Simulation) -> list[str]:
    return [p.metadata.name for p in cluster.objects(core_v1.Pod, "default") if p.spec.node_name]


def message(cluster: Simulation, name: str) -> str:
    pod = next(p for p in cluster.objects(core_v1.Pod, "default") if p.metadata.name == name)
    return next((c.message or "" for c in pod.status.conditions or () if c.type == "PodScheduled"), "")


def play(scenario, seed: int = 1) -> None:
    Simulation(seed, nodes=NODES, scheduler=SchedulerConfig.load(CONFIG)).run(scenario)


def test_a_group_waits_for_its_members_and_goes_at_once():
    async def scenario(cluster: Simulation) -> None:
        for n in range(2):
            await cluster.apply(member("g", n, 3))
        await cluster.run_until(lambda: "has 1 of the 3" in message(cluster, "g-0"), 10)
        assert bound(cluster) == []
        await cluster.apply(member("g", 2, 3))
        await cluster.run_until(lambda: len(bound(cluster)) == 3, 30)
        await cluster.apply(member("g", 3, 3))  # one more than needed goes by itself
        await cluster.run_until(lambda: len(bound(cluster)) == 4, 30)

    play(scenario)


def test_a_group_that_does_not_fit_takes_no_room_from_others():
    async def scenario(cluster: Simulation) -> None:
        for n in range(5):
            await cluster.apply(member("big", n, 5))
        await cluster.sleep(5)
        await cluster.apply(member("one", 0, 1))
        await cluster.run_until(lambda: bound(cluster) == ["one-0"], 60)
        texts = {message(cluster, f"big-{n}") for n in range(5)}
        assert any("Insufficient cpu" in t for t in texts)
        await cluster.sleep(120)
        assert bound(cluster) == ["one-0"]

    play(scenario)


@pytest.mark.parametrize("seed", range(4))
def test_two_groups_of_which_each_holds_half_do_not_block_each_other(seed):
    """Members come in turns; three of each are needed, and there is room for four pods."""

    async def scenario(cluster: Simulation) -> None:
        for n in range(3):
            for group in ("a", "b"):
                await cluster.apply(member(group, n, 3))
        await cluster.run_until(lambda: len(bound(cluster)) >= 3, 120)
        await cluster.sleep(60)
        first = bound(cluster)
        assert first in (["a-0", "a-1", "a-2"], ["b-0", "b-1", "b-2"])
        for name in first:
            await cluster.client[core_v1.Pod].delete(name, "default", grace_period_seconds=0)
        await cluster.run_until(lambda: len(bound(cluster)) == 3 and bound(cluster) != first, 120)

    play(scenario, seed)


def test_a_timeout_gives_the_room_back():
    """The last member cannot go, though it fits: a gate keeps it. The others do not hold their room for ever."""

    async def scenario(cluster: Simulation) -> None:
        gated = member("g", 2, 3).replace("spec: {", "spec: {schedulingGates: [{name: later}],")
        for text in (member("g", 0, 3), member("g", 1, 3), gated):
            await cluster.apply(text)
        await cluster.run_until(lambda: "timeout after waiting 20s" in message(cluster, "g-0"), 60)
        for n in range(4):
            await cluster.apply(member("other", n, 4))
        await cluster.run_until(lambda: len(bound(cluster)) == 4, 90)
        assert all(name.startswith("other") for name in bound(cluster))

    play(scenario)


GROUPS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: podgroups.scheduling.x-k8s.io}
spec:
  group: scheduling.x-k8s.io
  scope: Namespaced
  names: {plural: podgroups, singular: podgroup, kind: PodGroup}
  versions:
  - {name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object,
      properties: {minMember: {type: integer}, scheduleTimeoutSeconds: {type: integer}}}}}}}
"""


def test_pod_groups_are_read_where_they_are_installed():
    async def scenario(cluster: Simulation) -> None:
        for n in range(2):
            await cluster.apply(member("g", n, None))
        await cluster.run_until(lambda: "is not known" in message(cluster, "g-0"), 10)
        await cluster.apply(GROUPS)
        await cluster.sleep(5)
        await cluster.client.request(
            "POST", "/apis/scheduling.x-k8s.io/v1alpha1/namespaces/default/podgroups",
            body=b'{"apiVersion":"scheduling.x-k8s.io/v1alpha1","kind":"PodGroup","metadata":{"name":"g"},'
            b'"spec":{"minMember":2}}',
        )  # fmt: skip
        await cluster.run_until(lambda: len(bound(cluster)) == 2, 60)

    play(scenario)
