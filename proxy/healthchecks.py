"""Health check node ports: whether this node has endpoints of a Service, for load balancers that send packets only there.

A Service of type LoadBalancer with externalTrafficPolicy Local has spec.healthCheckNodePort. Every node answers on that port:
200 if it has ready endpoints of the Service, else 503, with the number as JSON, as kube-proxy does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping

from navarch.api.types import core_v1, discovery_v1
from navarch.client.health import Handler, Page, serving
from navarch.client.informer import SharedInformers, key_of
from navarch.client.watch import DELETED
from navarch.world import Backoff, World
from proxy.proxy import service_key

log = logging.getLogger(__name__)


class EveryPath(Mapping[str, Handler]):
    """The same page at any path."""

    def __init__(self, page: Callable[[], Page]) -> None:
        self.page = page

    def __getitem__(self, path: str) -> Handler:
        return lambda query: self.page()

    def __iter__(self) -> Iterator[str]:
        return iter(("/",))

    def __len__(self) -> int:
        return 1


def port_of(service: core_v1.Service) -> int:
    """The port on which nodes tell of the service, 0 if they do not."""
    spec = service.spec
    balanced = spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"
    return spec.health_check_node_port or 0 if balanced else 0


class HealthChecks:
    """Serves the ports on all of this node's addresses (``host``)."""

    def __init__(self, world: World, informers: SharedInformers, node: str, host: str = "0.0.0.0") -> None:
        self.world, self.node, self.host = world, node, host
        self.services = informers.informer(core_v1.Service)
        self.slices = informers.informer(discovery_v1.EndpointSlice, indexers={"service": service_key})
        self.ports: dict[str, int] = {}  # service -> port
        self.wake = asyncio.Event()
        self.services.add_handler(self.on_service)

    def on_service(self, kind: str, old: core_v1.Service | None, service: core_v1.Service) -> None:
        key = key_of(service.metadata.namespace, service.metadata.name or "")
        port = 0 if kind == DELETED else port_of(service)
        if port != self.ports.get(key, 0):
            self.ports.pop(key, None)
            if port:
                self.ports[key] = port
            self.wake.set()

    def local_endpoints(self, key: str) -> int:
        addresses: dict[str, None] = {}
        for piece in self.slices.by_index("service", key):
            for endpoint in piece.endpoints or ():
                ready = endpoint.conditions is None or endpoint.conditions.ready is not False
                if ready and endpoint.node_name == self.node:
                    addresses |= dict.fromkeys(endpoint.addresses)
        return len(addresses)

    def page(self, key: str) -> Page:
        namespace, _, name = key.partition("/")
        count = self.local_endpoints(key)
        body = {"service": {"namespace": namespace, "name": name}, "localEndpoints": count, "serviceProxyHealthy": True}
        return (200 if count else 503), "application/json", json.dumps(body).encode()

    async def run(self) -> None:
        """Serves until cancelled. A port that somebody else has is tried again later and later."""
        await self.slices.wait_synced()
        served: dict[str, tuple[int, contextlib.AsyncExitStack]] = {}
        backoff = Backoff(self.world, first=1.0, most=60.0)
        try:
            while True:
                self.wake.clear()
                for key in [key for key, (port, _) in served.items() if self.ports.get(key) != port]:
                    await served.pop(key)[1].aclose()
                failed = [key for key in self.ports if key not in served and not await self._serve(key, served)]
                if not failed:
                    backoff.reset()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff.next() if failed else None):
                        await self.wake.wait()
        finally:
            for _, stack in served.values():
                await stack.aclose()

    async def _serve(self, key: str, served: dict[str, tuple[int, contextlib.AsyncExitStack]]) -> bool:
        port, stack = self.ports[key], contextlib.AsyncExitStack()
        try:
            await stack.enter_async_context(serving(EveryPath(lambda: self.page(key)), (self.host, port)))
        except OSError as error:
            log.error("health check port %d of service %s: %s", port, key, error)
            return False
        served[key] = port, stack
        return True
