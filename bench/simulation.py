"""How fast a simulated cluster runs.

    python -m bench.simulation [--nodes N] [--pods N] [--replicas N] [--lean] [--seed N]

Prints how long, in real, in CPU and in virtual seconds, it takes until all nodes are Ready and all pods of Deployments of
``--replicas`` each run, how long ten quiet minutes take, and the most memory it has had. ``--lean`` leaves out heartbeats,
Events and the history, as experiments may.
"""

from __future__ import annotations

import argparse
import logging
import resource
import time

from lab.simulation import Simulation
from navarch.api.types import apps_v1

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {pods}
  progressDeadlineSeconds: 36000
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers: [{{name: web, image: "web:v1", resources: {{requests: {{cpu: 10m}}}}}}]
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--replicas", type=int, default=0, help="of each Deployment; without it there is one")
    parser.add_argument("--lean", action="store_true", help="without heartbeats, Events and history")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    last = [time.perf_counter(), time.process_time(), 0.0, 0.0]

    def lap(cluster: Simulation, what: str) -> None:
        now = [time.perf_counter(), time.process_time(), cluster.world.monotonic(), float(len(cluster.history()))]
        took, used, simulated, written = (a - b for a, b in zip(now, last, strict=True))
        last[:] = now
        print(f"{what:28} {took:8.2f} s {used:8.2f} s CPU {simulated:9.2f} s virtual {written:8.0f} writes"
              f" {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8.0f} MB", flush=True)  # fmt: skip

    async def scenario(cluster: Simulation) -> None:
        lap(cluster, f"{options.nodes} nodes Ready")
        size = options.replicas or options.pods
        for number in range(options.pods // size):
            await cluster.apply(DEPLOYMENT.format(name=f"web-{number}", pods=size))

        def running() -> bool:
            every = cluster.objects(apps_v1.Deployment, "default")
            return sum(d.status.ready_replicas or 0 for d in every) == options.pods // size * size

        await cluster.run_until(running, 3600)
        lap(cluster, f"{options.pods} pods Running")
        await cluster.sleep(600)
        lap(cluster, "ten quiet minutes")

    whole = not options.lean
    Simulation(options.seed, nodes=options.nodes, heartbeats=whole, events=whole, history=whole).run(scenario)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
