"""VolumeZone: a volume whose labels name a zone or a region keeps its pods to the nodes of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from navarch.api import wellknown
from navarch.api.types import core_v1
from scheduler.framework.plugin import NODE_ADDED, NODE_CHANGED, CycleState, Event, Plugin, Reach, Refusal
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import Mask, NodeTable
from scheduler.state.pods import PodInfo
from scheduler.state.volumes import CLAIM_CHANGED, CLASS_CHANGED, VOLUME_CHANGED

ZONE, REGION = wellknown.ZONE, wellknown.REGION
OLD = {wellknown.BETA_ZONE: ZONE, wellknown.BETA_REGION: REGION}
KEYS = (ZONE, REGION, *OLD)
OTHER_ZONE = "node(s) had no available volume zone"


class VolumeZone(Plugin):
    name = "VolumeZone"
    reads = NOTHING_ELSE
    events = frozenset({CLAIM_CHANGED, VOLUME_CHANGED, CLASS_CHANGED, NODE_ADDED, NODE_CHANGED})

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.EVERYWHERE if pod.claims else Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def helps(self, event: Event, pod: PodInfo, table: NodeTable) -> bool:
        if event.kind == CLAIM_CHANGED:
            meta = event.object.metadata
            return any(c.key == f"{meta.namespace}/{meta.name}" for c in pod.claims)
        old, node = event.old, event.node
        return node is None or old is None or old.metadata.labels != node.metadata.labels

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        if not pod.claims:
            return ()
        zones: list[tuple[str, tuple[str, ...]]] = []
        for one in pod.claims:
            claim = table.volumes.claims.get(one.key)
            volume = table.volumes.volumes.get(claim.spec.volume_name or "") if claim else None
            labels = (volume.metadata.labels or {}) if volume else {}
            zones += [(k, tuple(sorted(labels[k].split("__")))) for k in KEYS if k in labels]
        if not zones:
            return ()

        def elsewhere(node: core_v1.Node) -> bool:
            labels = node.metadata.labels or {}
            if not any(k in labels for k in KEYS):
                return False  # a node without zones takes volumes of any
            return any((labels.get(k) or labels.get(OLD.get(k, ""), "")) not in values for k, values in zones)

        away: Mask = table.static(self.name, repr(zones).encode(), elsewhere, np.bool_)
        return [Refusal(OTHER_ZONE, away, resolvable=False)]
