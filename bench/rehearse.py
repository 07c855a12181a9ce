"""How long a rehearsal takes.

    python -m bench.rehearse [--nodes N] [--pods N] [--seeds N] [--jobs N] [--profile]

A cluster with that many nodes and pods (Deployments of 50, a DaemonSet, Services and budgets) is simulated once and listed.
Then a rolling restart, a drain and the loss of a node are rehearsed, each timed from the snapshot to the answer.
"""

from __future__ import annotations

import argparse
import cProfile
import logging
import pstats
import time

from lab.simulation import Simulation
from lab.twin import answer
from lab.twin.changes import Change, from_words, lose
from lab.twin.learning import learn
from lab.twin.rehearsal import rehearse
from lab.twin.snapshot import Snapshot, take
from navarch.api.types import core_v1
from nodeagent.hollow.fleet import Config
from nodeagent.runtime.spread import spread
from nodeagent.runtime.stages import Stages

SHAPE = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web-{n}}}
spec:
  replicas: {size}
  selector: {{matchLabels: {{app: web-{n}}}}}
  template:
    metadata: {{labels: {{app: web-{n}}}}}
    spec:
      containers:
      - name: web
        image: "web:v1"
        resources: {{requests: {{cpu: 50m}}}}
        readinessProbe: {{periodSeconds: 5, tcpSocket: {{port: 80}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web-{n}}}
spec: {{selector: {{app: web-{n}}}, ports: [{{port: 80}}]}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: web-{n}}}
spec: {{maxUnavailable: 20%, selector: {{matchLabels: {{app: web-{n}}}}}}}
---
"""
DAEMON = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: agent, image: "agent:v1"}]}
"""
STAGES = Stages(start=spread("uniform(0.5s,2s)"), ready=spread("lognormal(3s,0.5)"), stop=spread("uniform(0.2s,2s)"))
SIZE = 50


def model(nodes: int, pods: int) -> Snapshot:
    text = "".join(SHAPE.format(n=n, size=SIZE) for n in range((pods - nodes) // SIZE)) + DAEMON
    total = (pods - nodes) // SIZE * SIZE + nodes

    async def scenario(cluster: Simulation) -> Snapshot:
        await cluster.apply(text)
        await cluster.sleep(120)  # not run_until: it would count all pods after every change
        await cluster.sleep(60)
        assert len(cluster.objects(core_v1.Pod)) == total
        return await take(cluster.client, "bench")

    fleet = Config(behaviour=lambda pod, container: STAGES)
    return Simulation(3, nodes=nodes, fleet=fleet, heartbeats=False, history=False).run(scenario)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rehearse", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="of one seed of the rolling restart, in this process")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    snapshot = model(options.nodes, options.pods)
    print(
        f"{len(snapshot.of('nodes'))} nodes, {len(snapshot.of('pods'))} pods, {len(snapshot.objects)} objects",
        flush=True,
    )

    def timed(change: Change, seeds: int, jobs: int) -> None:
        before = time.perf_counter(), time.process_time() + _children()
        done = rehearse(snapshot, learn(snapshot), change, seeds=range(1, seeds + 1), seconds=1800, jobs=jobs)
        took, used = time.perf_counter() - before[0], time.process_time() + _children() - before[1]
        print(
            f"{change.words:32} {seeds} seeds {took:6.2f} s {used:6.2f} s CPU  {answer.lines(done, 1800)[0]}",
            flush=True,
        )

    restart = from_words(["rollout", "restart", "deploy/web-0"], snapshot, "default")
    if options.profile:
        profile = cProfile.Profile()
        profile.enable()
        timed(restart, 1, 1)
        profile.disable()
        pstats.Stats(profile).sort_stats("cumulative").print_stats(60)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return 0
    for change in (restart, from_words(["drain", "node-1"], snapshot, "default"), lose(["node-1"], snapshot)):
        timed(change, options.seeds, options.jobs)
    return 0


def _children() -> float:
    import os

    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    raise SystemExit(main())
