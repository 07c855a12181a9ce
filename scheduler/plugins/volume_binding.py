"""VolumeBinding: a pod goes where its volumes are, or where they can be made.

Claims that are bound keep the pod to the nodes that their volumes can be reached from. Claims whose class waits for the
first pod (WaitForFirstConsumer) are bound with it: on each node the smallest free volume that satisfies a claim is chosen,
or the class's provisioner can make one there. Once a node is chosen this is written down (the volume's claimRef, the
claim's annotation selected-node), and the pod is bound when its claims are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from navarch.api import kinds, quantity, selectors
from navarch.api.affinity import node_selector_matches
from navarch.api.errors import StatusError
from navarch.api.types import core_v1
from navarch.api.volumes import (
    BOUND_BY_CONTROLLER,
    NO_PROVISIONER,
    SELECTED_NODE,
    capacity_of,
    class_of,
    fully_bound,
    size_of,
)
from navarch.client.transport import TransportError
from scheduler.framework.outcomes import Failed, Rejected
from scheduler.framework.plugin import (
    NODE_ADDED,
    NODE_CHANGED,
    POD_CHANGED,
    CycleState,
    Event,
    Handle,
    Plugin,
    Reach,
    Refusal,
)
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import Mask, NodeTable
from scheduler.state.pods import PodInfo
from scheduler.state.volumes import (
    CAPACITY_CHANGED,
    CLAIM_CHANGED,
    CLASS_CHANGED,
    DRIVER_CHANGED,
    VOLUME_CHANGED,
    Volumes,
)

Claim = core_v1.PersistentVolumeClaim
Volume = core_v1.PersistentVolume
Rows = npt.NDArray[np.intp]
Numbers = npt.NDArray[np.int32]

IMMEDIATE = "pod has unbound immediate PersistentVolumeClaims"
NODE_CONFLICT = "node(s) didn't match PersistentVolume's node affinity"
NO_VOLUME = "node(s) didn't find available persistent volumes to bind"
NO_SPACE = "node(s) did not have enough free storage"
NOT_THERE = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"

_encode = msgspec.json.Encoder(order="sorted").encode


class Needs(NamedTuple):
    """The needs of a pod's claims in this cycle, and the findings: for each late claim the number (in ``volumes``) of the
    volume that was chosen on each row, -1 where one must be made."""

    bound: tuple[Claim, ...]
    late: tuple[Claim, ...]
    volumes: list[Volume]
    chosen: dict[str, Numbers]


class Steps(NamedTuple):
    """The steps to be written down for one node."""

    bind: tuple[tuple[Volume, Claim], ...]
    provision: tuple[Claim, ...]


class VolumeBinding(Plugin):
    """``timeout``: seconds that binding may take."""

    name = "VolumeBinding"
    reads = NOTHING_ELSE
    events = frozenset(
        {
            CLAIM_CHANGED, VOLUME_CHANGED, CLASS_CHANGED, DRIVER_CHANGED, CAPACITY_CHANGED,
            NODE_ADDED, NODE_CHANGED, POD_CHANGED,
        }
    )  # fmt: skip

    def __init__(self, timeout: float = 600.0) -> None:
        self.timeout = timeout
        self._handle: Handle | None = None
        self._rows: dict[str, tuple[int, bytes, Rows]] = {}  # volume -> version of the nodes, affinity, rows

    def start(self, handle: Handle) -> None:
        self._handle = handle
        self._rows = {}

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.EVERYWHERE if pod.claims else Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return True

    def helps(self, event: Event, pod: PodInfo, table: NodeTable) -> bool:
        """A claim must be the pod's, a class must be one that its claims have, a node must have other labels."""
        volumes = table.volumes
        if event.kind == CLAIM_CHANGED:
            meta = event.object.metadata
            return any(c.key == f"{meta.namespace}/{meta.name}" for c in pod.claims)
        if event.kind in (CLASS_CHANGED, CAPACITY_CHANGED):
            name = event.object.metadata.name if event.kind == CLASS_CHANGED else event.object.storage_class_name
            claims = [volumes.claims.get(c.key) for c in pod.claims]
            return any(claim is None or class_of(claim) == name for claim in claims)
        if event.kind == NODE_CHANGED:
            return event.old is None or event.node is None or event.old.metadata.labels != event.node.metadata.labels
        return event.kind != POD_CHANGED

    # Deciding

    def pre_filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Mask | None:
        if not pod.claims:
            return None
        volumes = table.volumes
        claims = [self._claim(pod, c.key, c.ephemeral, volumes) for c in dict.fromkeys(pod.claims)]
        bound = tuple(c for c in claims if fully_bound(c))
        late = tuple(c for c in claims if not fully_bound(c) and volumes.binds_late(c) and not c.spec.volume_name)
        if len(bound) + len(late) < len(claims):
            raise Rejected(IMMEDIATE)
        state.data[self.name] = Needs(bound, late, [], {})
        return None

    def _claim(self, pod: PodInfo, key: str, ephemeral: bool, volumes: Volumes) -> Claim:
        name = key.partition("/")[2]
        claim = volumes.claims.get(key)
        if claim is None:
            if ephemeral:
                text = f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
                raise Rejected(text)
            raise Rejected(f'persistentvolumeclaim "{name}" not found')
        if claim.status.phase == "Lost":
            raise Rejected(
                f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{claim.spec.volume_name}"'
            )
        if claim.metadata.deletion_timestamp:
            raise Rejected(f'persistentvolumeclaim "{name}" is being deleted')
        owners = claim.metadata.owner_references or ()
        if ephemeral and not any(o.controller and o.uid == pod.uid for o in owners):
            raise Rejected(f"PVC {key} was not created for pod {pod.key} (pod is not owner)")
        return claim

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Sequence[Refusal]:
        needs: Needs | None = state.data.get(self.name)
        if needs is None:
            return ()
        conflict, absent = self._bound(needs.bound, table)
        nothing, full = self._late(needs, table)
        reasons = ((NODE_CONFLICT, conflict), (NOT_THERE, absent), (NO_VOLUME, nothing), (NO_SPACE, full))
        return [Refusal(text, mask, resolvable=False) for text, mask in reasons]

    def _bound(self, claims: Sequence[Claim], table: NodeTable) -> tuple[Mask, Mask]:
        """Rows that a volume cannot be reached from, and rows refused because a volume is not there."""
        conflict, absent = np.zeros(table.size, bool), np.zeros(table.size, bool)
        for claim in claims:
            volume = table.volumes.volumes.get(claim.spec.volume_name or "")
            if volume is None:
                absent |= ~conflict
            elif (rows := self.rows_of(volume, table)) is not None:
                away = np.ones(table.size, bool)
                away[rows] = False
                conflict |= away & ~absent
        return conflict, absent

    def _late(self, needs: Needs, table: NodeTable) -> tuple[Mask, Mask]:
        """Rows without a volume for a late claim and nobody who could make one, and rows without the space."""
        nothing, full = np.zeros(table.size, bool), np.zeros(table.size, bool)
        if not needs.late:
            return nothing, full
        pinned = [c for c in needs.late if table.volumes.selected_node(c)]
        for claim in pinned:
            elsewhere = np.ones(table.size, bool)
            row = table.rows.get(table.volumes.selected_node(claim))
            if row is not None:
                elsewhere[row] = False
            nothing |= elsewhere
        free = sorted((c for c in needs.late if c not in pinned), key=size_of)
        for claim in free:
            needs.chosen[_key(claim)] = self._choose(claim, needs, table)
        for claim in [*pinned, *free]:
            open_ = ~(nothing | full)
            chosen = needs.chosen.get(_key(claim))
            must = open_ if chosen is None else open_ & (chosen < 0)
            if must.any():
                provisionable, room = self._provisioned(claim, table)
                nothing |= must & ~provisionable
                full |= must & provisionable & ~room
        return nothing, full

    def _choose(self, claim: Claim, needs: Needs, table: NodeTable) -> Numbers:
        """The smallest volume that satisfies the claim, on each row."""
        chosen = np.full(table.size, -1, np.int32)
        unserved = len(table)
        for volume in candidates(claim, table.volumes):
            number = len(needs.volumes)
            needs.volumes.append(volume)
            rows = self.rows_of(volume, table)
            here = np.flatnonzero(table.valid) if rows is None else rows
            here = here[chosen[here] < 0]
            for other in needs.chosen.values():  # not for two claims of one pod
                same_volume = [n for n, v in enumerate(needs.volumes[:-1]) if v.metadata.name == volume.metadata.name]
                here = here[~np.isin(other[here], same_volume)]
            chosen[here] = number
            unserved -= len(here)
            if unserved <= 0:
                break
        return chosen

    def _provisioned(self, claim: Claim, table: NodeTable) -> tuple[Mask, Mask]:
        """Rows for which the claim's class can have a volume made, and those with the space for it."""
        volumes = table.volumes
        name = class_of(claim)
        storage_class = volumes.classes.get(name)
        none = np.zeros(table.size, bool)
        if storage_class is None or not storage_class.provisioner or storage_class.provisioner == NO_PROVISIONER:
            return none, none
        terms = storage_class.allowed_topologies or ()
        within_topology = table.valid
        if terms:
            within_topology = table.static("allowed-topologies", _encode(terms), lambda n: topology_matches(terms, n), np.bool_)
        driver = volumes.drivers.get(storage_class.provisioner)
        if driver is None or not driver.spec.storage_capacity:
            return within_topology, table.valid
        room = none
        for capacity in volumes.capacities.values():
            most = capacity.maximum_volume_size or capacity.capacity
            reachable = capacity.node_topology
            if capacity.storage_class_name != name or reachable is None or most is None:
                continue
            if quantity.value(most) >= size_of(claim):
                selector = selectors.from_struct(reachable)
                room = room | table.static("capacity", _encode(reachable), _matcher(selector), np.bool_)
        return within_topology, room

    def rows_of(self, volume: Volume, table: NodeTable) -> Rows | None:
        """The rows from which a volume can be reached; None for all. Kept until nodes or its affinity change."""
        required = volume.spec.node_affinity.required if volume.spec.node_affinity else None
        if required is None:
            return None
        name, key = volume.metadata.name or "", _encode(required)
        cached = self._rows.get(name)
        if cached is None or cached[:2] != (table.version, key):
            rows = [r for r in _likely(required, table) if _matches(required, table.nodes[r])]
            cached = self._rows[name] = table.version, key, np.array(rows, np.intp)
        return cached[2]

    # Doing

    def reserve(self, state: CycleState, pod: PodInfo, node: str) -> None:
        needs: Needs | None = state.data.get(self.name)
        if needs is None or self._handle is None:
            return
        table = self._handle.table
        row, volumes = table.rows[node], table.volumes
        bind: list[tuple[Volume, Claim]] = []
        provision: list[Claim] = []
        for claim in needs.late:
            chosen = needs.chosen.get(_key(claim))
            number = -1 if chosen is None else int(chosen[row])
            if number < 0:
                provision.append(claim)
                volumes.assumed_nodes[_key(claim)] = node
            else:
                volume = needs.volumes[number]
                bind.append((volume, claim))
                volumes.assumed_claims[volume.metadata.name or ""] = _key(claim)
        state.data[self.name + "/steps"] = Steps(tuple(bind), tuple(provision))

    def unreserve(self, state: CycleState, pod: PodInfo, node: str) -> None:
        steps: Steps | None = state.data.get(self.name + "/steps")
        if steps is not None and self._handle is not None:
            volumes = self._handle.table.volumes
            for volume, _ in steps.bind:
                volumes.assumed_claims.pop(volume.metadata.name or "", None)
            for claim in steps.provision:
                volumes.assumed_nodes.pop(_key(claim), None)

    def pre_bind_needed(self, state: CycleState, pod: PodInfo, node: str) -> bool:
        steps: Steps | None = state.data.get(self.name + "/steps")
        return steps is not None and any(steps)

    async def pre_bind(self, state: CycleState, pod: PodInfo, node: str) -> None:
        steps: Steps | None = state.data.get(self.name + "/steps")
        if steps is None or not any(steps) or self._handle is None:
            return
        try:
            await self._write(steps, node)
            async with asyncio.timeout(self.timeout):
                while not self._done(steps, pod, node):
                    await self._handle.table.volumes.change()
        except TimeoutError:
            raise Failed("binding volumes: context deadline exceeded") from None

    def post_bind(self, state: CycleState, pod: PodInfo, node: str) -> None:
        self.unreserve(state, pod, node)  # all is in the API by now

    async def _write(self, steps: Steps, node: str) -> None:
        """Each with the resourceVersion that was decided on: who was first with a volume has it."""
        assert self._handle is not None
        client = self._handle.client
        try:
            for volume, claim in steps.bind:
                if volume.spec.claim_ref is not None and volume.spec.claim_ref.uid:
                    continue  # prebound already
                new = kinds.copy(volume)
                meta = claim.metadata
                new.spec.claim_ref = core_v1.ObjectReference(
                    api_version="v1", kind="PersistentVolumeClaim", namespace=meta.namespace, name=meta.name,
                    uid=meta.uid, resource_version=meta.resource_version,
                )  # fmt: skip
                if volume.spec.claim_ref is None:
                    new.metadata.annotations = (new.metadata.annotations or {}) | {BOUND_BY_CONTROLLER: "yes"}
                await client[Volume].update(new)
            for claim in steps.provision:
                if (claim.metadata.annotations or {}).get(SELECTED_NODE) != node:
                    changed = kinds.copy(claim)
                    changed.metadata.annotations = (changed.metadata.annotations or {}) | {SELECTED_NODE: node}
                    await client[Claim].update(changed)
        except (StatusError, TransportError) as error:
            raise Failed(f"binding volumes: {error}") from error

    def _done(self, steps: Steps, pod: PodInfo, node: str) -> bool:
        """Whether all claims are bound. Raises Failed if they never will be, with this node."""
        assert self._handle is not None
        table = self._handle.table
        volumes, here = table.volumes, table.nodes[table.rows[node]] if node in table.rows else None
        if here is None:
            raise Failed(f'binding volumes: failed to get node "{node}"')
        done = True
        for volume, claim in steps.bind:
            name = volume.metadata.name or ""
            now, bound = volumes.volumes.get(name), volumes.claims.get(_key(claim))
            if now is None or bound is None:
                raise Failed(f'binding volumes: failed to check binding: "{name}" or "{_key(claim)}" is gone')
            if now.metadata.resource_version == volume.metadata.resource_version and volume.spec.claim_ref is None:
                done = False  # our own write is not here yet
                continue
            if now.spec.claim_ref is None or not now.spec.claim_ref.uid:
                raise Failed(f'binding volumes: ClaimRef got reset for pv "{name}"')
            done = done and fully_bound(bound)
        for claim in steps.provision:
            bound = volumes.claims.get(_key(claim))
            if bound is None:
                raise Failed(f'binding volumes: failed to check provisioning pvc: "{_key(claim)}" is gone')
            if bound.metadata.resource_version == claim.metadata.resource_version and not fully_bound(bound):
                done = False
                continue
            if (bound.metadata.annotations or {}).get(SELECTED_NODE) != node:
                raise Failed(f'binding volumes: provisioning failed for PVC "{claim.metadata.name}"')
            pv = volumes.volumes.get(bound.spec.volume_name or "")
            required = pv.spec.node_affinity.required if pv is not None and pv.spec.node_affinity else None
            if pv is not None and required is not None and not _matches(required, here):
                text = f'pv "{pv.metadata.name}" node affinity doesn\'t match node "{node}"'
                raise Failed(f"binding volumes: {text}")
            done = done and fully_bound(bound)
        return done


def candidates(claim: Claim, volumes: Volumes) -> list[Volume]:
    """The volumes that satisfy a claim wherever it is, smallest first; only the one that is meant for it, if there is one."""
    key, uid, spec = _key(claim), claim.metadata.uid or "", claim.spec
    selector = selectors.from_struct(spec.selector) if spec.selector else None
    out: list[Volume] = []
    for volume in volumes.by_class.get(class_of(claim), {}).values():
        owner, owner_uid = volumes.claimed_by(volume)
        mine = owner == key and owner_uid in ("", uid)
        if owner and not mine:
            continue
        if capacity_of(volume) < size_of(claim) or volume.metadata.deletion_timestamp:
            continue
        if (volume.spec.volume_mode or "Filesystem") != (spec.volume_mode or "Filesystem"):
            continue
        if (volume.spec.volume_attributes_class_name or "") != (spec.volume_attributes_class_name or ""):
            continue
        if mine:
            return [volume]
        if volume.status.phase != "Available" or not set(spec.access_modes or ()) <= set(
            volume.spec.access_modes or ()
        ):
            continue
        if selector is None or selector.matches(volume.metadata.labels or {}):
            out.append(volume)
    out.sort(key=capacity_of)
    return out


def _matcher(selector: selectors.LabelSelector) -> Callable[[core_v1.Node], bool]:
    return lambda node: selector.matches(node.metadata.labels or {})


def topology_matches(terms: Sequence[core_v1.TopologySelectorTerm], node: core_v1.Node) -> bool:
    """Whether a node is in one of a class's allowed topologies."""
    labels = node.metadata.labels or {}
    return any(
        all(e.key in labels and labels[e.key] in e.values for e in t.match_label_expressions or ()) for t in terms
    )


def _matches(required: core_v1.NodeSelector, node: core_v1.Node | None) -> bool:
    meta = node.metadata if node else None
    return meta is not None and node_selector_matches(required, meta.name or "", meta.labels or {})


def _likely(required: core_v1.NodeSelector, table: NodeTable) -> list[int]:
    """Rows that may match: by a label that each term demands, so that a local volume costs no pass over all nodes."""
    out: dict[int, None] = {}
    for term in required.node_selector_terms:
        by_label = next((r for r in term.match_expressions or () if r.operator == "In"), None)
        if by_label is None:
            return list(table.rows.values())
        for value in by_label.values or ():
            out |= dict.fromkeys(table.rows_with(by_label.key, value))
    return list(out)


def _key(claim: Claim) -> str:
    return f"{claim.metadata.namespace}/{claim.metadata.name}"
