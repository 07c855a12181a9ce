"""The proxy of one node: follows Services and EndpointSlices, and keeps the kernel's rules equal to them.

An event concerns one service, and only that service's rules are worked out and changed. Established connections are
not touched: an endpoint that goes away keeps those it has (conntrack remembers), it just gets no new ones.

A service whose rules the kernel refuses is set aside: it keeps those that it has, if any, an event on it says why, and
it is tried again later and later. All others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from navarch.api import wellknown
from navarch.api.types import core_v1, discovery_v1
from navarch.client.events import EventRecorder
from navarch.client.informer import SharedInformers, key_of
from navarch.client.watch import DELETED
from navarch.linux.nftables import Nftables, NftablesError
from navarch.world import Backoff, World
from proxy.conntrack import forget_udp
from proxy.externalips import API_SERVER, ExternalIPs
from proxy.programmer import Programmer, Runs
from proxy.rules import SERVICE_NAME, Endpoint, Place, Rules, service_rules

log = logging.getLogger(__name__)

ZONE = wellknown.ZONE
AT_ONCE = 100  # services worked out before others have a turn


def service_key(piece: discovery_v1.EndpointSlice) -> list[str]:
    """Index of slices by the service they belong to."""
    name = (piece.metadata.labels or {}).get(SERVICE_NAME)
    return [key_of(piece.metadata.namespace, name)] if name else []


@dataclass
class Aside:
    """A service whose rules were refused. ``due``: when they are tried again (monotonic)."""

    backoff: Backoff
    due: float = 0.0


def first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), text)


class Proxy:
    def __init__(
        self,
        world: World,
        informers: SharedInformers,
        node: str,
        cluster_cidr: str,
        nft: Runs | None = None,
        events: EventRecorder | None = None,
    ) -> None:
        self.world, self.here, self.cluster_cidr = world, Place(node), cluster_cidr
        self.services = informers.informer(core_v1.Service)
        self.slices = informers.informer(discovery_v1.EndpointSlice, indexers={"service": service_key})
        self.nodes = informers.informer(core_v1.Node, field_selector=f"metadata.name={node}")
        self.nodes.add_handler(self.on_node)
        self.services.add_handler(self.on_service)
        self.slices.add_handler(self.on_slice)
        self.programmer = Programmer(nft or Nftables())
        self.aside: dict[str, Aside] = {}
        self.external = ExternalIPs()
        self.refusals: dict[str, frozenset[tuple[str, int]]] = {}  # service -> external IPs of which it was told
        self.events = events
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
        Gauge(
            "navarch_proxy_services_set_aside",
            "Services without rules, or with old ones, since theirs were refused",
            registry=self.registry,
        ).set_function(lambda: len(self.aside))
        self.dirty: dict[str, None] = {}
        self.wake = asyncio.Event()
        self.synced = asyncio.Event()

    def on_service(self, kind: str, old: core_v1.Service | None, service: core_v1.Service) -> None:
        key = key_of(service.metadata.namespace, service.metadata.name or "")
        for each in [key, *self.external.put(key, None if kind == DELETED else service)]:
            self.touch(each)

    def on_slice(self, kind: str, old: discovery_v1.EndpointSlice | None, piece: discovery_v1.EndpointSlice) -> None:
        for key in [*(service_key(old) if old else ()), *service_key(piece)]:
            self.touch(key)
            if key == API_SERVER:
                for other in self.external.put_api_servers(self._api_servers()):
                    self.touch(other)

    def _api_servers(self) -> list[tuple[str, int]]:
        slices = self.slices.by_index("service", API_SERVER)
        places = [(a, p.port) for s in slices for p in s.ports or () for e in s.endpoints or () for a in e.addresses]
        return [(address, port) for address, port in places if port]

    def on_node(self, kind: str, old: core_v1.Node | None, node: core_v1.Node) -> None:
        zone = (node.metadata.labels or {}).get(ZONE, "")
        if kind != DELETED and zone != self.here.zone:
            self.here = Place(self.here.node, zone)
            for service in self.services.list():
                if service.spec.traffic_distribution:
                    self.on_service("MODIFIED", None, service)

    def touch(self, key: str) -> None:
        self.dirty[key] = None
        self.wake.set()

    def rules_of(self, key: str) -> Rules:
        """The rules that a service should have now."""
        service = self.services.get_key(key)
        if service is None:
            self.refusals.pop(key, None)
            return Rules()
        refused = self.external.refused(key)
        self._tell_refused(key, service, refused)
        return service_rules(service, self.slices.by_index("service", key), self.here, self.cluster_cidr, refused)

    def _tell_refused(self, key: str, service: core_v1.Service, refused: frozenset[tuple[str, int]]) -> None:
        """Says of which external IPs there will be nothing; once, as long as they are the same."""
        if refused == self.refusals.get(key, frozenset()):
            return
        self.refusals[key] = refused
        if refused and self.events is not None:
            listed = ", ".join(f"{a}:{p}" if p else a for a, p in sorted(refused))
            text = f"spec.externalIPs: {listed} belongs to another service or to the API server; this service does not get it"
            self.events.event(service, "Warning", "ExternalIPRefused", text)

    async def run(self) -> None:
        """Programs the kernel until cancelled. The rules stay when the proxy ends: services go on working."""
        await self.services.wait_synced()
        await self.slices.wait_synced()
        backoff = Backoff(self.world, first=0.1, most=10.0)
        while True:
            self.wake.clear()
            began = self.world.monotonic()
            dirty, self.dirty = self.dirty, {}
            dirty.update((key, None) for key, aside in self.aside.items() if aside.due <= began)
            changes, refused = await self._work_out(dirty)
            before = {key: self.programmer.rules.services.get(key, Rules()) for key in changes}
            try:
                refused |= await self.world.blocking(self.programmer.program, changes)
            except NftablesError as error:
                log.error("nftables: %s; trying again with the whole rule set", error)
                self.sync_errors.inc()
                self.dirty = dirty | self.dirty
                await self.world.sleep(backoff.next())
                continue
            backoff.reset()
            for key in {**dirty, **refused}:
                self._judge(key, refused.get(key))
            for key in changes:
                await self.clean_udp(before[key], self.programmer.rules.services.get(key, Rules()))
            self.synced.set()
            self.sync_seconds.observe(self.world.monotonic() - began)
            await self._wait()

    async def _wait(self) -> None:
        """Until something changed, or a service that was set aside is due."""
        due = min((aside.due for aside in self.aside.values()), default=None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.0, due - self.world.monotonic())):
                await self.wake.wait()

    async def _work_out(self, keys: Iterable[str]) -> tuple[dict[str, Rules], dict[str, str]]:
        """The rules of these services, and what is to be said of those for which there are none."""
        rules, failed = {}, {}
        for number, key in enumerate(keys):
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)  # the DNS has its turn
            try:
                rules[key] = self.rules_of(key)
            except Exception as error:  # an object that nobody has foreseen
                log.exception("rules of service %s", key)
                failed[key] = f"{type(error).__name__}: {error}"
        return rules, failed

    def _judge(self, key: str, error: str | None) -> None:
        """Sets a service aside whose rules were refused, or takes it back."""
        if error is None:
            if self.aside.pop(key, None) is not None:
                log.info("service %s: its rules are accepted now", key)
            return
        self.sync_errors.inc()
        aside = self.aside.setdefault(key, Aside(Backoff(self.world, first=1.0, most=60.0)))
        aside.due = self.world.monotonic() + aside.backoff.next()
        log.error("service %s is set aside: %s", key, error)
        service = self.services.get_key(key)
        if service is not None and self.events is not None:
            node = self.here.node
            text = f"node {node} cannot program this service, and leaves its rules as they were: {first_line(error)}"
            self.events.event(service, "Warning", "SyncProxyRulesFailed", text)

    def metrics(self) -> bytes:
        """Counters as Prometheus text, under kube-proxy's names."""
        return generate_latest(self.registry)

    async def clean_udp(self, old: Rules, new: Rules) -> None:
        """UDP has no connections that end: flows to endpoints that are gone would stay with them."""
        for where in {**old.udp, **new.udp}:
            before, after = old.udp.get(where, ()), new.udp.get(where, ())
            removed: list[Endpoint] = [e for e in before if e not in after]
            if removed or (after and not before):
                try:
                    await forget_udp(where[0], where[1], [e.address for e in removed])
                except OSError as error:
                    log.warning("conntrack: %s", error)
