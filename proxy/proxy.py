"""The proxy of one node: follows Services and EndpointSlices, and keeps the kernel's rules equal to them.

An event concerns one service, and only that service's rules are worked out and changed. Established connections are
not touched: an endpoint that goes away keeps those it has (conntrack remembers), it just gets no new ones.
"""

from __future__ import annotations

import asyncio
import logging

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from navarch.api.types import core_v1, discovery_v1
from navarch.client.informer import SharedInformers, key_of
from navarch.world import Backoff, World
from proxy.conntrack import forget_udp
from proxy.nftables import Nftables, NftablesError, RuleSet
from proxy.rules import SERVICE_NAME, Endpoint, Place, Rules, service_rules

log = logging.getLogger(__name__)

ZONE = "topology.kubernetes.io/zone"


def service_key(piece: discovery_v1.EndpointSlice) -> list[str]:
    """Index of slices by the service they belong to."""
    name = (piece.metadata.labels or {}).get(SERVICE_NAME)
    return [key_of(piece.metadata.namespace, name)] if name else []


class Proxy:
    def __init__(
        self, world: World, informers: SharedInformers, node: str, cluster_cidr: str, nft: Nftables | None = None
    ) -> None:
        self.world, self.here, self.cluster_cidr = world, Place(node), cluster_cidr
        self.services = informers.informer(core_v1.Service)
        self.slices = informers.informer(discovery_v1.EndpointSlice, indexers={"service": service_key})
        self.nodes = informers.informer(core_v1.Node, field_selector=f"metadata.name={node}")
        self.nodes.add_handler(self.on_node)
        self.services.add_handler(self.on_service)
        self.slices.add_handler(self.on_slice)
        self.nft = nft or Nftables()
        self.rules = RuleSet()
        self.registry = CollectorRegistry()
        self.sync_seconds = Histogram(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "Seconds from a change to the rules that follow from it",
            registry=self.registry,
        )
        self.sync_errors = Counter(
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
            "Transactions that nftables refused",
            registry=self.registry,
        )
        self.dirty: dict[str, None] = {}
        self.wake = asyncio.Event()
        self.synced = asyncio.Event()

    def on_service(self, kind: str, old: core_v1.Service | None, service: core_v1.Service) -> None:
        self.touch(key_of(service.metadata.namespace, service.metadata.name or ""))

    def on_slice(self, kind: str, old: discovery_v1.EndpointSlice | None, piece: discovery_v1.EndpointSlice) -> None:
        for key in [*(service_key(old) if old else ()), *service_key(piece)]:
            self.touch(key)

    def on_node(self, kind: str, old: core_v1.Node | None, node: core_v1.Node) -> None:
        zone = (node.metadata.labels or {}).get(ZONE, "")
        if kind != "DELETED" and zone != self.here.zone:
            self.here = Place(self.here.node, zone)
            for service in self.services.list():
                if service.spec.traffic_distribution:
                    self.on_service("MODIFIED", None, service)

    def touch(self, key: str) -> None:
        self.dirty[key] = None
        self.wake.set()

    def wanted(self, key: str) -> Rules:
        """The rules that a service should have now."""
        service = self.services.get_key(key)
        if service is None:
            return Rules()
        return service_rules(service, self.slices.by_index("service", key), self.here, self.cluster_cidr)

    async def run(self) -> None:
        """Programs the kernel until cancelled. The rules stay when the proxy ends: services go on working."""
        await self.services.wait_synced()
        await self.slices.wait_synced()
        backoff = Backoff(self.world, first=0.1, most=10.0)
        replace = True
        while True:
            dirty, self.dirty = self.dirty, {}
            self.wake.clear()
            began = self.world.monotonic()
            wanted = {key: self.wanted(key) for key in dirty}
            before = {key: self.rules.services.get(key, Rules()) for key in wanted}
            commands = self.rules.change(wanted)
            if replace:
                commands = self.rules.full()
            try:
                if commands:
                    self.nft.run(commands)
            except NftablesError as error:
                log.error("nftables: %s; trying again with the whole rule set", error)
                self.sync_errors.inc()
                replace = True
                await self.world.sleep(backoff.next())
                continue
            replace = False
            backoff.reset()
            for key, new in wanted.items():
                await self.clean_udp(before[key], new)
            self.synced.set()
            self.sync_seconds.observe(self.world.monotonic() - began)
            await self.wake.wait()

    def metrics(self) -> bytes:
        """Counters as Prometheus text, under kube-proxy's names."""
        return generate_latest(self.registry)

    async def clean_udp(self, old: Rules, new: Rules) -> None:
        """UDP has no connections that end: flows to endpoints that are gone would stay with them."""
        for where in {**old.udp, **new.udp}:
            before, after = old.udp.get(where, ()), new.udp.get(where, ())
            gone: list[Endpoint] = [e for e in before if e not in after]
            if gone or (after and not before):
                await forget_udp(where[0], where[1], [e.address for e in gone])
