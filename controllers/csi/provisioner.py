"""Makes volumes for claims of a driver's classes, and deletes them when their claims are gone.

A volume is named after its claim's uid before it is made, and the driver makes only one of a name. So this may die
between the driver's answer and the PersistentVolume. Events and annotations are external-provisioner's.
"""

from __future__ import annotations

from typing import Any

from controllers.controller import Context, Controller
from controllers.csi import topology
from controllers.csi.driver import (
    PREFIX,
    RPC,
    BadParameters,
    Claim,
    Driver,
    SecretRef,
    Volume,
    capability,
    secret,
    secret_ref,
)
from navarch.api import quantity, volumes
from navarch.api.errors import AlreadyExists, NotFound
from navarch.api.types import core_v1, meta_v1, storage_v1
from navarch.client.events import NORMAL, WARNING
from navarch.rpc.sockets import RpcError
from protos import csi_pb2 as csi

FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
DELETION_SECRET = "volume.kubernetes.io/provisioner-deletion-secret-"
BY_VOLUME = "volume"


class Provisioner(Controller):
    """Keys are claims (``namespace/name``) and volumes (``name``). ``node``: makes only what is for this node; "" for all."""

    name = "csi-provisioner"

    def __init__(self, context: Context, driver: Driver, node: str) -> None:
        super().__init__(context)
        self.driver, self.node = driver, node
        self.events = context.recorder(driver.name)
        self.claims = self.informer(Claim)
        self.volumes = self.informer(Volume)
        self.classes = self.informer(storage_v1.StorageClass)
        self.nodes = self.informer(core_v1.Node)
        self.csi_nodes = self.informer(storage_v1.CSINode)
        by_volume = {BY_VOLUME: lambda a: [a.spec.source.persistent_volume_name or ""]}
        self.attachments = self.informer(storage_v1.VolumeAttachment, by_volume)
        self.enqueues(self.claims, self._concerns)
        self.enqueues(self.volumes, self._is_ours)
        self.attachments.add_handler(lambda kind, old, new: self.queue.add(new.spec.source.persistent_volume_name or ""))

    def _concerns(self, claim: Claim) -> bool:
        return (claim.metadata.annotations or {}).get(volumes.STORAGE_PROVISIONER) == self.driver.name

    def _is_ours(self, volume: Volume) -> bool:
        return (volume.metadata.annotations or {}).get(volumes.PROVISIONED_BY) == self.driver.name

    async def reconcile(self, key: str) -> float | None:
        if "/" in key:
            claim = self.claims.get_key(key)
            if claim is not None and claim.metadata.deletion_timestamp is None and not claim.spec.volume_name:
                await self._provision(claim)
        elif (volume := self.volumes.get_key(key)) is not None:
            await self._reclaim(volume)
        return None

    # --- making ---

    async def _provision(self, claim: Claim) -> None:
        storage_class = self.classes.get_key(volumes.class_of(claim))
        if storage_class is None or storage_class.provisioner != self.driver.name or not self._concerns(claim):
            return  # anyone may write the annotation; the class decides who makes volumes
        selected = (claim.metadata.annotations or {}).get(volumes.SELECTED_NODE, "")
        if storage_class.volume_binding_mode == "WaitForFirstConsumer" and not selected:
            return
        if self.node and selected != self.node:
            return  # another node's
        name = f"pvc-{claim.metadata.uid}"
        if self.volumes.get_key(name) is not None:
            return
        try:
            volume = await self._make(claim, storage_class, name, selected)
        except (BadParameters, RpcError) as error:
            text = f'failed to provision volume with StorageClass "{storage_class.metadata.name}": {error}'
            self.events.event(claim, WARNING, "ProvisioningFailed", text)
            if isinstance(error, BadParameters):
                return  # a change of the claim or its class brings the key back
            if error.code == "RESOURCE_EXHAUSTED" and selected:
                await self._choose_again(claim)
            raise
        try:
            await self.client[Volume].create(volume)
        except AlreadyExists:
            return
        self.events.event(claim, NORMAL, "ProvisioningSucceeded", f"Successfully provisioned volume {name}")

    async def _make(self, claim: Claim, storage_class: storage_v1.StorageClass, name: str, selected: str) -> Volume:
        """Has the driver make a volume; the object for it. Raises BadParameters, RpcError."""
        if claim.spec.volume_mode == "Block":
            raise BadParameters("block volumes are not supported: use volumeMode Filesystem")
        if claim.spec.selector is not None:
            raise BadParameters("claim Selector is not supported")
        if claim.spec.data_source is not None or claim.spec.data_source_ref is not None:
            raise BadParameters("data sources (snapshots, clones) are not supported")
        if RPC.CREATE_DELETE_VOLUME not in self.driver.capabilities:
            raise BadParameters(f"driver {self.driver.name} cannot make volumes")
        parameters, options = storage_class.parameters or {}, storage_class.mount_options or []
        fs_type = parameters.get(PREFIX + "fstype", "")
        modes = claim.spec.access_modes or []
        request = csi.CreateVolumeRequest(
            name=name,
            capacity_range=csi.CapacityRange(required_bytes=volumes.size_of(claim)),
            volume_capabilities=[
                capability(modes, fs_type, options, RPC.SINGLE_NODE_MULTI_WRITER in self.driver.capabilities)
            ],
            parameters={key: value for key, value in parameters.items() if not key.startswith(PREFIX)},
            secrets=await secret(self.client, secret_ref(parameters, "provisioner", claim, name)),
            accessibility_requirements=self._requirements(storage_class, selected),
            mutable_parameters=await self._attributes(claim),
        )
        answer = await self.driver.controller("CreateVolume", request, csi.CreateVolumeResponse)
        return self._object(claim, storage_class, name, answer.volume, fs_type)

    async def _attributes(self, claim: Claim) -> dict[str, str]:
        name = claim.spec.volume_attributes_class_name
        if not name:
            return {}
        attributes = await self.client[storage_v1.VolumeAttributesClass].get(name)
        if attributes.driver_name != self.driver.name:
            raise BadParameters(f"VolumeAttributesClass {name} is for driver {attributes.driver_name}")
        return dict(attributes.parameters or {})

    def _requirements(self, storage_class: storage_v1.StorageClass, selected: str) -> csi.TopologyRequirement | None:
        """The places where the volume may be: the selected node's, else those of all nodes. Raises BadParameters."""
        if not self.driver.has_topology:
            return None
        names = [selected] if selected else sorted(n.metadata.name or "" for n in self.csi_nodes.list())
        places = topology.distinct(self._place(name) for name in names)
        terms = storage_class.allowed_topologies or []
        if not (places := [place for place in places if topology.allowed(place, terms)]):
            raise BadParameters(f"no topology of {selected or 'any node'} is known, or allowed by the class")
        segments = [csi.Topology(segments=place) for place in places]
        return csi.TopologyRequirement(requisite=segments, preferred=segments)

    def _place(self, node: str) -> topology.Segments | None:
        return topology.of_node(self.driver.name, self.csi_nodes.get_key(node), self.nodes.get_key(node))

    def _object(
        self, claim: Claim, storage_class: storage_v1.StorageClass, name: str, volume: csi.Volume, fs_type: str
    ) -> Volume:
        parameters = storage_class.parameters or {}

        def ref(use: str) -> core_v1.SecretReference | None:
            named = secret_ref(parameters, use, claim, name)
            return core_v1.SecretReference(namespace=named[0], name=named[1]) if named is not None else None

        annotations = {volumes.PROVISIONED_BY: self.driver.name}
        if (deletion := secret_ref(parameters, "provisioner", claim, name)) is not None:
            annotations |= {DELETION_SECRET + "namespace": deletion[0], DELETION_SECRET + "name": deletion[1]}
        policy = storage_class.reclaim_policy or "Delete"
        size = max(volume.capacity_bytes, 0) or volumes.size_of(claim)
        return Volume(
            metadata=meta_v1.ObjectMeta(
                name=name, annotations=annotations, finalizers=[FINALIZER] if policy == "Delete" else None
            ),
            spec=core_v1.PersistentVolumeSpec(
                access_modes=claim.spec.access_modes, capacity={"storage": quantity.from_value(size, "BinarySI")},
                claim_ref=core_v1.ObjectReference(
                    api_version="v1", kind="PersistentVolumeClaim", namespace=claim.metadata.namespace,
                    name=claim.metadata.name, uid=claim.metadata.uid, resource_version=claim.metadata.resource_version,
                ),
                csi=core_v1.CSIPersistentVolumeSource(
                    driver=self.driver.name, volume_handle=volume.volume_id, fs_type=fs_type or None,
                    volume_attributes=dict(sorted(volume.volume_context.items())) or None,
                    node_stage_secret_ref=ref("node-stage"), node_publish_secret_ref=ref("node-publish"),
                    node_expand_secret_ref=ref("node-expand"), controller_publish_secret_ref=ref("controller-publish"),
                    controller_expand_secret_ref=ref("controller-expand"),
                ),
                node_affinity=topology.affinity([dict(t.segments) for t in volume.accessible_topology]),
                mount_options=storage_class.mount_options, persistent_volume_reclaim_policy=policy,
                storage_class_name=storage_class.metadata.name, volume_mode="Filesystem",
                volume_attributes_class_name=claim.spec.volume_attributes_class_name,
            ),
            status=core_v1.PersistentVolumeStatus(),
        )  # fmt: skip

    async def _choose_again(self, claim: Claim) -> None:
        """No room for the volume at the node: the scheduler shall choose another one."""
        change: dict[str, Any] = {"metadata": {"annotations": {volumes.SELECTED_NODE: None}}}
        await self.client[Claim].patch(claim.metadata.name or "", claim.metadata.namespace, change)

    # --- deleting ---

    async def _reclaim(self, volume: Volume) -> None:
        """Deletes a volume whose claim is gone, if its policy says so; never one that a node may still have."""
        spec, name = volume.spec, volume.metadata.name or ""
        if not self._is_ours(volume) or spec.csi is None or spec.csi.driver != self.driver.name:
            return
        if self.node and not topology.is_at(volume, self._place(self.node)):
            return
        wants = spec.persistent_volume_reclaim_policy == "Delete"
        is_going, finalizers = volume.metadata.deletion_timestamp is not None, volume.metadata.finalizers or []
        if not wants or volume.status.phase != "Released":
            if is_going and FINALIZER in finalizers and not wants:
                await self._let_go(volume)
            return
        if is_going and FINALIZER not in finalizers:
            return  # deleted already
        if self.attachments.by_index(BY_VOLUME, name):
            self.events.event(volume, WARNING, "VolumeFailedDelete", f"persistentvolume {name} is still attached to a node")
            return  # the attachment's end brings the key back
        try:
            request = csi.DeleteVolumeRequest(
                volume_id=spec.csi.volume_handle, secrets=await secret(self.client, self._deletion_secret(volume))
            )
            await self.driver.controller("DeleteVolume", request, csi.DeleteVolumeResponse)
        except RpcError as error:
            self.events.event(volume, WARNING, "VolumeFailedDelete", str(error))
            raise
        if not is_going:
            try:
                await self.client[Volume].delete(name, uid=volume.metadata.uid)
                volume = await self.client[Volume].get(name)
            except NotFound:
                return
        await self._let_go(volume)

    def _deletion_secret(self, volume: Volume) -> SecretRef | None:
        annotations = volume.metadata.annotations or {}
        name = annotations.get(DELETION_SECRET + "name")
        return (annotations.get(DELETION_SECRET + "namespace", ""), name) if name else None

    async def _let_go(self, volume: Volume) -> None:
        finalizers = [f for f in volume.metadata.finalizers or () if f != FINALIZER]
        change = {"metadata": {"finalizers": finalizers or None, "resourceVersion": volume.metadata.resource_version}}
        try:
            await self.client[Volume].patch(volume.metadata.name or "", None, change)
        except NotFound:
            pass
