"""VolumeRestrictions: what may not be mounted twice: ReadWriteOncePod claims, and some disks that pods name directly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.framework.outcomes import Rejected
from scheduler.framework.plugin import NODE_ADDED, POD_GONE, CycleState, Event, Plugin, Reach, Refusal
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import Mask, NodeTable
from scheduler.state.pods import Disk, PodInfo
from scheduler.state.volumes import CLAIM_CHANGED

IN_USE = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
DISK = "node(s) had no available disk"


class VolumeRestrictions(Plugin):
    name = "VolumeRestrictions"
    reads = NOTHING_ELSE
    events = frozenset({POD_GONE, NODE_ADDED, CLAIM_CHANGED})

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        if pod.claims:
            return Reach.EVERYWHERE
        return Reach.ITS_NODE if pod.disks else Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def helps(self, event: Event, pod: PodInfo, table: NodeTable) -> bool:
        other = event.pod
        if other is not None:
            same = {c.key for c in pod.claims} & {c.key for c in other.claims}
            return bool(same) or any(conflict(a, b) for a in pod.disks for b in other.disks)
        if event.object is not None:
            meta = event.object.metadata
            return any(c.key == f"{meta.namespace}/{meta.name}" for c in pod.claims)
        return bool(pod.disks)

    def pre_filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Mask | None:
        for claim in pod.claims:
            if claim.key not in table.volumes.claims and not claim.ephemeral:
                raise Rejected(f'persistentvolumeclaim "{claim.key.partition("/")[2]}" not found')
        return None

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        if not pod.claims and not pod.disks:
            return ()
        out: list[Refusal] = []
        usage = table.volumes.usage
        conflicts = np.zeros(table.size, bool)
        for disk in pod.disks:
            for row, others in usage.disks.get((disk.kind, disk.id), {}).items():
                conflicts[row] |= any(conflict(disk, other) for other in others)
        if conflicts.any():
            out.append(Refusal(DISK, conflicts))
        for claim in pod.claims:
            claim_object = table.volumes.claims.get(claim.key)
            alone = claim_object is not None and "ReadWriteOncePod" in (claim_object.spec.access_modes or ())
            if alone and usage.claims.get(claim.key):
                out.append(Refusal(IN_USE, table.valid & ~conflicts))  # wherever it is used
                break
        return out


def conflict(a: Disk, b: Disk) -> bool:
    """Whether two pods of one node cannot both have their disk."""
    if (a.kind, a.id) != (b.kind, b.id) or (a.read_only and b.read_only):
        return False
    return not a.monitors or bool(set(a.monitors) & set(b.monitors))
