"""The scheduler's decisions alone: no API server, no queue, no time. What a thousand runs of a placement study need.

    cycle = Cycle(nodes, only(MyPolicy()), seed=1)
    placement = cycle.place(pod)      # counts the pod on its node
    placement.node or placement.reasons
    cycle.remove(pod)

The decisions are those of the whole scheduler for the same sequence of pods that come and go. What is not asked: queue,
permits, reserve, bindings and preemption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from navarch.api import kinds
from navarch.api.types import core_v1
from navarch.world import chance
from nodeagent.hollow import objects
from nodeagent.hollow.objects import NodeSpec
from scheduler.framework.config import SchedulerConfig
from scheduler.framework.cycle import Decision, schedule
from scheduler.framework.plugin import Plugin, Profile, Weighted, overriding
from scheduler.framework.profiles import default_profile
from scheduler.framework.ties import TieBreak, tie_break
from scheduler.ranking.rankings import Rankings
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo

_decode = kinds.decoder(core_v1.Pod).decode
AnyPod = core_v1.Pod | Mapping[str, Any] | PodInfo


class Placement(NamedTuple):
    """``node`` is empty if the pod fits nowhere; then ``reasons`` tells how many nodes were refused for what, and ``message``
    is the line that the pod's condition would carry."""

    node: str
    reasons: Mapping[str, int]
    message: str


def only(*plugins: Plugin, name: str = "default-scheduler") -> Profile:
    """A profile with Kubernetes' own filters, these plugins, and no scores but theirs (each with weight 1)."""
    every = [*(p for p in default_profile(name).plugins if p.name not in {q.name for q in plugins}), *plugins]
    scorers = [Weighted(p) for p in plugins if overriding([p], "score")]
    return Profile(name, every, scorers)


class Cycle:
    """See the module. ``policy``: a profile, the text of a KubeSchedulerConfiguration (whose first profile it is, with the
    plugin classes ``user``), or None for the default. ``ties``: a rule or a function (see scheduler/framework/ties.py)."""

    def __init__(
        self,
        nodes: Iterable[core_v1.Node | NodeSpec | Mapping[str, Any]],
        policy: Profile | str | None = None,
        seed: int = 0,
        ties: Any = None,
        user: Sequence[type[Plugin]] = (),
    ) -> None:
        self.chance = chance(f"cycle {seed}")
        config = SchedulerConfig.load(policy if isinstance(policy, str) else "", user)
        self.profile = policy if isinstance(policy, Profile) else config.profiles[0]
        if ties is not None:
            rule: TieBreak = tie_break(ties)
            self.profile.tie_break = rule
        self.table = NodeTable()
        self.table.node_differs = self.profile.facts.node_differs
        for node in nodes:
            self.set_node(node)
        for plugin in self.profile.accounts:
            self.table.attach(plugin)
        self.on_decision: Callable[[Decision], None] = lambda decision: None
        """Is told each decision before the pod counts on its node."""
        self._rankings = Rankings()
        self._number = 0

    def set_node(self, node: core_v1.Node | NodeSpec | Mapping[str, Any]) -> None:
        """Adds or changes a node."""
        if isinstance(node, NodeSpec):
            node = objects.node(node, 0, None, 0.0)
        elif not isinstance(node, core_v1.Node):
            node = msgspec.convert(node, core_v1.Node)
        self.table.set_node(node)

    def remove_node(self, name: str) -> None:
        self.table.remove_node(name)

    def place(self, pod: AnyPod) -> Placement:
        """Decides on a pod and counts it on its node. A pod without a uid is given one."""
        info = self._info(pod)
        decision = schedule(info, self.table, self.profile, self.chance, self._rankings)
        self.on_decision(decision)
        if decision.node:
            self.table.add_pod(info, decision.node)
            return Placement(decision.node, {}, "")
        return Placement("", decision.reasons, decision.message())

    def remove(self, pod: AnyPod | str) -> bool:
        """A pod, or the one of this uid, goes; False if it has no node."""
        return self.table.remove_pod(pod if isinstance(pod, str) else self._info(pod).uid)

    def node_of(self, uid: str) -> str:
        """The node of the pod of this uid; "" if it has none."""
        entry = self.table.pods.get(uid)
        return entry[1] if entry else ""

    def requested(self, resource: str) -> int:
        """The sum of the requests of the pods on all nodes, in millicores or base units."""
        return int(self.table.requested[resource].sum()) if resource in self.table.requested else 0

    def allocatable(self, resource: str) -> int:
        return int(self.table.allocatable[resource].sum()) if resource in self.table.allocatable else 0

    def _info(self, pod: AnyPod) -> PodInfo:
        if isinstance(pod, PodInfo):
            return pod
        pod_object: core_v1.Pod = pod if isinstance(pod, core_v1.Pod) else _decode(msgspec.json.encode(pod))
        if not pod_object.metadata.uid:
            self._number += 1
            pod_object.metadata.uid = f"uid-{self._number}"
        return PodInfo(pod_object)
