"""The node autoscaler in a whole simulated cluster: nodes that come and go, and what it tells in Events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from lab.nodeautoscaler.autoscaler import TO_BE_DELETED, NodeAutoscaler
from lab.nodeautoscaler.groups import Group, Options
from lab.simulation.cluster import Simulation, node_specs
from navarch.api.types import apps_v1, core_v1
from nodeagent.hollow.objects import NodeSpec
from nodeagent.runtime.spread import spread
from scheduler.framework.profiles import default_profile
from scheduler.state.pods import PodInfo

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {lab.navarch.dev/node-group: small}
      containers: [{name: web, image: "web:v1", resources: {requests: {cpu: CPU}}}]
"""
BUDGET = """
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 3, selector: {matchLabels: {app: web}}}
"""
QUICK = Options(unneeded_time=60.0, delay_after_add=60.0)


def play(scenario: Callable[[Simulation, NodeAutoscaler], Awaitable[None]], options: Options = QUICK) -> None:
    group = Group("small", 1, 3, NodeSpec("small", cpu="2"), spread("uniform(30s, 40s)"), 0.1)
    cluster = Simulation(seed=2, nodes=[*node_specs(1), group.node(1, "10.0.0.2")], heartbeats=False, checks=True)

    async def main(cluster: Simulation) -> None:
        profiles = {"default-scheduler": default_profile("default-scheduler")}
        scaler = NodeAutoscaler(
            cluster, [group], options, profiles, seed="2", first=3, address=lambda n: f"10.0.0.{n}"
        )  # fmt: skip
        cluster.background(scaler.run())
        await scenario(cluster, scaler)

    cluster.run(main)


def events(cluster: Simulation, kind: str) -> set[tuple[str, str]]:
    return {
        (e.reason or "", e.message or "") for e in cluster.objects(core_v1.Event)
        if e.involved_object.kind == kind and e.source and e.source.component == "cluster-autoscaler"
    }  # fmt: skip


def tainted(cluster: Simulation) -> list[str]:
    nodes = cluster.objects(core_v1.Node)
    return [n.metadata.name or "" for n in nodes if any(t.key == TO_BE_DELETED for t in n.spec.taints or ())]


def names(cluster: Simulation) -> list[str]:
    return [n.metadata.name or "" for n in cluster.objects(core_v1.Node)]


def web(replicas: int, cpu: str = "900m") -> str:
    return WEB.replace("REPLICAS", str(replicas)).replace("CPU", cpu)


def test_nodes_come_with_the_pods_and_go_with_them() -> None:
    async def scenario(cluster: Simulation, scaler: NodeAutoscaler) -> None:
        await cluster.apply(web(7))
        await cluster.run_until(lambda: cluster.ready_pods() == 6, timeout=120)
        assert names(cluster) == ["node-1", "small-1", "small-2", "small-3"]
        text = "pod triggered scale-up: [{small 1->3 (max: 3)}]"
        assert ("TriggeredScaleUp", text) in events(cluster, "Pod")
        text = "pod didn't trigger scale-up: 1 max node group size reached"
        await cluster.run_until(lambda: ("NotTriggerScaleUp", text) in events(cluster, "Pod"), timeout=60)

        await cluster.client[apps_v1.Deployment].patch("web", "default", {"spec": {"replicas": 2}})
        await cluster.run_until(lambda: len(names(cluster)) == 2, timeout=600)
        assert cluster.ready_pods() == 2 and scaler.size(scaler.groups[0]) == 1
        marked, removed = "marked the node as toBeDeleted/unschedulable", "node removed by cluster autoscaler"
        texts = {("ScaleDown", marked), ("ScaleDown", removed)}
        await cluster.run_until(lambda: texts <= events(cluster, "Node"), timeout=60)

    play(scenario)


def test_a_budget_is_heeded_while_a_node_is_emptied() -> None:
    async def scenario(cluster: Simulation, scaler: NodeAutoscaler) -> None:
        await cluster.apply(web(4))
        await cluster.run_until(lambda: cluster.ready_pods() == 4, timeout=120)
        await cluster.apply(BUDGET)
        await cluster.client[apps_v1.Deployment].patch("web", "default", {"spec": {"replicas": 3}})
        await cluster.sleep(600)
        assert len(names(cluster)) == 3, "no pod may be disrupted"
        await cluster.apply(BUDGET.replace("minAvailable: 3", "minAvailable: 1"))
        await cluster.client[apps_v1.Deployment].patch("web", "default", {"spec": {"replicas": 2}})
        await cluster.run_until(lambda: len(names(cluster)) == 2, timeout=600)
        await cluster.run_until(lambda: cluster.ready_pods() == 2, timeout=60)

    play(scenario)


def test_pods_that_are_not_evicted_in_time_keep_the_node() -> None:
    """A budget forbids what was allowed a moment ago."""

    async def scenario(cluster: Simulation, scaler: NodeAutoscaler) -> None:
        await cluster.apply(web(1))
        await cluster.run_until(lambda: cluster.ready_pods() == 1, timeout=120)
        await cluster.apply(BUDGET.replace("minAvailable: 3", "minAvailable: 1"))
        (pod,) = cluster.objects(core_v1.Pod)
        scaler._begin(cluster.objects(core_v1.Node)[1], [PodInfo(pod)])
        await cluster.run_until(lambda: tainted(cluster) == ["small-1"], timeout=60)
        text = f"failed to drain the node: not evicted in time: default/{pod.metadata.name}"
        await cluster.run_until(lambda: ("ScaleDownFailed", text) in events(cluster, "Node"), timeout=200)
        await cluster.run_until(lambda: tainted(cluster) == [], timeout=60)
        assert cluster.ready_pods() == 1 and "small-1" in names(cluster)

    play(scenario)
