"""Gives Services of type LoadBalancer an address from a pool, and a node that answers for it.

The address stands in status.loadBalancer, the node in an annotation; every node's proxy does the rest. A service of
another loadBalancerClass is left alone. Nothing else remembers addresses, so a service that is gone has freed its own.
"""

from __future__ import annotations

from controllers.controller import Context, Controller
from controllers.loadbalancer.plan import (
    ANNOUNCED_BY,
    Pool,
    Refused,
    Service,
    addresses_of,
    annotations_of,
    announcer,
    candidates,
    is_able,
    is_ours,
)
from navarch.api import wellknown
from navarch.api.types import core_v1, discovery_v1
from navarch.client.events import NORMAL, WARNING

EndpointSlice = discovery_v1.EndpointSlice
BY_SERVICE = "balanced-service"


def _service_of(piece: EndpointSlice) -> list[str]:
    name = (piece.metadata.labels or {}).get(wellknown.SERVICE_NAME)
    return [f"{piece.metadata.namespace}/{name}"] if name else []


class LoadBalancerController(Controller):
    """Keys are services. One worker: two must not choose the same address."""

    name = "service-lb-controller"
    workers = 1

    def __init__(self, context: Context, cidr: str) -> None:
        super().__init__(context)
        self.pool = Pool(cidr)
        self.events = context.recorder("service-controller")
        self.services = self.informer(Service)
        self.nodes = self.informer(core_v1.Node)
        self.slices = self.informer(EndpointSlice, {BY_SERVICE: _service_of})
        self.enqueues(self.services, lambda s: is_ours(s) or bool(addresses_of(s)) or ANNOUNCED_BY in annotations_of(s))
        self.services.add_handler(self._service_gone)
        self.nodes.add_handler(self._node_changed)
        self.slices.add_handler(self._slice_changed)
        self.waiting: dict[str, None] = {}  # services for which there is no address
        self._is_loaded = False

    def _service_gone(self, kind: str, old: Service | None, new: Service) -> None:
        if kind == "DELETED":
            self.enqueue(new)

    def _node_changed(self, kind: str, old: core_v1.Node | None, new: core_v1.Node) -> None:
        if kind == "MODIFIED" and old is not None and is_able(old) == is_able(new):
            return
        for service in self.services.list():
            if is_ours(service):
                self.enqueue(service)

    def _slice_changed(self, kind: str, old: EndpointSlice | None, new: EndpointSlice) -> None:
        for key in dict.fromkeys([*(_service_of(old) if old is not None else ()), *_service_of(new)]):
            service = self.services.get_key(key)
            if service is not None and is_ours(service) and service.spec.external_traffic_policy == "Local":
                self.queue.add(key)

    def _learn(self) -> None:
        """Takes note of the addresses that services have, before the first one is given."""
        for service in self.services.list():
            key = f"{service.metadata.namespace}/{service.metadata.name}"
            for address in addresses_of(service) if is_ours(service) else ():
                if address in self.pool and not self.pool.conflict(key, service, address):
                    self.pool.take(key, service, address)
        self._is_loaded = True

    async def reconcile(self, key: str) -> float | None:
        if not self._is_loaded:
            self._learn()
        service = self.services.get_key(key)
        if service is None or not is_ours(service):
            self.waiting.pop(key, None)
            self._wake(self.pool.give_back(key))
            if service is not None and service.metadata.deletion_timestamp is None:
                await self._release(service)
            return None
        try:
            address = self.pool.choose(key, service)
        except Refused as error:
            self._wake(self.pool.give_back(key))
            text = f"Error syncing load balancer: failed to ensure load balancer: {error}"
            self.events.event(service, WARNING, "SyncLoadBalancerFailed", text)
            if addresses_of(service):
                await self._set_status(service, "")
            self.waiting[key] = None
            return None
        self.waiting.pop(key, None)
        before = self.pool.address(key)
        self.pool.take(key, service, address)
        if before and before != address:
            self._wake(before)
        fresh = addresses_of(service) != [address]
        if fresh:
            self.events.event(service, NORMAL, "EnsuringLoadBalancer", "Ensuring load balancer")
        await self._announce(service, address)
        if fresh:
            await self._set_status(service, address)
            self.events.event(service, NORMAL, "EnsuredLoadBalancer", "Ensured load balancer")
        return None

    def _wake(self, address: str) -> None:
        """An address, or a port of it, is free: those that wait for one look again."""
        if address:
            for key in self.waiting:
                self.queue.add(key)

    async def _announce(self, service: Service, address: str) -> None:
        current = annotations_of(service).get(ANNOUNCED_BY, "")
        key = f"{service.metadata.namespace}/{service.metadata.name}"
        able = candidates(service, self.nodes.list(), self.slices.by_index(BY_SERVICE, key))
        # Those who share an address must agree on the node: the first of them leads.
        leader = self.services.get_key(min(self.pool.uses[address].services))
        last_announcer = annotations_of(leader).get(ANNOUNCED_BY, current) if leader is not None else current
        node = announcer(address, last_announcer, able)
        if node == current:
            return
        await self._annotate(service, node or None)
        if node:
            self.events.event(service, NORMAL, "NodeAssigned", f"node {node} answers for {address}")
        for other in self.pool.uses[address].services:
            if other != key:
                self.queue.add(other)

    async def _annotate(self, service: Service, node: str | None) -> None:
        meta = service.metadata
        body = {"metadata": {"uid": meta.uid, "annotations": {ANNOUNCED_BY: node}}}
        await self.client[Service].patch(meta.name or "", meta.namespace, body)

    async def _set_status(self, service: Service, address: str) -> None:
        meta = service.metadata
        ingress = [{"ip": address, "ipMode": "VIP"}] if address else None
        body = {"metadata": {"uid": meta.uid}, "status": {"loadBalancer": {"ingress": ingress}}}
        await self.client[Service].patch_status(meta.name or "", meta.namespace, body)

    async def _release(self, service: Service) -> None:
        """Takes back what a service has that is of another type now. One of another class is its own controller's."""
        if service.spec.type == "LoadBalancer":
            return
        if ANNOUNCED_BY in annotations_of(service):
            await self._annotate(service, None)
        if any(address in self.pool for address in addresses_of(service)):
            self.events.event(service, NORMAL, "DeletingLoadBalancer", "Deleting load balancer")
            await self._set_status(service, "")
            self.events.event(service, NORMAL, "DeletedLoadBalancer", "Deleted load balancer")
