"""A Deployment on three simulated nodes, and what its rollout looks like. Runs in a second, without root.

    python examples/01_first_simulation.py
"""

from __future__ import annotations

from lab.simulation import Simulation
from navarch.api.types import apps_v1

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 6
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
      annotations: {hollow.navarch.dev/start: 2s}  # each container takes two seconds to start
    spec:
      containers: [{name: web, image: "web:v1"}]
"""


async def scenario(cluster: Simulation) -> None:
    await cluster.apply(WEB)
    await cluster.run_until(lambda: cluster.ready_pods() == 6, timeout=60)
    began = cluster.world.monotonic()
    await cluster.apply(WEB.replace("web:v1", "web:v2"))
    fewest = 6

    def rolled_out() -> bool:
        nonlocal fewest
        fewest = min(fewest, cluster.ready_pods())
        (web,) = cluster.objects(apps_v1.Deployment)
        status = web.status
        seen = status is not None and status.observed_generation == web.metadata.generation
        return seen and status.updated_replicas == status.available_replicas == status.replicas == 6

    await cluster.run_until(rolled_out, timeout=120)
    print(f"rolled out in {cluster.world.monotonic() - began:.1f} s of virtual time; never fewer than {fewest} pods ready")


if __name__ == "__main__":
    Simulation(seed=1, nodes=3).run(scenario)
