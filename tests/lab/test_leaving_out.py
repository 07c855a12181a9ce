"""What a simulation starts from (CASES F2, F5), and what it can leave out without another outcome (F7)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from controllers.config import Config
from lab.simulation import Simulation, node_specs
from navarch.api import pods
from navarch.api.types import core_v1
from nodeagent.hollow.objects import NodeSpec

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 12
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {hollow.navarch.dev/start: "uniform(0.2s, 3s)"}}
    spec:
      tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]
      containers: [{name: web, image: "web:v1", readinessProbe: {periodSeconds: 2, tcpSocket: {port: 80}}}]
"""


def outcome(seed: int, **switches: bool) -> dict[str, Any]:
    """A node loses power, another is cut off and comes back: when is what noticed, and where does everything run then?"""
    seen: dict[str, Any] = {}

    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(WEB)
        await cluster.run_until(lambda: cluster.ready_pods() == 12, 120)
        seen["ready"] = cluster.world.monotonic()
        await cluster.sleep(123)
        cluster.power_off("node-2")
        cluster.partition("node-3")
        for name in ("node-2", "node-3"):
            await cluster.run_until(lambda name=name: not cluster.node_ready(name), 100)
            seen[name] = cluster.world.monotonic()
        await cluster.sleep(30)
        cluster.heal("node-3")
        await cluster.run_until(lambda: cluster.node_ready("node-3"), 60)
        seen["healed"] = cluster.world.monotonic()
        await cluster.run_until(lambda: cluster.ready_pods() == 12, 400)
        seen["again"] = cluster.world.monotonic()
        found = [p for p in cluster.objects(core_v1.Pod, "default") if pods.is_active(p)]
        seen["where"] = sorted(p.spec.node_name or "" for p in found)
        seen["history"] = len(cluster.history())

    Simulation(seed, nodes=6, **switches).run(scenario)
    return seen


@pytest.mark.parametrize("switches", [{"heartbeats": False}, {"events": False}, {"history": False},
                                      {"heartbeats": False, "events": False, "history": False}])  # fmt: skip
def test_what_is_left_out_changes_no_outcome(switches: dict[str, bool]):
    whole, less = outcome(3), outcome(3, **switches)
    assert less["where"] == whole["where"]
    for what in ("ready", "node-2", "node-3", "healed", "again"):
        assert less[what] == pytest.approx(whole[what], abs=0.25), what
    assert less["history"] < whole["history"]
    assert less["history"] == 0 or switches.get("history", True)


def test_idle_hours_without_heartbeats_are_nearly_free():
    async def scenario(cluster: Simulation) -> float:
        await cluster.apply(WEB)
        await cluster.run_until(lambda: cluster.ready_pods() == 12, 120)
        writes, began = len(cluster.history()), time.process_time()
        await cluster.sleep(10 * 3600)
        assert len(cluster.history()) - writes < 200
        return time.process_time() - began

    assert Simulation(1, nodes=20, heartbeats=False).run(scenario) < 30


def test_without_heartbeats_the_nodes_link_cannot_be_cut():
    async def scenario(cluster: Simulation) -> None:
        with pytest.raises(ValueError, match="simulate with heartbeats"):
            cluster.links["nodes"].cut()

    Simulation(nodes=1, heartbeats=False).run(scenario)


def test_a_scenario_starts_when_pods_can_go_to_every_node():
    """CASES F2: with one pod a node, no node may be left out because of a taint that is about to go."""
    taint = core_v1.Taint(key="keep", value="out", effect="NoSchedule")
    nodes = [*node_specs(150, pods=1), NodeSpec("tainted", address="10.9.9.9", taints=(taint,))]

    async def scenario(cluster: Simulation) -> None:
        for name in cluster.fleet.names:
            node = cluster.object(core_v1.Node, name)
            assert node is not None and [t.key for t in node.spec.taints or ()] == ["keep"] * (name == "tainted")
        table = cluster.scheduler.table
        assert sum(bool(n and n.spec.taints) for n in table.nodes) == 1 and len(table) == 151

    Simulation(2, nodes=nodes, controllers=Config(cluster_cidr="100.64.0.0/10")).run(scenario)


def test_nodes_have_resources_labels_zones_and_capacities_of_their_own():
    """CASES F5."""
    specs = node_specs(
        4, prefix="gpu-", zones=2, cpu="96", memory="1Ti", pods=250, labels={"price": "3"},
        resources={"nvidia.com/gpu": "8", "ephemeral-storage": "2Ti"},
    )  # fmt: skip
    pod = """
apiVersion: v1
kind: Pod
metadata: {name: train}
spec:
  nodeSelector: {price: "3", topology.kubernetes.io/zone: zone-2}
  containers: [{name: t, image: "t:1", resources: {limits: {nvidia.com/gpu: "8"}}}]
"""

    async def scenario(cluster: Simulation) -> None:
        node = cluster.object(core_v1.Node, "gpu-2")
        assert node is not None and node.status.capacity == node.status.allocatable
        assert (node.status.capacity or {})["nvidia.com/gpu"] == "8" and (node.status.capacity or {})["pods"] == "250"
        assert (node.status.capacity or {})["ephemeral-storage"] == "2Ti"
        await cluster.apply(pod)
        await cluster.run_until(lambda: cluster.ready_pods() == 1, 30)
        await cluster.apply(pod.replace("train", "second"))
        await cluster.run_until(lambda: cluster.ready_pods() == 2, 30)
        assert {p.spec.node_name for p in cluster.objects(core_v1.Pod)} == {"gpu-2", "gpu-4"}
        await cluster.apply(pod.replace("train", "third"))
        await cluster.sleep(20)
        assert cluster.ready_pods() == 2

    Simulation(0, nodes=specs).run(scenario)
