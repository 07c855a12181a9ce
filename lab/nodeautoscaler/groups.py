"""Groups of nodes that are alike, and the autoscaler's options: names, defaults and meanings are Cluster Autoscaler's."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nodeagent.hollow.objects import NodeSpec
from nodeagent.runtime.spread import Spread

LABEL = "lab.navarch.dev/node-group"
"""Of a Node: the name of its group."""
EXPANDERS = ("random", "least-waste", "price", "most-pods")


@dataclass(frozen=True, eq=False)  # each is itself: its template cannot be hashed
class Group:
    """``template``: what each of its nodes is like; ``boot``: seconds from the order of a machine until it registers its
    Node; ``price``: of one node, an hour."""

    name: str
    least: int
    most: int
    template: NodeSpec
    boot: float | Spread = 0.0
    price: float = 0.0

    def node(self, number: int, address: str) -> NodeSpec:
        labels = {**self.template.labels, LABEL: self.name}
        return replace(self.template, name=f"{self.name}-{number}", address=address, labels=labels)


@dataclass(frozen=True)
class Options:
    """Times in seconds."""

    expander: str = "random"
    scan_interval: float = 10.0
    scale_down: bool = True
    utilization_threshold: float = 0.5
    unneeded_time: float = 600.0
    delay_after_add: float = 600.0
    delay_after_delete: float = 0.0
    delay_after_failure: float = 180.0
    max_empty_bulk_delete: int = 10
    ignore_daemonsets_utilization: bool = False
    skip_nodes_with_local_storage: bool = True
    skip_nodes_with_system_pods: bool = True
    max_pod_eviction_time: float = 120.0
    max_graceful_termination: float = 600.0
