"""The canary: deploy, roll, lose a node, on virtual time. As a program it prints its whole history.

``python -m tests.lab.canary SEED`` run twice must print the same, byte for byte, whatever PYTHONHASHSEED is.
"""

from __future__ import annotations

import sys

from lab.simulation import Simulation
from navarch.api.types import apps_v1, core_v1, discovery_v1

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
      annotations: {hollow.navarch.dev/pull: 3s, hollow.navarch.dev/start: 500ms}
    spec:
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
      containers:
      - name: web
        image: web:v1
        readinessProbe: {initialDelaySeconds: 1, httpGet: {port: 80}}
        resources: {requests: {cpu: 100m}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""


async def scenario(cluster: Simulation) -> None:
    await cluster.apply(WEB)
    await cluster.run_until(lambda: cluster.ready_pods(image="web:v1") == 6, 60)

    fewest = [6]

    def rolled() -> bool:
        fewest[0] = min(fewest[0], cluster.ready_pods())
        deployment = cluster.object(apps_v1.Deployment, "web", "default")
        assert deployment is not None
        return deployment.status.updated_replicas == 6 == deployment.status.available_replicas and (
            cluster.ready_pods(image="web:v2") == 6 == len(cluster.objects(core_v1.Pod))
        )

    await cluster.apply(WEB.replace("web:v1", "web:v2"))
    await cluster.run_until(rolled, 120)
    assert fewest[0] >= 5, "more than maxUnavailable (25 % of 6) were missing during the roll"

    lost = cluster.objects(core_v1.Pod)[0].spec.node_name or ""
    cluster.power_off(lost)
    await cluster.run_until(lambda: not cluster.node_ready(lost), 60)
    await cluster.run_until(lambda: elsewhere(cluster, lost) == 6, 120)
    cluster.power_on(lost)
    await cluster.run_until(lambda: cluster.node_ready(lost) and len(cluster.objects(core_v1.Pod)) == 6, 60)
    await cluster.run_until(lambda: endpoints(cluster) == 6, 60)


def elsewhere(cluster: Simulation, lost: str) -> int:
    """Ready pods on other nodes than the lost one."""
    found = [p for p in cluster.objects(core_v1.Pod) if p.spec.node_name != lost]
    return sum(any(c.type == "Ready" and c.status == "True" for c in p.status.conditions or ()) for p in found)


def endpoints(cluster: Simulation) -> int:
    """Endpoints of the service that take traffic."""
    slices = cluster.objects(discovery_v1.EndpointSlice, "default")
    mine = [s for s in slices if (s.metadata.labels or {}).get("kubernetes.io/service-name") == "web"]
    return sum(bool(e.conditions and e.conditions.ready) for s in mine for e in s.endpoints or ())


if __name__ == "__main__":
    simulation = Simulation(int(sys.argv[1]), nodes=3)
    simulation.run(scenario)
    sys.stdout.buffer.write(simulation.history_bytes())
