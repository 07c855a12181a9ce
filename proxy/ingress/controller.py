"""The ingress controller of one node: follows Ingresses and what they name, and keeps nginx' configuration equal to them.

An Ingress that nginx refuses is set aside and named; the others go on. Every node has a controller and an nginx; the one
whose node answers for the load balancer's address writes statuses and events, so that each is written once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from navarch.api import wellknown
from navarch.api.errors import NotFound, StatusError
from navarch.api.types import core_v1, discovery_v1, networking_v1
from navarch.client.client import Client
from navarch.client.events import EventRecorder
from navarch.client.informer import SharedInformers, key_of
from navarch.client.transport import TransportError
from navarch.world import Backoff, World
from proxy.ingress.config import Place
from proxy.ingress.keeper import Keeper, Serves
from proxy.ingress.model import Problem, Site
from proxy.ingress.nginx import NginxError
from proxy.ingress.routes import is_ours, key, site
from proxy.proxy import service_key

log = logging.getLogger(__name__)

Ingress = networking_v1.Ingress
SERVICE = ("kube-system", "navarch-ingress")
GATHER = 0.1  # seconds to gather changes before a reload: each starts a new worker


class IngressController:
    def __init__(
        self, client: Client, world: World, informers: SharedInformers, node: str, place: Place, nginx: Serves,
        events: EventRecorder | None = None,
    ) -> None:  # fmt: skip
        self.client, self.world, self.node, self.events = client, world, node, events
        self.ingresses = informers.informer(Ingress)
        self.classes = informers.informer(networking_v1.IngressClass)
        self.services = informers.informer(core_v1.Service)
        self.slices = informers.informer(discovery_v1.EndpointSlice, indexers={"service": service_key})
        self.secrets = informers.informer(core_v1.Secret, field_selector="type=kubernetes.io/tls")
        self.all: tuple[Any, ...] = (self.ingresses, self.classes, self.services, self.slices, self.secrets)
        self.reported: dict[Problem, None] = {}
        self.wake, self.synced = asyncio.Event(), asyncio.Event()
        self.keeper = Keeper(world, nginx, place, key, self.build, self.wake.set)
        for informer in self.all:
            informer.add_handler(self._changed)

    def _changed(self, kind: str, old: object, new: object) -> None:
        self.wake.set()

    async def run(self) -> None:
        for informer in self.all:
            await informer.wait_synced()
        backoff = Backoff(self.world, first=0.5, most=30.0)
        while True:
            self.wake.clear()
            try:
                await self._once()
            except (NginxError, OSError, StatusError, TransportError) as error:
                log.error("%s; trying again", error)
                await self.world.sleep(backoff.next())
                continue
            backoff.reset()
            await self.wake.wait()
            await self.world.sleep(GATHER)

    def ours(self) -> list[Ingress]:
        classes = {c.metadata.name or "": c for c in self.classes.list()}
        return [i for i in self.ingresses.list() if is_ours(i, classes) and i.metadata.deletion_timestamp is None]

    def build(self, ingresses: Sequence[Ingress]) -> Site:
        return site(
            ingresses, self.services.get_key, lambda name: self.slices.by_index("service", name), self.secrets.get_key
        )

    async def _once(self) -> None:
        ingresses = self.ours()
        desired, guilty = await self.keeper.keep(ingresses)
        self.synced.set()
        rejected = [Problem(owner, "Rejected", f"nginx refuses it: {why}") for owner, why in guilty.items()]
        await self._report(ingresses, [*desired.problems, *rejected])

    # Statuses and events

    def _service(self) -> core_v1.Service | None:
        return self.services.get(*SERVICE)

    def leads(self) -> bool:
        service = self._service()
        return service is not None and (service.metadata.annotations or {}).get(wellknown.ANNOUNCED_BY) == self.node

    async def _report(self, ingresses: list[Ingress], problems: list[Problem]) -> None:
        if not self.leads():
            self.reported.clear()
            return
        service = self._service()
        balancer = service.status.load_balancer if service is not None else None
        desired = [i.ip for i in (balancer.ingress if balancer else None) or () if i.ip]
        for ingress in ingresses:
            shown = ingress.status.load_balancer
            if [i.ip for i in (shown.ingress if shown else None) or ()] != desired:
                await self._set_status(ingress, desired)
        fresh = [p for p in problems if p not in self.reported]
        self.reported = dict.fromkeys(problems)
        for problem in fresh:
            subject = self.ingresses.get_key(problem.owner)
            log.warning("ingress %s: %s: %s", problem.owner, problem.reason, problem.text)
            if subject is not None and self.events is not None:
                self.events.event(subject, "Warning", problem.reason, problem.text)

    async def _set_status(self, ingress: Ingress, addresses: list[str]) -> None:
        meta = ingress.metadata
        points = [{"ip": address} for address in addresses] or None
        body = {"metadata": {"uid": meta.uid}, "status": {"loadBalancer": {"ingress": points}}}
        try:
            await self.client[Ingress].patch_status(meta.name or "", meta.namespace, body)
        except NotFound:
            log.info("ingress %s is gone", key_of(meta.namespace, meta.name or ""))
