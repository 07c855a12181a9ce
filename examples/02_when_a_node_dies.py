"""How long a Deployment is short of a pod after a node lost power, with Kubernetes' default tolerations and with shorter ones.

    python examples/02_when_a_node_dies.py
"""

from __future__ import annotations

import logging

from lab.simulation import Simulation
from navarch.api.types import core_v1

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: SECONDS}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: SECONDS}
      containers: [{name: web, image: "web:v1"}]
"""


def outage(toleration: int, seed: int) -> float:
    """Seconds of virtual time between the power loss and three ready pods again."""
    seconds = 0.0

    async def scenario(cluster: Simulation) -> None:
        nonlocal seconds
        await cluster.apply(WEB.replace("SECONDS", str(toleration)))
        await cluster.run_until(lambda: cluster.ready_pods() == 3, timeout=60)
        cluster.power_off(cluster.objects(core_v1.Pod)[0].spec.node_name)
        lost = cluster.world.monotonic()
        await cluster.run_until(lambda: cluster.ready_pods() < 3, timeout=120)
        await cluster.run_until(lambda: cluster.ready_pods() == 3, timeout=900)
        seconds = cluster.world.monotonic() - lost

    Simulation(seed=seed, nodes=3).run(scenario)
    return seconds


if __name__ == "__main__":
    logging.getLogger("controllers").setLevel(logging.ERROR)  # that a node is silent is no news here
    for toleration in (300, 30, 0):
        times = [outage(toleration, seed) for seed in range(3)]
        print(f"tolerationSeconds: {toleration:3}   short of a pod for {min(times):.0f} to {max(times):.0f} s")
