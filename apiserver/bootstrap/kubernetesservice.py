"""default/kubernetes: the Service by which pods find the API, with the addresses of the API servers that are alive.

Each server keeps a key with a time to live; each makes Endpoints and EndpointSlice agree with the keys that there are.
"""

from __future__ import annotations

import ipaddress
import logging
from typing import Any

from apiserver.registry.ensure import MANAGER, ensure
from apiserver.registry.resource import Resource
from apiserver.registry.resources import Resources
from apiserver.request import own_context
from apiserver.storage.store import Compare, Put, StoreUnavailable
from navarch.api import wellknown
from navarch.api.errors import StatusError

log = logging.getLogger(__name__)

Tree = dict[str, Any]
NAME, NAMESPACE = "kubernetes", "default"
LEASES = "/registry/masterleases/"
TTL, PERIOD = 30.0, 10.0


class KubernetesService:
    """``address`` and ``port`` are where pods reach this server; ``service_ip`` is the Service's address."""

    def __init__(self, resources: Resources, service_ip: str, address: str, port: int) -> None:
        self.resources, self.service_ip, self.address, self.port = resources, service_ip, address, port
        self.world, self.store, self.cache = resources.backend.world, resources.backend.store, resources.backend.cache

    async def prepare(self) -> None:
        """Makes the Service; before the server is ready, so that nobody else takes its address."""
        await ensure(self.resources["", "services"], self.service())

    async def run(self) -> None:
        """Keeps the endpoints right until cancelled."""
        if ipaddress.ip_address(self.address).is_loopback:
            log.info("not publishing %s as an endpoint: no pod could reach it", self.address)
            return
        while True:
            try:
                await self.reconcile()
            except (StoreUnavailable, StatusError) as error:
                log.warning("cannot publish the API server's address: %s", error)
            await self.world.sleep(PERIOD)

    async def reconcile(self) -> None:
        """Renews this server's key; writes the endpoints if they differ from the living servers."""
        store, key = self.store, LEASES + self.address
        item, _ = await store.get(key)
        result = await store.txn([Compare(key, item.revision if item else 0)], [Put(key, b"{}", TTL)])
        if result.succeeded:
            self.cache.acknowledged(result.revision)
        page = await store.list(LEASES)
        addresses = sorted({self.address, *(i.key[len(LEASES) :] for i in page.items)})
        await self._write(self.resources["", "endpoints"], self.endpoints(addresses), ("subsets",))
        slices = self.resources["discovery.k8s.io", "endpointslices"]
        await self._write(slices, self.endpoint_slice(addresses), ("addressType", "endpoints", "ports"))

    async def _write(self, resource: Resource, desired: Tree, fields: tuple[str, ...]) -> None:
        if await ensure(resource, desired):
            return

        def change(old: Tree) -> Tree:
            return old | {field: desired[field] for field in fields}

        await resource.change(own_context(self.world), NAMESPACE, NAME, change, MANAGER)

    def service(self) -> Tree:
        ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": self.port}]
        labels = {"component": "apiserver", "provider": "kubernetes"}
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
            "spec": {"type": "ClusterIP", "clusterIP": self.service_ip, "ports": ports, "sessionAffinity": "None"},
        }

    def endpoints(self, addresses: list[str]) -> Tree:
        ports = [{"name": "https", "port": self.port, "protocol": "TCP"}]
        labels = {wellknown.SKIP_MIRROR: "true"}
        return {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
            "subsets": [{"addresses": [{"ip": a} for a in addresses], "ports": ports}],
        }

    def endpoint_slice(self, addresses: list[str]) -> Tree:
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {wellknown.SERVICE_NAME: NAME}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in addresses],
            "ports": [{"name": "https", "port": self.port, "protocol": "TCP"}],
        }
