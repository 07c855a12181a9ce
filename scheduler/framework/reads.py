"""Dependencies of a plugin's answers, so that none of them is used for a pod, or at a time, that it is not true of.

Pods that are alike share a ranking, and rows that did not change are not asked about again. Both are right only if what
every plugin looks at is known. A plugin declares it (``Plugin.reads``); one that declares nothing may look at anything,
so it is asked about every node for every pod.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from navarch.api.types import core_v1

# Plugins are scheduler.framework.plugin's, which imports this file.
ANSWERS = (
    "reach", "apart", "named", "pre_filter", "filter", "refuses", "pre_score", "score", "score_rows", "score_row",
    "normalize", "filter_node", "score_node",
)  # fmt: skip
"""The methods whose answers a ranking keeps."""

_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True)
class Reads:
    """The data that a plugin looks at beyond what Kubernetes' own plugins do; each part is a function that gives just
    that, as plain data (texts, numbers, lists, dicts).

    Known anyway are: of the pod to place, its namespace, labels, controller, images, requests, ports, volumes that are
    storage, node selector, affinity, tolerations, spread constraints, priority and claims; of nodes, labels, taints,
    unschedulable, allocatable and images; of pods on nodes, labels, requests, ports, storage and whether they end.
    """

    pod: Callable[[core_v1.Pod], Any] | None = None
    """Of the pod to place, such as an annotation or its name."""
    node: Callable[[core_v1.Node], Any] | None = None
    """Of nodes, such as an annotation or a condition."""
    placed: Callable[[core_v1.Pod], Any] | None = None
    """Of pods that are on nodes."""


NOTHING_ELSE = Reads()


def any_of_node(node: core_v1.Node) -> Any:
    """All of a node but what changes with every heartbeat: for plugins that do not declare what they read."""
    meta, status = node.metadata, node.status
    conditions = [(c.type, c.status, c.reason) for c in status.conditions or ()]
    return (
        meta.annotations, meta.owner_references, node.spec, conditions, status.capacity, status.addresses, status.node_info,
        status.volumes_attached, status.phase,
    )  # fmt: skip


def any_of_placed(pod: core_v1.Pod) -> Any:
    """The part of a pod on a node that is followed for plugins that declare no reads. Its status is not."""
    return pod.metadata.annotations, pod.metadata.owner_references, pod.spec


def answers(plugin: Any) -> bool:
    """Whether the plugin has any say in which node a pod gets."""
    *own, base, _ = type(plugin).__mro__  # Plugin and object are the last
    assert base.__name__ == "Plugin"
    return any(name in vars(one) for one in own for name in ANSWERS)


def declared(plugin: Any) -> Reads | None:
    """The plugin's declaration; None if there is none, or it was made by a class whose answers it overrides."""
    if not answers(plugin):
        return NOTHING_ELSE
    declaration: Reads | None
    if "reads" in vars(plugin):
        declaration = vars(plugin)["reads"]
        return declaration
    for one in type(plugin).__mro__:
        if "reads" in vars(one):
            declaration = vars(one)["reads"]
            return declaration
        if any(name in vars(one) for name in ANSWERS):
            return None  # it answers otherwise than the class that declared something
    return None


class Facts:
    """The data that all these plugins together look at, beyond what is known anyway."""

    def __init__(self, plugins: Iterable[Any]) -> None:
        every = [declared(p) for p in plugins]
        self._pod = [r.pod for r in every if r and r.pod]
        nodes = [any_of_node if r is None else r.node for r in every]
        placed = [any_of_placed if r is None else r.placed for r in every]
        self._node = list(dict.fromkeys(read for read in nodes if read))
        self._placed = list(dict.fromkeys(read for read in placed if read))

    def of_pod(self, pod: core_v1.Pod) -> bytes:
        """Equal for pods that these plugins cannot tell apart, if they are of one Shape."""
        return _encode([read(pod) for read in self._pod]) if self._pod else b""

    def node_differs(self, old: core_v1.Node, new: core_v1.Node) -> bool:
        return any(read(old) != read(new) for read in self._node)

    def placed_differs(self, old: core_v1.Pod, new: core_v1.Pod) -> bool:
        return any(read(old) != read(new) for read in self._placed)
