"""This machine as a Node object: registered once, its Lease renewed every few seconds, its status kept true.

The Lease is the heartbeat; the status is written only when something changed, or every five minutes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from navarch.api import quantity, resources, wellknown
from navarch.api.errors import AlreadyExists, Conflict, NotFound, StatusError
from navarch.api.times import format_micro, format_time
from navarch.api.types import coordination_v1, core_v1, meta_v1
from navarch.client.client import Client
from navarch.client.transport import TransportError
from navarch.world import Backoff, World
from nodeagent.config import VERSION, Config
from nodeagent.node import thresholds
from nodeagent.node.thresholds import Threshold
from nodeagent.runtime.runtime import Runtime, RuntimeError_

log = logging.getLogger(__name__)
LEASES = "kube-node-lease"
NO_RANGE = "the node has no pod CIDR yet"
_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


class NodeKeeper:
    """Registration, Lease and status of this node. ``node`` is the object as last seen."""

    def __init__(self, config: Config, client: Client, world: World, runtime: Runtime) -> None:
        self.config, self.world, self.runtime = config, world, runtime
        self.volumes_in_use: Callable[[], list[str]] = list
        self._nodes = client[core_v1.Node]
        self._leases = client[coordination_v1.Lease]
        self.node: core_v1.Node | None = None
        self.port = config.port
        self.runtime_error = ""
        self.network_error = NO_RANGE  # until the runtime knows the node's pod range
        self._reported = 0.0
        self._look = asyncio.Event()
        self._images: list[core_v1.ContainerImage] | None = None
        self.capacity = capacity(config)
        self.devices: Callable[[], dict[str, tuple[int, int]]] = dict  # resource -> (capacity, allocatable), of device plugins
        self._own_allocatable = _allocatable(self.capacity, config.thresholds)
        self.shutting_down = ""  # why the node is not ready although nothing is wrong with it
        self.pressure: tuple[str, ...] = ()  # the pressure conditions that are true; see set_pressure

    async def register(self) -> core_v1.Node:
        """Creates the Node, or takes it over; tries until it works."""
        backoff = Backoff(self.world, first=0.1, most=7.0)
        while True:
            try:
                self.node = await self._register()
                self._reported = self.world.monotonic()
                log.info("registered node %s", self.config.node_name)
                return self.node
            except (StatusError, TransportError) as error:
                log.warning("cannot register node %s: %s", self.config.node_name, error)
                await self.world.sleep(backoff.next())

    async def _register(self) -> core_v1.Node:
        config = self.config
        desired = core_v1.Node(
            metadata=meta_v1.ObjectMeta(
                name=config.node_name,
                labels=self._labels() | config.labels,
                annotations={"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            ),
            spec=core_v1.NodeSpec(
                taints=_taints(config.taints) or None,
                pod_cidr=config.pod_cidr or None,  # who routes pods decides; else the node IPAM controller does
                pod_cidrs=[config.pod_cidr] if config.pod_cidr else None,
            ),
            status=self.status(None),
        )
        if config.register_node:
            try:
                return await self._nodes.create(desired)
            except AlreadyExists:
                pass
        current = await self._nodes.get(config.node_name)
        labels = {k: v for k, v in self._labels().items() if (current.metadata.labels or {}).get(k) != v}
        if labels:
            await self._nodes.patch(config.node_name, None, {"metadata": {"labels": labels}}, "strategic")
        return await self._write_status(current)

    def _labels(self) -> dict[str, str]:
        arch = _ARCH.get(platform.machine(), platform.machine())
        return {
            wellknown.HOSTNAME: self.config.node_name,
            wellknown.OS: "linux",
            wellknown.ARCH: arch,
            wellknown.BETA_OS: "linux",
            wellknown.BETA_ARCH: arch,
        }

    # --- Lease ---

    async def keep_lease(self) -> None:
        """Renews the Lease until cancelled."""
        lease: coordination_v1.Lease | None = None
        backoff = Backoff(self.world, first=0.2, most=7.0)
        while True:
            try:
                lease = await self._renew(lease)
                backoff.reset()
                await self.world.sleep(self.config.lease_renew)
            except (Conflict, NotFound, AlreadyExists):
                lease = None
                await self.world.sleep(backoff.next())
            except (StatusError, TransportError) as error:
                log.warning("cannot renew lease: %s", error)
                lease = None
                await self.world.sleep(backoff.next())

    async def _renew(self, lease: coordination_v1.Lease | None) -> coordination_v1.Lease:
        name, now = self.config.node_name, format_micro(self.world.now())
        if lease is None:
            try:
                lease = await self._leases.get(name, LEASES)
            except NotFound:
                return await self._leases.create(
                    coordination_v1.Lease(
                        metadata=meta_v1.ObjectMeta(name=name, namespace=LEASES, owner_references=self._owner()),
                        spec=coordination_v1.LeaseSpec(
                            holder_identity=name, lease_duration_seconds=self.config.lease_seconds, renew_time=now
                        ),
                    )
                )
        spec = msgspec.structs.replace(
            lease.spec, holder_identity=name, lease_duration_seconds=self.config.lease_seconds, renew_time=now
        )
        return await self._leases.update(msgspec.structs.replace(lease, spec=spec))

    def _owner(self) -> list[meta_v1.OwnerReference] | None:
        if self.node is None or not self.node.metadata.uid:
            return None
        meta = self.node.metadata
        return [meta_v1.OwnerReference(api_version="v1", kind="Node", name=meta.name or "", uid=meta.uid or "")]

    # --- status ---

    def look_again(self) -> None:
        """Something that the status shows may have changed."""
        self._look.set()

    def observe(self, node: core_v1.Node) -> None:
        """The Node object as the informer has it now."""
        self.node = node
        if extended(node.status.capacity) != extended(node.status.allocatable):
            self.look_again()

    @property
    def allocatable(self) -> dict[str, quantity.Quantity]:
        """The resources that pods may have: the node's own, and extended ones that its object has been given."""
        return self._own_allocatable | (extended(self.node.status.allocatable) if self.node is not None else {})

    def set_pressure(self, conditions: tuple[str, ...]) -> None:
        """Which pressure conditions are true from now on."""
        if conditions != self.pressure:
            self.pressure = conditions
            self.look_again()

    async def keep_status(self) -> None:
        """Looks at the node's condition again and again and writes what changed, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self.config.status_frequency):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            try:
                await self._list_images()
                node = self.node or await self._nodes.get(self.config.node_name)
                late = self.world.monotonic() - self._reported >= self.config.status_report
                if late or _essence(self.status(node)) != _essence(node.status):
                    self.node = await self._write_status(node)
                    self._reported = self.world.monotonic()
            except NotFound:
                log.warning("node %s is gone, registering it again", self.config.node_name)
                await self.register()
            except (StatusError, TransportError) as error:
                log.warning("cannot write node status: %s", error)

    async def _list_images(self) -> None:
        try:
            images = await self.runtime.images()
            self.runtime_error = ""
        except RuntimeError_ as error:
            self.runtime_error = error.message
            return
        largest = sorted(images, key=lambda i: (-i.size, i.id))[:50]
        names = [(list(i.digests) + list(i.tags) or [i.id], i.size) for i in largest]
        self._images = [core_v1.ContainerImage(names=n, size_bytes=size) for n, size in names]

    async def _write_status(self, node: core_v1.Node) -> core_v1.Node:
        status = self.status(node)
        body: dict[str, Any] = msgspec.to_builtins(status)
        body["addresses"] = [*body.get("addresses", ()), {"$patch": "replace"}]
        for name in extended(node.status.allocatable):
            body["allocatable"].setdefault(name, None)  # its capacity was taken away
        body.setdefault("volumesInUse", None)
        return await self._nodes.patch_status(self.config.node_name, None, {"status": body}, "strategic")

    def status(self, node: core_v1.Node | None) -> core_v1.NodeStatus:
        """The node's status now; transition times go on from ``node``, and so do extended resources: whoever patches
        such a capacity into the node's status sees it become allocatable, as with kubelet."""
        config = self.config
        devices = self.devices()
        more = extended(node.status.capacity if node else None)
        return core_v1.NodeStatus(
            capacity=self.capacity | more | {name: str(count) for name, (count, _) in devices.items()},
            allocatable=self._own_allocatable | more | {name: str(count) for name, (_, count) in devices.items()},
            addresses=[
                core_v1.NodeAddress(type="InternalIP", address=config.node_ip),
                core_v1.NodeAddress(type="Hostname", address=config.node_name),
            ],
            daemon_endpoints=core_v1.NodeDaemonEndpoints(kubelet_endpoint=core_v1.DaemonEndpoint(port=self.port)),
            node_info=self._info(),
            images=self._images,
            volumes_in_use=self.volumes_in_use() or None,
            runtime_handlers=[core_v1.NodeRuntimeHandler(name=name) for name in self.runtime.handlers],
            conditions=self._conditions(node),
        )

    def _info(self) -> core_v1.NodeSystemInfo:
        return core_v1.NodeSystemInfo(
            architecture=_ARCH.get(platform.machine(), platform.machine()),
            operating_system="linux",
            kernel_version=platform.release(),
            os_image=os_image(),
            container_runtime_version=f"{self.runtime.name}://{self.runtime.version}",
            kubelet_version=VERSION,
            kube_proxy_version="",
            boot_id=_read("/proc/sys/kernel/random/boot_id"),
            machine_id=_read("/etc/machine-id"),
            system_uuid=_read("/sys/class/dmi/id/product_uuid") or _read("/etc/machine-id"),
        )

    def _conditions(self, node: core_v1.Node | None) -> list[core_v1.NodeCondition]:
        now = format_time(self.world.now())
        before = {c.type: c for c in (node.status.conditions if node else None) or ()}
        out = []
        for type_, reasons, messages in (
            (
                "MemoryPressure",
                ("KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
                ("kubelet has insufficient memory available", "kubelet has sufficient memory available"),
            ),
            (
                "DiskPressure",
                ("KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
                ("kubelet has disk pressure", "kubelet has no disk pressure"),
            ),
            (
                "PIDPressure",
                ("KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
                ("kubelet has insufficient PID available", "kubelet has sufficient PID available"),
            ),
        ):
            bad = type_ in self.pressure
            index = 0 if bad else 1
            out.append(_condition(type_, bad, reasons[index], messages[index], now, before.get(type_)))
        troubles = [f"container runtime is down: {self.runtime_error}"] if self.runtime_error else []
        if self.network_error:
            network = "NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: "
            troubles.append(f"container runtime network not ready: {network}{self.network_error}")
        if self.shutting_down:
            troubles.append(self.shutting_down)
        ready = not troubles
        reason = "KubeletReady" if ready else "KubeletNotReady"
        message = "kubelet is posting ready status" if ready else "[" + ", ".join(troubles) + "]"
        if len(troubles) == 1:
            message = troubles[0]
        out.append(_condition("Ready", ready, reason, message, now, before.get("Ready")))
        return out


def _condition(
    type_: str, true: bool, reason: str, message: str, now: str, before: core_v1.NodeCondition | None
) -> core_v1.NodeCondition:
    status = "True" if true else "False"
    since = before.last_transition_time if before and before.status == status else None
    return core_v1.NodeCondition(
        type=type_,
        status=status,
        reason=reason,
        message=message,
        last_heartbeat_time=now,
        last_transition_time=since or now,
    )


def _essence(status: core_v1.NodeStatus) -> Any:
    """The part that must be written when it changes: all but heartbeat times and what others own."""
    return (
        *({k: quantity.canonical(v) for k, v in (x or {}).items()} for x in (status.capacity, status.allocatable)),
        [(a.type, a.address) for a in status.addresses or ()],
        status.node_info,
        status.images,
        status.daemon_endpoints,
        status.volumes_in_use or [],
        sorted(
            (c.type, c.status, c.reason or "", c.message or "") for c in status.conditions or () if c.type in _TYPES
        ),
    )


_TYPES = ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")


def extended(listed: Mapping[str, quantity.Quantity] | None) -> dict[str, quantity.Quantity]:
    """The extended resources of a list."""
    return {name: q for name, q in (listed or {}).items() if resources.is_extended(name)}


def capacity(config: Config) -> dict[str, quantity.Quantity]:
    """The node's capacity: as configured, else the machine's."""
    memory = config.memory or f"{_meminfo('MemTotal') // 1024}Ki"
    storage = config.ephemeral_storage
    if not storage:
        folder = next((p for p in (config.root_dir, *config.root_dir.parents) if p.exists()), Path("/"))
        storage = f"{shutil.disk_usage(folder).total // 1024}Ki"
    amounts: dict[str, quantity.Quantity] = {
        "cpu": config.cpu or str(os.cpu_count() or 1),
        "memory": memory,
        "pods": str(config.pods),
        "ephemeral-storage": storage,
        "hugepages-2Mi": "0",
        "hugepages-1Gi": "0",
    }
    return {name: quantity.canonical(q) for name, q in amounts.items()}


def _allocatable(whole: Mapping[str, quantity.Quantity], listed: Sequence[Threshold]) -> dict[str, quantity.Quantity]:
    """The capacity that pods may have: all but what hard eviction thresholds keep free."""
    out = dict(whole)
    for threshold in listed:
        name = {thresholds.MEMORY: "memory", thresholds.NODE_DISK: "ephemeral-storage"}.get(threshold.signal)
        if name is not None and threshold.hard:
            size = quantity.value(whole[name])
            out[name] = quantity.from_value(max(0, size - threshold.value.of(size)), quantity.family(whole[name]))
    return out


def available_memory() -> int:
    """Bytes that programs can still have."""
    return _meminfo("MemAvailable")


def _meminfo(key: str) -> int:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def os_image() -> str:
    for line in _read("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.split("=", 1)[1].strip('"')
    return "Linux"


def _taints(texts: tuple[str, ...]) -> list[core_v1.Taint]:
    out = []
    for text in texts:
        rest, _, effect = text.rpartition(":")
        key, _, value = rest.partition("=")
        out.append(core_v1.Taint(key=key, value=value or None, effect=effect))
    return out


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
