"""How fast a simulated cluster runs.

    python -m bench.simulation [--nodes N] [--pods N] [--seed N]

Prints how long, in real, in CPU and in virtual seconds, it takes until all nodes are Ready and all pods of a Deployment run,
and how long ten quiet minutes with all heartbeats take.
"""

from __future__ import annotations

import argparse
import logging
import time

from lab.simulation import Simulation
from navarch.api.types import apps_v1

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {pods}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers: [{{name: web, image: "web:v1", resources: {{requests: {{cpu: 10m}}}}}}]
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    last = [time.perf_counter(), time.process_time(), 0.0, 0.0]

    def lap(cluster: Simulation, what: str) -> None:
        now = [time.perf_counter(), time.process_time(), cluster.world.monotonic(), float(len(cluster.history()))]
        took, used, simulated, written = (a - b for a, b in zip(now, last, strict=True))
        last[:] = now
        print(f"{what:28} {took:8.2f} s {used:8.2f} s CPU {simulated:9.2f} s virtual {written:8.0f} writes", flush=True)

    async def scenario(cluster: Simulation) -> None:
        lap(cluster, f"{options.nodes} nodes Ready")
        await cluster.apply(DEPLOYMENT.format(pods=options.pods))

        def running() -> bool:
            found = cluster.object(apps_v1.Deployment, "web", "default")
            return found is not None and found.status.ready_replicas == options.pods

        await cluster.run_until(running, 3600)
        lap(cluster, f"{options.pods} pods Running")
        await cluster.sleep(600)
        lap(cluster, "ten quiet minutes")

    Simulation(options.seed, nodes=options.nodes).run(scenario)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
