"""Measures the cost of a plugin that is written node by node, a decision.

    python -m bench.plugins [--nodes 500,5000] [--pods N]

Beside the default profile: one that reads a label of each node (docs/scheduler.md's Cheapest), one that looks at what is free
of one resource, and one that goes through the pods of each node.
"""

from __future__ import annotations

import argparse
import time

from lab.simulation import Cycle, node_specs
from navarch.api.types import core_v1, meta_v1
from scheduler.framework.plugin import NodePlugin, NodeView
from scheduler.framework.profiles import default_profile
from scheduler.state.pods import PodInfo


class Label(NodePlugin):
    name = "Label"

    def filter_node(self, pod: PodInfo, view: NodeView) -> str:
        most = (pod.pod.metadata.annotations or {}).get("most")
        return "node(s) were too dear" if most and price(view) > float(most) else ""

    def score_node(self, pod: PodInfo, view: NodeView) -> float:
        return -price(view)


def price(view: NodeView) -> float:
    return float((view.node.metadata.labels or {}).get("price", 1))


class Room(NodePlugin):
    name = "Room"

    def score_node(self, pod: PodInfo, view: NodeView) -> float:
        return -view.free["cpu"]


class Company(NodePlugin):
    name = "Company"

    def score_node(self, pod: PodInfo, view: NodeView) -> float:
        return sum(p.namespace == pod.namespace for p in view.pods)


def pod(n: int) -> core_v1.Pod:
    requests = core_v1.ResourceRequirements(requests={"cpu": "10m", "memory": "16Mi"})
    meta = meta_v1.ObjectMeta(name=f"p{n}", namespace="default", uid=str(n), labels={"app": "web"})
    return core_v1.Pod(metadata=meta, spec=core_v1.PodSpec(containers=[core_v1.Container(name="c", resources=requests)]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.plugins", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", default="500,5000")
    parser.add_argument("--pods", type=int, default=100)
    options = parser.parse_args()
    for nodes in map(int, options.nodes.split(",")):
        for kind in (None, Label, Room, Company):
            cycle = Cycle(node_specs(nodes), default_profile(user=[kind] if kind else ()))
            cycle.place(pod(0))
            began = time.process_time()
            for n in range(1, options.pods + 1):
                assert cycle.place(pod(n)).node
            spent = (time.process_time() - began) / options.pods * 1000
            print(f"{nodes:6} nodes  {kind.name if kind else 'default profile':16} {spent:8.3f} ms CPU a decision", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
