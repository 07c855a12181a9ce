"""TaintToleration: taints keep pods away that do not tolerate them; PreferNoSchedule only lowers the score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from navarch.api.affinity import tolerated, untolerated
from navarch.api.types import core_v1
from scheduler.framework.plugin import (
    NODE_ADDED,
    NODE_CHANGED,
    POD_CHANGED,
    CycleState,
    Event,
    Plugin,
    Reach,
    Refusal,
    scale,
)
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import Mask, NodeTable, Scores
from scheduler.state.pods import PodInfo


class TaintToleration(Plugin):
    name = "TaintToleration"
    reads = NOTHING_ELSE
    events = frozenset({NODE_ADDED, NODE_CHANGED, POD_CHANGED})

    def own_change_helps(self, old: PodInfo, new: PodInfo) -> bool:
        return old.pod.spec.tolerations != new.pod.spec.tolerations

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def helps(self, event: Event, pod: PodInfo, table: NodeTable) -> bool:
        tolerations, node, old = pod.pod.spec.tolerations, event.node, event.old
        if node is None:
            return False  # a pod on a node changed
        if old is not None and untolerated(tolerations, old.spec.taints) is None:
            return False  # it was not this node
        return untolerated(tolerations, node.spec.taints) is None

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        tolerations = pod.pod.spec.tolerations

        def reason(node: core_v1.Node) -> str:
            return _reason(tolerations, node)

        codes = table.static_codes(self.name, pod.tolerance, reason)
        if not codes.any():
            return ()
        texts = sorted((table.text(code), code) for code in np.unique(codes).tolist() if code)
        return [Refusal(text, codes == code, resolvable=False) for text, code in texts]

    def refuses(self, state: CycleState, pod: PodInfo, table: NodeTable, row: int) -> Sequence[str]:
        node = table.nodes[row]
        reason = _reason(pod.pod.spec.tolerations, node) if node and node.spec.taints else ""
        return [reason] if reason else ()

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        tolerations = [t for t in pod.pod.spec.tolerations or () if t.effect in (None, "", "PreferNoSchedule")]

        def unwelcome(node: core_v1.Node) -> float:
            soft = [t for t in node.spec.taints or () if t.effect == "PreferNoSchedule"]
            return sum(not tolerated(tolerations, t) for t in soft)

        points: Scores = table.static(self.name + "/score", pod.tolerance, unwelcome, np.float64)
        return points

    def normalize(self, scores: Scores, feasible: Mask) -> Scores:
        return scale(scores, feasible, reverse=True)


def _reason(tolerations: Sequence[core_v1.Toleration] | None, node: core_v1.Node) -> str:
    """Why the taints of a node keep a pod away; "" if they do not."""
    taint = untolerated(tolerations, node.spec.taints)
    return f"node(s) had untolerated taint {{{taint.key}: {taint.value or ''}}}" if taint else ""
