"""The API server, assembled: store -> cache -> registry -> admission -> HTTP.

``APIServer(world, store, config).app`` is the ASGI application; ``run`` keeps the cache following the store, and for
the real server listens on HTTPS. Tests and simulations use ``app`` in process, with ``listen=False``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from apiserver.admission.chain import Chain
from apiserver.cache.cache import Cache
from apiserver.config import Config
from apiserver.health import Health
from apiserver.http.agents import Agents
from apiserver.http.apis import APIs
from apiserver.http.dispatcher import Dispatcher
from apiserver.http.gates import Gates
from apiserver.http.metrics import Metrics
from apiserver.http.openapi.serving import OpenAPI
from apiserver.http.pages import Pages
from apiserver.http.resources import ResourceHandler
from apiserver.http.streams import Streams
from apiserver.http.watch import OpenWatches
from apiserver.lifecycle import Hook, Lifecycle
from apiserver.registry.reads import Backend, extract
from apiserver.registry.resources import Resources
from apiserver.registry.strategy import Strategy
from apiserver.registry.subresources import Endpoint, EndpointKey
from apiserver.serviceresolver import ServiceResolver
from apiserver.storage.compaction import keep_compacted
from apiserver.storage.health import StoreHealth
from apiserver.storage.store import Store, StoreUnavailable
from navarch.api.errors import StatusError
from navarch.world import Backoff, World

log = logging.getLogger(__name__)
FIRST_PAUSE, MAX_PAUSE = 1.0, 60.0  # seconds until a background task that failed begins again


class APIServer:
    """See the module. Kinds, endpoints, plugins and security are given, so that each can be tested without the others;
    :func:`apiserver.assembly.assemble` gives all of them. No part of the server imports this one."""

    def __init__(
        self,
        world: World,
        store: Store,
        config: Config | None = None,
        *,
        strategies: Mapping[tuple[str, str], Strategy],
        endpoints: Mapping[EndpointKey, Endpoint] | None = None,
    ) -> None:
        self.world, self.store, self.config = world, store, config or Config()
        prefixes = {s.prefix: s for s in reversed(list(strategies.values())) if s.codec.same}
        self.cache = Cache(
            world,
            store,
            resources={prefix: extract(s) for prefix, s in prefixes.items()},
            indexes={prefix: s.indexed_field for prefix, s in prefixes.items() if s.indexed_field},
        )
        self.lifecycle, self.gates, self.metrics = Lifecycle(), Gates(), Metrics()
        self.store_health = StoreHealth(world, store)
        self.health = Health(self.cache, self.store_health, self.lifecycle.stopping)
        self.admission = Chain()
        self.resources = Resources(Backend(world, store, self.cache, self.admission), strategies)
        self.resources.changed.append(self.admission.forget)
        self.endpoints: dict[EndpointKey, Endpoint] = dict(endpoints or {})
        self.documents: dict[str, Callable[[], Mapping[str, Any]]] = {}  # paths that answer with a JSON document
        self.resolver = ServiceResolver(self.resources, self.config.proxy_denied_cidrs)
        self.agents = Agents(self.resources, self.config)
        self.streams = Streams(self.resources, self.admission, self.agents, self.resolver)
        self.watches = OpenWatches(world, self.config.min_request_timeout)
        self.apis = APIs(self.resources, self.endpoints, self.streams.served)
        self.metrics.is_served = self.apis.is_listed
        openapi = OpenAPI(self.apis, self.documents)
        pages = Pages(self.apis, openapi, self.metrics, self.documents, self.health.checks, self.gates)
        handler = ResourceHandler(self.resources, self.endpoints, self.streams, self.watches)
        self.app = Dispatcher(self.gates, self.apis, handler, pages, self.metrics, self.config.request_timeout)

    @property
    def ready(self) -> bool:
        """Whether it has begun to serve."""
        return self.health.loops.is_set()

    def stop(self) -> None:
        """Begins the shutdown: :meth:`run` returns soon."""
        self.lifecycle.stopping.set()

    async def run(
        self, on_ready: Callable[[list[tuple[str, int]]], None] | None = None, *, listen: bool = True
    ) -> None:
        """Serves until :meth:`stop` or cancellation. ``on_ready`` is called with the bound addresses."""
        listener: Any = None
        async with self.world.task_group() as group:
            group.start(self.cache.run(), "cache")
            group.start(self.store_health.run(), "store-health")
            await self.cache.wait_ready()
            await self._make_objects()
            bound: list[tuple[str, int]] = []
            if listen:
                from apiserver.http.protocol import Listener
                from apiserver.tls import server_context

                listener = Listener(self.world, self.app, server_context(self.config))
                bound = await listener.start([(a, self.config.secure_port) for a in self.config.bind_addresses])
                group.start(listener.run(), "listener")
            for hook in self.lifecycle.background:
                group.start(_run(hook, self.world), "background")
            group.start(self.app.deadlines.run(), "deadlines")
            if self.config.compaction_interval:
                group.start(keep_compacted(self.world, self.store, self.config.compaction_interval), "compaction")
            group.start(self._begin_again(), "begin-again")
            self.health.loops.set()
            if on_ready is not None:
                on_ready(bound)
            try:
                await self.lifecycle.stopping.wait()
            finally:
                self.lifecycle.stopping.set()  # /readyz fails from now on
                if self.config.shutdown_delay_duration and listener is not None:
                    self.app.turn_away(self.config.shutdown_send_retry_after)
                    await self.world.sleep(self.config.shutdown_delay_duration)
                self.watches.stop()
                if listener is not None:
                    await listener.close(self.config.shutdown_grace)
                await self.streams.close()
                group.cancel()

    async def _make_objects(self) -> None:
        for hook in self.lifecycle.before_ready:
            await hook()
        self.health.objects.set()

    async def _begin_again(self) -> None:
        """When the store was emptied or put back: what is made at every start may be missing."""
        backoff = Backoff(self.world, first=0.1, most=5.0)
        while True:
            await self.cache.rewound.wait()
            self.cache.rewound.clear()
            self.health.objects.clear()
            await self.cache.wait_ready()
            try:
                await self._make_objects()
                backoff.reset()
            except (StatusError, StoreUnavailable, ExceptionGroup) as error:
                log.warning("cannot make the default objects again: %s", error)
                self.cache.rewound.set()
                await self.world.sleep(backoff.next())


async def _run(hook: Hook, world: World) -> None:
    """A task beside the server. One that fails begins again, later each time: no object may end the server."""
    pause = FIRST_PAUSE
    while True:
        try:
            return await hook()
        except Exception:
            log.exception("background task %s failed; it begins again in %g s", hook, pause)
        await world.sleep(pause)
        pause = min(pause * 2, MAX_PAUSE)
