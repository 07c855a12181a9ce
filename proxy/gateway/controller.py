"""The Gateway controller of one node: follows Gateways, HTTPRoutes and what they name, and keeps nginx equal to them.

Every node has one; that which holds the Lease also makes the Services and writes the statuses, so that each is written once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from navarch.api.errors import AlreadyExists, Conflict, NotFound, StatusError
from navarch.api.kinds import Kind
from navarch.api.times import format_time
from navarch.api.types import core_v1, discovery_v1, meta_v1
from navarch.client.client import Client
from navarch.client.informer import Informer, SharedInformers
from navarch.client.leader import LeaderElector, LeadershipLost
from navarch.client.transport import TransportError
from navarch.world import Backoff, World
from proxy.gateway import api, ports, statuses
from proxy.gateway.api import Tree, key, spec_of
from proxy.gateway.site import Facts, Plan, plan, without
from proxy.ingress.backends import Services
from proxy.ingress.config import Place
from proxy.ingress.keeper import Keeper, Serves
from proxy.ingress.model import Site
from proxy.ingress.nginx import NginxError
from proxy.proxy import service_key
from proxy.publish import node_slice

log = logging.getLogger(__name__)

NAME = "navarch-gateway"
GATHER = 0.1  # seconds to gather changes before a reload: each starts a new worker
TROUBLE = (NginxError, OSError, StatusError, TransportError)


class GatewayController:
    def __init__(
        self, client: Client, world: World, informers: SharedInformers, node: str, place: Place, nginx: Serves
    ) -> None:
        self.client, self.world, self.node, self.place = client, world, node, place
        self.trees: dict[Kind, Informer[Tree]] = {
            kind: Informer(client.tree(kind), faults=informers.faults) for kind in api.KINDS
        }
        self.services = informers.informer(core_v1.Service)
        self.slices = informers.informer(discovery_v1.EndpointSlice, indexers={"service": service_key})
        self.secrets = informers.informer(core_v1.Secret, field_selector="type=kubernetes.io/tls")
        self.namespaces = informers.informer(core_v1.Namespace)
        self.all: tuple[Any, ...] = (*self.trees.values(), self.services, self.slices, self.secrets, self.namespaces)
        self.wake, self.synced, self.built = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.plan = Plan()
        self.planned: dict[tuple[str, str], int] = {}  # (kind, key) -> the generation that the plan is of
        self.keeper: Keeper[Tree] = Keeper(world, nginx, place, key, self._site, self.wake.set)
        for informer in self.all:
            informer.add_handler(self._changed)

    def _changed(self, kind: str, old: object, new: object) -> None:
        self.wake.set()

    async def run(self) -> None:
        """Keeps nginx, and this node's EndpointSlices."""
        async with self.world.task_group() as group:
            for informer in self.trees.values():
                group.start(informer.run(), name="informer")
            for informer in self.all:
                await informer.wait_synced()
            backoff = Backoff(self.world, first=0.5, most=30.0)
            while True:
                self.wake.clear()
                try:
                    await self._once()
                except TROUBLE as error:
                    log.error("%s; trying again", error)
                    await self.world.sleep(backoff.next())
                    continue
                backoff.reset()
                await self.wake.wait()
                await self.world.sleep(GATHER)

    async def lead(self) -> None:
        """Competes for the Lease; the holder makes Services and writes statuses."""
        while True:
            elector = LeaderElector(self.client, self.world, ports.NAMESPACE, NAME, self.node)
            try:
                await elector.run(self._lead)
            except LeadershipLost as error:
                log.warning("%s", error)

    # What there is

    def classes(self) -> list[Tree]:
        return [c for c in self.trees[api.GATEWAY_CLASSES].list() if spec_of(c).get("controllerName") == api.CONTROLLER]

    def gateways(self) -> list[Tree]:
        """Gateways of our classes, but for those that are being deleted."""
        able = {c["metadata"]["name"] for c in self.classes() if not spec_of(c).get("parametersRef")}
        of_ours = (g for g in self.trees[api.GATEWAYS].list() if spec_of(g).get("gatewayClassName") in able)
        return [g for g in of_ours if not g["metadata"].get("deletionTimestamp")]

    def routes(self) -> list[Tree]:
        return [r for r in self.trees[api.HTTP_ROUTES].list() if not r["metadata"].get("deletionTimestamp")]

    def own_services(self) -> dict[str, core_v1.Service]:
        """The Services of Gateways, by Gateway."""
        return {ports.gateway_of(s): s for s in self.services.list(ports.NAMESPACE) if ports.gateway_of(s)}

    def plan_for(self, routes: Sequence[Tree]) -> Plan:
        services = Services(self.services.get_key, lambda name: self.slices.by_index("service", name))
        inside = {name: ports.inside(service) for name, service in self.own_services().items()}
        labels = {n.metadata.name or "": n.metadata.labels or {} for n in self.namespaces.list()}
        facts = Facts(services, self.secrets.get_key, self.trees[api.REFERENCE_GRANTS].list(), labels, inside)
        return plan([g for g in self.gateways() if not statuses.refusal_of(g)], routes, facts)

    def _site(self, routes: Sequence[Tree]) -> Site:
        return self.plan_for(routes).site

    # nginx

    async def _once(self) -> None:
        routes = self.routes()
        _, guilty = await self.keeper.keep(routes)
        gateways, self.plan = self.gateways(), without(self.plan_for(routes), guilty)
        self.planned = {(o["kind"], key(o)): o["metadata"].get("generation", 0) for o in (*gateways, *routes)}
        self.synced.set()
        self.built.set()
        for service in self.own_services().values():
            await self._publish(service)

    async def _publish(self, service: core_v1.Service) -> None:
        """This node as an endpoint of a Gateway's Service, now that nginx listens."""
        name = service.metadata.name or ""
        listens = {f"p{port}": (number, "TCP") for port, number in ports.inside(service).items()}
        desired = node_slice(ports.NAMESPACE, name, NAME, self.node, self.place.address, listens)
        desired.metadata.owner_references = [
            meta_v1.OwnerReference(api_version="v1", kind="Service", name=name, uid=service.metadata.uid or "")
        ]
        current = self.slices.get(ports.NAMESPACE, desired.metadata.name or "")
        resource = self.client[discovery_v1.EndpointSlice]
        try:
            if current is None:
                await resource.create(desired, ports.NAMESPACE)
            elif (current.endpoints, current.ports) != (desired.endpoints, desired.ports):
                current = await resource.get(desired.metadata.name or "", ports.NAMESPACE)
                current.endpoints, current.ports = desired.endpoints, desired.ports
                await resource.update(current)
        except (AlreadyExists, Conflict, NotFound) as error:
            log.info("%s; looking again", error)
            self.wake.set()

    # Services and statuses

    async def _lead(self) -> None:
        backoff = Backoff(self.world, first=0.5, most=30.0)
        await self.synced.wait()
        while True:
            self.built.clear()
            try:
                await self._services()
                await self._statuses()
            except (StatusError, TransportError) as error:
                log.error("%s; trying again", error)
                await self.world.sleep(backoff.next())
                continue
            backoff.reset()
            await self.built.wait()

    async def _services(self) -> None:
        resource, targets = self.client[core_v1.Service], {key(g): g for g in self.gateways() if not statuses.refusal_of(g)}
        own = self.own_services()
        for name, service in own.items():
            if name not in targets:
                try:
                    await resource.delete(service.metadata.name or "", ports.NAMESPACE)
                except NotFound:
                    log.info("service of %s is gone", name)
        for name, gateway in targets.items():
            before = own.get(name)
            desired = ports.service_for(gateway, ports.chosen(gateway, self.own_services().values()))
            if not desired.spec.ports:
                continue
            if before is None:
                try:
                    fresh = await resource.create(desired, ports.NAMESPACE)
                except AlreadyExists:
                    continue  # the informer has not seen it yet
                await self._see(fresh)
            elif ports.inside(before) != ports.inside(desired) or before.spec.load_balancer_ip != desired.spec.load_balancer_ip:
                fresh = await resource.get(before.metadata.name or "", ports.NAMESPACE)
                fresh.spec.ports, fresh.spec.load_balancer_ip = desired.spec.ports, desired.spec.load_balancer_ip
                await self._see(await resource.update(fresh))

    async def _see(self, service: core_v1.Service) -> None:
        """Waits until the informer has a write of ours, so that the next choice of a port knows of it."""
        for _ in range(100):
            cached = self.services.get(ports.NAMESPACE, service.metadata.name or "")
            if cached is not None and ports.inside(cached) == ports.inside(service):
                return
            await self.world.sleep(0.05)

    async def _statuses(self) -> None:
        now, plan, own = format_time(self.world.now()), self.plan, self.own_services()
        for one in self.classes():
            await self._write(api.GATEWAY_CLASSES, one, statuses.class_status(one, now))
        for gateway in filter(self._is_planned, self.gateways()):
            address = ports.address_of(own.get(key(gateway)))
            status = statuses.gateway_status(gateway, plan.listeners.get(key(gateway), ()), address, now)
            await self._write(api.GATEWAYS, gateway, status)
        for route in filter(self._is_planned, self.routes()):
            status = statuses.route_status(route, plan.parents.get(key(route), ()), now)
            await self._write(api.HTTP_ROUTES, route, status)

    def _is_planned(self, obj: Tree) -> bool:
        """The plan is of this generation; of another one the next plan tells."""
        return bool(self.planned.get((obj["kind"], key(obj))) == obj["metadata"].get("generation", 0))

    async def _write(self, kind: Kind, obj: Tree, status: Tree) -> None:
        old = obj.get("status") or {}
        if all((old.get(name) or []) == (value or []) for name, value in status.items()):
            return
        meta = obj["metadata"]
        body = {"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}, "status": status}
        try:
            await self.client.tree(kind).patch_status(meta["name"], meta.get("namespace"), body)
        except (Conflict, NotFound) as error:
            log.info("status of %s %s: %s", kind.kind, key(obj), error)
