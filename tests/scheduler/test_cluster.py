"""The scheduler in a whole simulated cluster: spreading by default, preemption, gates, restarts; the same every time."""

from __future__ import annotations

import logging

from lab.simulation import Simulation
from navarch.api import kinds
from navarch.api.types import core_v1
from nodeagent.hollow.objects import NodeSpec
from scheduler.framework.config import SchedulerConfig
from scheduler.scheduler import Scheduler

logging.getLogger("scheduler").setLevel(logging.ERROR)

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: a}}}}
spec:
  {more}
  terminationGracePeriodSeconds: 1
  containers: [{{name: c, image: i, resources: {{requests: {{cpu: "{cpu}"}}}}}}]
"""


def where(cluster: Simulation) -> dict[str, str]:
    pods = cluster.objects(core_v1.Pod, "default")
    return {p.metadata.name or "": p.spec.node_name or "" for p in pods}


def make(name: str, cpu: str = "100m", more: str = "") -> str:
    return POD.format(name=name, cpu=cpu, more=more)


def test_a_pod_of_higher_priority_takes_the_place_of_a_lower_one():
    async def scenario(cluster: Simulation) -> None:
        allocatable = float(_cpu(cluster))
        big = f"{int(allocatable * 900)}m"
        await cluster.apply(
            "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: high}, value: 100}"
        )
        await cluster.apply(make("low", big))
        await cluster.run_until(lambda: where(cluster)["low"], 30)
        await cluster.apply(make("high", big, "priorityClassName: high"))
        await cluster.run_until(lambda: where(cluster).get("high"), 60)
        assert "low" not in where(cluster)
        events = {e.reason for e in cluster.objects(core_v1.Event, "default")}
        assert {"Preempted", "FailedScheduling", "Scheduled"} <= events
        conditions = [r for r in cluster.history() if b"PreemptionByScheduler" in r.value]
        assert conditions
        nominated = [r for r in cluster.history() if b'"nominatedNodeName"' in r.value and r.key.endswith("/high")]
        assert nominated

    Simulation(3, nodes=1).run(scenario)


def _cpu(cluster: Simulation) -> str:
    return str(cluster.objects(core_v1.Node)[0].status.allocatable["cpu"])


def run(seed: int) -> bytes:
    async def scenario(cluster: Simulation) -> bytes:
        anti = """affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [
            {labelSelector: {matchLabels: {app: a}}, topologyKey: kubernetes.io/hostname}]}}"""
        for n in range(4):
            await cluster.apply(make(f"p{n}", more=anti))
        await cluster.run_until(lambda: sum(map(bool, where(cluster).values())) == 3, 60)
        placed = where(cluster)
        assert len({n for n in placed.values() if n}) == 3
        pending = next(p for p in placed if not placed[p])
        cluster.crash("scheduler")
        await cluster.sleep(0.1)
        cluster.start("scheduler")
        gone = next(p for p in placed if placed[p])
        await cluster.client[core_v1.Pod].delete(gone, "default", grace_period_seconds=0)
        await cluster.run_until(lambda: where(cluster)[pending], 60)  # woken by the deletion
        assert where(cluster)[pending] == placed[gone]
        return cluster.history_bytes()

    return Simulation(seed, nodes=[NodeSpec(f"n{i}", address=f"10.0.0.{i + 1}") for i in range(3)]).run(scenario)


def test_anti_affinity_restart_and_determinism():
    assert run(5) == run(5)


def test_pods_of_a_service_are_spread_by_default():
    async def scenario(cluster: Simulation) -> None:
        service = (
            "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: {app: a}, ports: [{port: 80}]}}"
        )
        await cluster.apply(service)
        await cluster.sleep(1)
        for n in range(6):
            await cluster.apply(make(f"p{n}", "10m"))
        await cluster.run_until(lambda: all(where(cluster).values()), 30)
        used = list(where(cluster).values())
        assert sorted(used.count(n) for n in set(used)) == [2, 2, 2]

    Simulation(1, nodes=3).run(scenario)


def test_a_scheduler_that_is_killed_again_and_again_loses_and_doubles_nothing():
    async def scenario(cluster: Simulation) -> None:
        for n in range(12):
            await cluster.apply(make(f"p{n}", "900m"))
            if n % 3 == 0:
                cluster.crash("scheduler")
                await cluster.sleep(0.0015 * (n % 5 + 1))
                cluster.start("scheduler")
        await cluster.run_until(lambda: all(where(cluster).values()), 60)
        bound: dict[str, set[str]] = {}
        for pod in (r.value for r in cluster.history() if r.key.startswith("/registry/pods/default/")):
            found = _pod(pod)
            if found.spec.node_name:
                bound.setdefault(found.metadata.name or "", set()).add(found.spec.node_name)
        assert len(bound) == 12 and all(len(nodes) == 1 for nodes in bound.values())
        placed = list(where(cluster).values())
        assert all(placed.count(f"n{i}") == 4 for i in range(3))  # 4 of 900m fill a node of 4 cores

    nodes = [NodeSpec(f"n{i}", address=f"10.0.0.{i + 1}", cpu="4") for i in range(3)]
    Simulation(7, nodes=nodes).run(scenario)


def _pod(value: bytes) -> core_v1.Pod:
    return kinds.decoder(core_v1.Pod).decode(value)  # type: ignore[no-any-return]


def test_preemption_spares_pods_that_a_disruption_budget_protects():
    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(
            "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: high}, value: 100}"
        )
        await cluster.apply(
            "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: b},"
            " spec: {minAvailable: 1, selector: {matchLabels: {keep: this}}}}"
        )
        await cluster.apply(make("kept", "3500m").replace("app: a", "keep: this"))
        await cluster.apply(make("other", "3500m"))
        await cluster.run_until(lambda: all(where(cluster).values()), 30)
        await cluster.sleep(5)
        await cluster.apply(make("high", "3500m", "priorityClassName: high"))
        await cluster.run_until(lambda: where(cluster).get("high"), 60)
        assert list(where(cluster)) == ["high", "kept"]

    for seed in (1, 2, 3):
        Simulation(seed, nodes=2).run(scenario)


def test_pods_that_preempt_at_once_do_not_count_on_the_same_room():
    """Two on one node: the second must see that the first is nominated there, and take victims of its own."""

    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(
            "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: high}, value: 100}"
        )
        for n in range(2):
            await cluster.apply(make(f"low{n}", "1800m"))
        await cluster.run_until(lambda: all(where(cluster).values()), 30)
        for n in range(2):
            await cluster.apply(make(f"high{n}", "1800m", "priorityClassName: high"))
        await cluster.run_until(lambda: where(cluster) == {"high0": "n0", "high1": "n0"}, 30)

    Simulation(1, nodes=[NodeSpec("n0", address="10.0.0.1", cpu="4")]).run(scenario)


def test_schedulers_of_different_names_share_nodes_and_see_each_others_pods():
    """Each decides on its own pods alone; what another has bound counts."""
    config = SchedulerConfig.load("profiles: [{schedulerName: second}]")

    async def scenario(cluster: Simulation) -> None:
        cluster._group.start(Scheduler(cluster._component("scheduler"), cluster.world, config).run())
        for n in range(10):
            await cluster.apply(make(f"p{n}", "900m", "schedulerName: second" if n % 2 else ""))
        await cluster.run_until(lambda: sum(map(bool, where(cluster).values())) == 8, 60)
        await cluster.sleep(20)
        placed = list(where(cluster).values())
        assert placed.count("n0") == placed.count("n1") == 4 and placed.count("") == 2
        told = {e.source.component for e in cluster.objects(core_v1.Event, "default") if e.reason == "Scheduled"}
        assert told == {"default-scheduler", "second"}

    nodes = [NodeSpec(f"n{i}", address=f"10.0.0.{i + 1}", cpu="4") for i in range(2)]
    Simulation(2, nodes=nodes).run(scenario)
