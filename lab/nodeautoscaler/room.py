"""A copy of the scheduler's node table for questions: which pods would fit where, if these nodes were there and those not?

The filters are those of the scheduler's profiles; nothing is scored, for any node that takes a pod answers the question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from controllers.daemonset import plan as daemons
from navarch.api.types import apps_v1, core_v1, meta_v1
from nodeagent.hollow import objects
from nodeagent.hollow.objects import NodeSpec
from scheduler.framework.plugin import Profile
from scheduler.ranking.ranking import Ranking
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo


class Fit(NamedTuple):
    """``node`` is empty if the pod fits nowhere."""

    node: str
    ranking: Ranking


class Room:
    """Nodes and the pods on them. ``daemon_sets``: whose pods come to each node that is added as a template."""

    def __init__(
        self,
        profiles: Mapping[str, Profile],
        nodes: Iterable[core_v1.Node] = (),
        pods: Iterable[PodInfo] = (),
        daemon_sets: Sequence[apps_v1.DaemonSet] = (),
        namespaces: Iterable[core_v1.Namespace] = (),
        storage: Iterable[Any] = (),
    ) -> None:
        self.table = NodeTable()
        self.profiles = {name: Profile(p.name, p.plugins, []) for name, p in profiles.items()}
        self._daemon_sets = daemon_sets
        for profile in self.profiles.values():
            for plugin in profile.accounts:
                self.table.attach(plugin)
        for one in namespaces:
            self.table.topology.set_namespace(one.metadata.name or "", one.metadata.labels or {})
        for one in storage:
            self.table.volumes.put(one)
        for node in nodes:
            self.table.set_node(node)
        for pod in pods:
            self.table.add_pod(pod, pod.pod.spec.node_name or "")

    def fit(self, pod: PodInfo) -> Fit:
        """The first node, by row, that takes a pod which is on none."""
        ranking = Ranking(pod, self.table, self.profiles[pod.profile])
        if not ranking.feasible:
            return Fit("", ranking)
        return Fit(ranking.names[int(np.flatnonzero(ranking.total > -np.inf)[0])], ranking)

    def place(self, pod: PodInfo) -> str:
        """As ``fit``; the pod counts on its node from now on."""
        node = self.fit(pod).node
        if node:
            self.table.add_pod(pod, node)
        return node

    def add_template(self, spec: NodeSpec) -> None:
        """A node that is not there yet, with the DaemonSets' pods that will come to it."""
        node = objects.node(spec, 0, None, 0.0)
        self.table.set_node(node)
        for number, one in enumerate(self._daemon_sets):
            if daemons.belongs(one, node)[0]:
                owner = meta_v1.OwnerReference(
                    api_version="apps/v1", kind="DaemonSet", name=one.metadata.name or "", uid=one.metadata.uid or "",
                    controller=True,
                )  # fmt: skip
                pod = daemons.new_pod(one, owner, spec.name, "")
                pod.metadata.uid = f"daemon-{number}-{spec.name}"
                self.table.add_pod(PodInfo(pod), spec.name)

    def remove_node(self, name: str) -> list[PodInfo]:
        """Takes a node away with its pods, and gives these."""
        pods = list(self.table.by_node.get(name, {}).values())
        for pod in pods:
            self.table.remove_pod(pod.uid)
        self.table.remove_node(name)
        return pods

    def refusals(self, fit: Fit, pod: PodInfo, node: str) -> list[str]:
        """The reasons for which one node does not take the pod, in the scheduler's words."""
        if fit.ranking.rejection:
            return [fit.ranking.rejection]
        row = self.table.rows[node]
        plugins = [p for p in self.profiles[pod.profile].filters if p.name in set(fit.ranking.refused_by())]
        return [text for p in plugins for text in p.refuses(fit.ranking.state, pod, self.table, row)]
