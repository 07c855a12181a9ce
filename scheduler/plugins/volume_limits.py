"""NodeVolumeLimits: a driver attaches only so many volumes to a node, as the node's CSINode says.

Those that count are the volumes of the node's pods, and those that a VolumeAttachment says are still, or already, attached.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from navarch.api.types import storage_v1
from navarch.api.volumes import class_of
from scheduler.framework.plugin import NODE_ADDED, POD_GONE, CycleState, Event, Plugin, Reach, Refusal
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo
from scheduler.state.volumes import ATTACHMENT_CHANGED, CLAIM_CHANGED, DRIVER_CHANGED, VOLUME_CHANGED, Volumes

TOO_MANY = "node(s) exceed max volume count"


class NodeVolumeLimits(Plugin):
    name = "NodeVolumeLimits"
    reads = NOTHING_ELSE
    events = frozenset({DRIVER_CHANGED, NODE_ADDED, POD_GONE, CLAIM_CHANGED, VOLUME_CHANGED, ATTACHMENT_CHANGED})

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.ITS_NODE if pod.claims else Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def helps(self, event: Event, pod: PodInfo, table: NodeTable) -> bool:
        if event.kind == ATTACHMENT_CHANGED:  # one that goes, or changes, makes room
            return event.old is not None and event.old.spec.attacher in self._handles(pod, table)
        return event.kind != POD_GONE or (event.pod is not None and bool(event.pod.claims))

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        handles_by_driver = self._handles(pod, table)
        if not handles_by_driver:
            return ()
        full = np.zeros(table.size, bool)
        for name, row in table.rows.items():
            if name in table.volumes.csi_nodes and self._full(handles_by_driver, table, row, name):
                full[row] = True
        return [Refusal(TOO_MANY, full)]

    def refuses(self, state: CycleState, pod: PodInfo, table: NodeTable, row: int) -> Sequence[str]:
        node = table.nodes[row]
        name = (node.metadata.name or "") if node else ""
        handles_by_driver = self._handles(pod, table)
        return [TOO_MANY] if handles_by_driver and self._full(handles_by_driver, table, row, name) else []

    def _handles(self, pod: PodInfo, table: NodeTable) -> dict[str, set[str]]:
        return attached((c.key for c in pod.claims), table.volumes)

    def _full(self, handles_by_driver: dict[str, set[str]], table: NodeTable, row: int, name: str) -> bool:
        volumes = table.volumes
        csi_node = volumes.csi_nodes.get(name)
        here, attachments = volumes.usage.on.get(row, {}), volumes.attached_to.get(name, {})
        for driver in csi_node.spec.drivers if csi_node else ():
            most = driver.allocatable.count if driver.allocatable else None
            mine = handles_by_driver.get(driver.name)
            if most is None or not mine or len(here) + len(attachments) + len(mine) <= most:
                continue  # not even if all were this driver's
            others = attached(here, volumes).get(driver.name, set()) | handles(attachments.values(), driver.name, volumes)
            new = mine - others
            if new and len(others) + len(new) > most:
                return True
        return False


def handles(attachments: Iterable[storage_v1.VolumeAttachment], driver: str, volumes: Volumes) -> set[str]:
    """The volumes that a driver has attached, as these attachments say."""
    mine = [a.spec.source.persistent_volume_name or "" for a in attachments if a.spec.attacher == driver]
    sources = [volumes.volumes[name].spec.csi for name in mine if name in volumes.volumes]
    return {csi.volume_handle for csi in sources if csi is not None}


def attached(claims: Iterable[str], volumes: Volumes) -> dict[str, set[str]]:
    """driver -> the volumes that it must attach for these claims; one that is still to be made stands under its claim."""
    out: dict[str, set[str]] = {}
    for key in claims:
        claim = volumes.claims.get(key)
        volume = volumes.volumes.get(claim.spec.volume_name or "") if claim else None
        if volume is not None:
            if volume.spec.csi is not None:
                out.setdefault(volume.spec.csi.driver, set()).add(volume.spec.csi.volume_handle)
        elif claim is not None:
            storage_class = volumes.classes.get(class_of(claim))
            if storage_class is not None and storage_class.provisioner:
                out.setdefault(storage_class.provisioner, set()).add("claim/" + key)
    return out
