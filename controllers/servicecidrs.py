"""ServiceCIDRs: ready when they are there, and kept while addresses of theirs are in use. IPAddresses: one for each cluster IP.

The API server gives addresses out, from the ranges of ServiceCIDRs that are ready; a key in its store decides who has one
(docs/decisions.md D27). Here IPAddress objects follow the Services, for those who want to see them.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from controllers.controller import Context, Controller
from navarch.api import wellknown
from navarch.api.conditions import get_condition
from navarch.api.errors import AlreadyExists, NotFound
from navarch.api.times import format_time, parse_time
from navarch.api.types import core_v1, meta_v1, networking_v1
from navarch.client.events import WARNING

Range = networking_v1.ServiceCIDR
Address = networking_v1.IPAddress
Service = core_v1.Service
FINALIZER = "networking.k8s.io/service-cidr-finalizer"
GRACE = 10.0  # seconds for API servers to notice that a range is going
READY, REMAINING = "Kubernetes Service CIDR is ready", (
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
)


def networks(service_range: Range) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(text) for text in (service_range.spec.cidrs if service_range.spec else None) or ()]


class ServiceCIDRController(Controller):
    """Keys are ServiceCIDRs."""

    name = "service-cidr-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.events = context.recorder("service-cidr-controller")
        self.ranges = self.informer(Range)
        self.addresses = self.informer(Address)
        self.keys_are_of(self.ranges)
        self.ranges.add_handler(lambda kind, old, new: self._queue_all())
        self.addresses.add_handler(lambda kind, old, new: self._queue_all() if kind == "DELETED" else None)

    def _queue_all(self) -> None:
        """Ranges may overlap: whether one can go depends on the others."""
        for service_range in self.ranges.list():
            self.enqueue(service_range)

    async def reconcile(self, key: str) -> float | None:
        service_range = self.ranges.get_key(key)
        if service_range is None:
            return None
        finalizers, deleted = service_range.metadata.finalizers or [], service_range.metadata.deletion_timestamp
        if deleted is None:
            if FINALIZER not in finalizers:
                service_range = await self._finalizers(service_range, [*finalizers, FINALIZER])
            await self._condition(service_range, "True", "", READY)
            return None
        if FINALIZER not in finalizers:
            return None
        if stranded := self._stranded(service_range):
            await self._condition(service_range, "False", "Terminating", REMAINING)
            self.events.event(service_range, WARNING, "KubernetesServiceCIDRError", f"{REMAINING} ({stranded[0]} and others)")
            return None
        if (rest := parse_time(deleted) + GRACE - self.world.now()) > 0:
            return rest
        await self._finalizers(service_range, [f for f in finalizers if f != FINALIZER])
        return None

    def _stranded(self, service_range: Range) -> list[str]:
        """Addresses of the range that are in no other one."""
        mine = networks(service_range)
        others = [
            network
            for other in self.ranges.list()
            if other.metadata.uid != service_range.metadata.uid and other.metadata.deletion_timestamp is None
            for network in networks(other)
        ]
        out = []
        for address in self.addresses.list():
            ip = ipaddress.ip_address(address.metadata.name or "")
            if any(ip in network for network in mine) and not any(ip in network for network in others):
                out.append(str(ip))
        return sorted(out)

    async def _finalizers(self, service_range: Range, finalizers: list[str]) -> Range:
        metadata = {"finalizers": finalizers or None, "resourceVersion": service_range.metadata.resource_version}
        return await self.client[Range].patch(service_range.metadata.name or "", None, {"metadata": metadata})

    async def _condition(self, service_range: Range, status: str, reason: str, message: str) -> None:
        conditions = service_range.status.conditions if service_range.status is not None else None
        now = get_condition(conditions, "Ready")
        if now is not None and (now.status, now.message) == (status, message):
            return
        ready = {"type": "Ready", "status": status, "reason": reason, "message": message}
        ready["lastTransitionTime"] = format_time(self.world.now())
        body: dict[str, Any] = {"status": {"conditions": [ready]}}
        await self.client[Range].patch_status(service_range.metadata.name or "", None, body)


class IPAddressController(Controller):
    """Keys are Services (``namespace/name``), and addresses whose Service is gone."""

    name = "service-ipaddress-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.services = self.informer(Service)
        self.addresses = self.informer(Address)
        self.enqueues(self.services)
        self.services.add_handler(self._service_changed)
        self.addresses.add_handler(lambda kind, old, new: self.queue.add(new.metadata.name or ""))

    def _service_changed(self, kind: str, old: Service | None, new: Service) -> None:
        for service in (old, new):
            if service is not None and (ip := cluster_ip(service)):
                self.queue.add(ip)

    async def reconcile(self, key: str) -> float | None:
        if "/" in key:
            service = self.services.get_key(key)
            if service is not None and (ip := cluster_ip(service)) and self.addresses.get_key(ip) is None:
                try:
                    await self.client[Address].create(address_of(service, ip))
                except AlreadyExists:
                    pass
            return None
        address = self.addresses.get_key(key)
        if address is None:
            for service in self.services.list():  # somebody deleted it: it comes again
                if cluster_ip(service) == key:
                    self.enqueue(service)
            return None
        await self._drop_if_stale(address, key)
        return None

    async def _drop_if_stale(self, address: Address, ip: str) -> None:
        parent = address.spec.parent_ref if address.spec is not None else None
        if _managed_by(address) != wellknown.IP_ALLOCATOR or parent is None or parent.resource != "services":
            return  # people's own
        service = self.services.get(parent.namespace, parent.name or "")
        if service is not None and cluster_ip(service) == ip:
            return
        try:  # the cache may be behind
            service = await self.client[Service].get(parent.name or "", parent.namespace)
            if cluster_ip(service) == ip:
                return
        except NotFound:
            pass
        try:
            await self.client[Address].delete(ip, uid=address.metadata.uid)
        except NotFound:
            return


def _managed_by(address: Address) -> str:
    return (address.metadata.labels or {}).get(wellknown.IP_MANAGED_BY, "")


def cluster_ip(service: Service) -> str:
    """The Service's address; "" if it has none."""
    ip = (service.spec.cluster_ip if service.spec is not None else None) or ""
    return "" if ip == "None" else ip


def address_of(service: Service, ip: str) -> Address:
    """The object that tells whose an address is."""
    family = f"IPv{ipaddress.ip_address(ip).version}"
    labels = {wellknown.IP_FAMILY: family, wellknown.IP_MANAGED_BY: wellknown.IP_ALLOCATOR}
    return Address(
        metadata=meta_v1.ObjectMeta(name=ip, labels=labels),
        spec=networking_v1.IPAddressSpec(
            parent_ref=networking_v1.ParentReference(
                resource="services", namespace=service.metadata.namespace, name=service.metadata.name or ""
            )
        ),
    )
