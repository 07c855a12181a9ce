"""The API server, assembled: store -> cache -> registry -> admission -> HTTP.

``APIServer(world, store, config).app`` is the ASGI application; ``run`` keeps the cache following the store, and for
the real server listens on HTTPS. Tests and simulations use ``app`` in process, with ``listen=False``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from apiserver.admission.chain import Chain, Plugin
from apiserver.aggregation.extension import Extension, GroupVersion
from apiserver.aggregation.priorities import Priorities
from apiserver.audit.audit import Audit
from apiserver.cache.cache import Cache
from apiserver.config import Config
from apiserver.http.discovery import Discovery, entries
from apiserver.http.dispatcher import Dispatcher
from apiserver.http.metrics import Metrics
from apiserver.http.openapi.serving import OpenAPI
from apiserver.http.streams import Streams
from apiserver.http.watch import Watches
from apiserver.registry.reads import Parts, extract
from apiserver.registry.resource import Resource
from apiserver.registry.strategy import Strategy
from apiserver.registry.subresources import Endpoint, EndpointKey
from apiserver.request import LOOPBACK, Context, RequestInfo, User
from apiserver.storage.store import Store, StoreUnavailable
from navarch.world import World

log = logging.getLogger(__name__)


class Authenticator(Protocol):
    async def authenticate(self, scope: Mapping[str, Any]) -> User | None:
        """The user of a request; None without credentials. Raises Unauthorized for credentials that are no good."""
        ...


class Authorizer(Protocol):
    def authorize(self, user: User, info: RequestInfo) -> tuple[bool, str]:
        """Whether the user may do this, and why (not)."""
        ...


class AllowAll:
    """The authorizer of a server without one: tests of the generic path."""

    def authorize(self, user: User, info: RequestInfo) -> tuple[bool, str]:
        return True, ""


class NoCredentials:
    """The authenticator of a server without one: only in-process callers, who bring their user along."""

    async def authenticate(self, scope: Mapping[str, Any]) -> User | None:
        return None


Hook = Callable[["APIServer"], Awaitable[None]]


class APIServer:
    """See the module. Kinds, endpoints, plugins and security are given, so that each can be tested without the others;
    :func:`apiserver.assembly.assemble` gives all of them."""

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
        prefixes = {s.prefix: s for s in reversed(list(strategies.values())) if not s.converts}
        self.cache = Cache(
            world,
            store,
            resources={prefix: extract(s) for prefix, s in prefixes.items()},
            indexes={prefix: s.indexed_field for prefix, s in prefixes.items() if s.indexed_field},
        )
        self.admission = Chain()
        self.authenticator: Authenticator = NoCredentials()
        self.authorizer: Authorizer = AllowAll()
        self.anonymous: Callable[[str], bool] = lambda path: True  # may a request for a path come without credentials?
        self.audit: Audit | None = None
        self.endpoints: dict[EndpointKey, Endpoint] = dict(endpoints or {})
        self.parts = Parts(world, store, self.cache, self.admission)
        self._resources = {key: Resource(self.parts, strategy) for key, strategy in strategies.items()}
        self._custom: dict[tuple[str, str], list[Resource]] = {}  # all served versions, the preferred one first
        self.served = {(r.group, r.kind.version, r.resource): r for r in self._resources.values()}
        self.aggregated: dict[GroupVersion, Extension] = {}  # who answers for a group and version in our place
        self._priorities: Priorities = {}
        self.served_changed: list[Callable[[], None]] = []  # told when custom kinds came or went
        self.documents: dict[str, Callable[[], Mapping[str, Any]]] = {}  # paths that answer with a JSON document
        self.metrics = Metrics()
        self.flows: Any = None  # flow control, where there is some: see apiserver/flowcontrol
        self.watches = Watches(world)
        self.streams = Streams(self)
        self.openapi = OpenAPI(self)
        self._discovery: Discovery | None = None
        self.before_ready: list[Hook] = []  # run once the cache is there: bootstrap objects
        self.background: list[Hook] = []  # run beside the server: reconcilers
        self.ready = False
        self.stopping = asyncio.Event()
        self.app = Dispatcher(self)

    def use(
        self, *, plugins: Sequence[Plugin] | None = None, authenticator: Authenticator | None = None,
        authorizer: Authorizer | None = None,
    ) -> None:  # fmt: skip
        """Takes what can only be made once the cache is there."""
        if plugins is not None:
            self.admission.replace(plugins)
        if authenticator is not None:
            self.authenticator = authenticator
        if authorizer is not None:
            self.authorizer = authorizer

    def resource(self, group: str, resource: str) -> Resource:
        """The verbs of a kind, in its preferred version. Raises KeyError if it is not served."""
        if (group, resource) in self._custom:
            return self._custom[group, resource][0]
        return self._resources[group, resource]

    def is_served(self, info: RequestInfo) -> bool:
        """Whether the resource that a request names is there at this moment."""
        return (info.group, info.version, info.resource) in self.served

    def serve_custom(self, key: tuple[str, str], versions: Sequence[Resource]) -> None:
        """Serves these versions of a custom kind from now on, (group, resource) being ``key``; none ends it."""
        for old in self._custom.pop(key, ()):
            self.served.pop((old.group, old.kind.version, old.resource), None)
        if versions:
            self._custom[key] = list(versions)
            self.served |= {(r.group, r.kind.version, r.resource): r for r in versions}
        self.admission.replace(self.admission.plugins)  # what it remembers of kinds is old now
        self._discovery = None
        for tell in self.served_changed:
            tell()

    @property
    def custom_versions(self) -> list[GroupVersion]:
        """Every (group, version) in which custom kinds are served."""
        return list(dict.fromkeys((r.group, r.kind.version) for versions in self._custom.values() for r in versions))

    def aggregate(self, extensions: Mapping[GroupVersion, Extension], priorities: Priorities) -> None:
        """From now on these answer for their groups and versions, and discovery is in this order."""
        self.aggregated, self._priorities = dict(extensions), priorities
        self._discovery = None

    @property
    def resources(self) -> list[Resource]:
        """All that is served."""
        return [*self._resources.values(), *(r for versions in self._custom.values() for r in versions)]

    @property
    def discovery(self) -> Discovery:
        if self._discovery is None:
            served = {k: v for k, v in self.streams.served.items() if k[:2] in self._resources}
            found = entries(self.resources, self.endpoints, served)
            others = {key: extension.discovered() for key, extension in self.aggregated.items()}
            self._discovery = Discovery(found, others, self._priorities)
        return self._discovery

    def context(self, user: User = LOOPBACK) -> Context:
        """A context for what the server does on its own account."""
        return Context(self.world, user, RequestInfo("", ""), "kube-apiserver")

    def health_checks(self, which: str) -> dict[str, Callable[[], Awaitable[None]]]:
        """The checks of /healthz, /livez or /readyz by name; each raises if something is wrong."""

        async def ping() -> None:
            return None

        async def store() -> None:
            async with asyncio.timeout(5):
                await self.store.current_revision()

        async def cache() -> None:
            if not self.cache.ready:
                raise StoreUnavailable("the cache is not filled")

        async def started() -> None:
            if not self.ready:
                raise StoreUnavailable("starting")

        async def shutdown() -> None:
            if self.stopping.is_set():
                raise StoreUnavailable("stopping")

        checks: dict[str, Callable[[], Awaitable[None]]] = {"ping": ping, "log": ping, "etcd": store}
        if which == "readyz":
            checks |= {"informer-sync": cache, "poststarthook/start-apiserver": started, "shutdown": shutdown}
        return checks

    def stop(self) -> None:
        """Begins the shutdown: :meth:`run` returns soon."""
        self.stopping.set()

    async def run(
        self, on_ready: Callable[[list[tuple[str, int]]], None] | None = None, *, listen: bool = True
    ) -> None:
        """Serves until :meth:`stop` or cancellation. ``on_ready`` is called with the bound addresses."""
        listener: Any = None
        async with self.world.task_group() as group:
            group.start(self.cache.run(), "cache")
            await self.cache.wait_ready()
            for hook in self.before_ready:
                await hook(self)
            bound: list[tuple[str, int]] = []
            if listen:
                from apiserver.http.protocol import Listener
                from apiserver.tls import server_context

                listener = Listener(self.world, self.app, server_context(self.config))
                bound = await listener.start([(a, self.config.secure_port) for a in self.config.bind_addresses])
                group.start(listener.run(), "listener")
            for hook in self.background:
                group.start(_run(hook, self), "background")
            group.start(self.app.deadlines.run(), "deadlines")
            if self.config.compaction_interval:
                group.start(self._compact(), "compaction")
            self.ready = True
            if on_ready is not None:
                on_ready(bound)
            try:
                await self.stopping.wait()
            finally:
                self.stopping.set()  # /readyz fails from now on
                if self.config.shutdown_delay_duration and listener is not None:
                    self.app.turning_away = self.config.shutdown_send_retry_after
                    await self.world.sleep(self.config.shutdown_delay_duration)
                self.watches.stop()
                if listener is not None:
                    await listener.close(self.config.shutdown_grace)
                await self.streams.close()
                group.cancel()

    async def _compact(self) -> None:
        """Forgets what is older than one interval: watches and lists may look back at least that far."""
        last = 0
        while True:
            await self.world.sleep(self.config.compaction_interval)
            try:
                if last:
                    await self.store.compact(last)
                last = await self.store.current_revision()
            except StoreUnavailable as error:
                log.warning("compaction failed: %s", error)


async def _run(hook: Hook, server: APIServer) -> None:
    await hook(server)
