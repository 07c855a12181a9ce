"""Puts the whole API server together: every kind, endpoint, plugin, and the security that goes with them."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path

from apiserver.admission.plugins.order import admission_plugins
from apiserver.aggregation.aggregator import Aggregator
from apiserver.audit.setup import audit_log
from apiserver.authn.setup import LastUsed, authenticator, token_issuer
from apiserver.authz.aggregation import keep_aggregated
from apiserver.authz.authorizer import Authorizer
from apiserver.authz.rbac import Rbac
from apiserver.bootstrap.kubernetesservice import KubernetesService
from apiserver.bootstrap.objects import bootstrap, keep_repairing, repair, token_tracking
from apiserver.catalog import CatalogConfig, catalog, endpoints
from apiserver.config import Config
from apiserver.crd.serving import Definitions
from apiserver.encryption.configuration import load
from apiserver.encryption.providers import SYSTEM_NOISE
from apiserver.encryption.store import EncryptedStore
from apiserver.flowcontrol.keeping import flow_control
from apiserver.http.extension import Extension, GroupVersion
from apiserver.kinds.core.services import ServiceStrategy
from apiserver.kinds.core.services_addresses import Addresses
from apiserver.kinds.networking.servicecidrs import default_range, ready_networks
from apiserver.lifecycle import Hook, Lifecycle
from apiserver.registry.ensure import ensure
from apiserver.resourcemetrics.api import OWN, ResourceMetrics
from apiserver.server import APIServer
from apiserver.storage.store import Store
from navarch.world import World

DEFAULT_PORT = 6443
JWKS_PATH = "/openid/v1/jwks"


def assemble(
    world: World, store: Store, config: Config, extensions: Mapping[GroupVersion, Extension] | None = None
) -> APIServer:
    """A server that serves everything in the catalog; call within a running event loop. ``extensions`` answer for groups and
    versions as servers behind APIServices would."""
    low, high = config.node_ports
    encrypted: EncryptedStore | None = None
    if config.encryption_provider_config:
        rules = load(config.encryption_provider_config, SYSTEM_NOISE)
        store = encrypted = EncryptedStore(store, rules, config.encryption_provider_config)
    kinds = catalog(world, store, CatalogConfig(config.service_cluster_ip_range, low, high, config.event_ttl))
    server = APIServer(world, store, config, strategies=kinds)
    resources, cache, lifecycle, sources = server.resources, server.cache, server.lifecycle, server.metrics.sources
    if encrypted is not None:
        encrypted.serves({s.prefix: (s.kind.group, s.kind.resource) for s in kinds.values() if s.codec.same})
        resources.backend.needs_rewrite = encrypted.needs_rewrite

    tokens = token_issuer(world, config)
    last_used = LastUsed(world, resources["", "secrets"])
    authn, anonymous = authenticator(config, world, cache, tokens, last_used, lifecycle)
    authorizer = Authorizer(cache, config.authorization_always_allow_paths)
    server.endpoints |= endpoints(resources, server.admission, authn, authorizer, tokens)
    server.documents[JWKS_PATH] = tokens.jwks
    server.documents["/.well-known/openid-configuration"] = lambda: tokens.openid_configuration(_jwks_uri(config))
    server.admission.replace(
        admission_plugins(config, resources, server.admission, authorizer, server.resolver, lifecycle, sources)
    )
    definitions = Definitions(resources, server.resolver)
    _run(lifecycle, definitions.prepare, definitions.run)
    gates = server.gates
    gates.authenticator, gates.authorizer, gates.anonymous = authn, authorizer, anonymous
    resources.backend.authorize = authorizer.authorize
    gates.audit = audit_log(world, config, lifecycle)
    gates.flows = flow_control(config, resources, lifecycle, sources)

    services = kinds["", "services"]
    assert isinstance(services, ServiceStrategy)
    _bootstrap(server, services.addresses, authorizer.rbac)
    # After the definitions: their kinds are registered, too.
    own = {OWN: ResourceMetrics(world, cache, server.agents), **(extensions or {})}
    aggregator = Aggregator(server.apis, config, server.resolver, own)
    _run(lifecycle, aggregator.prepare, aggregator.run)
    return server


def _run(lifecycle: Lifecycle, prepare: Hook, run: Hook) -> None:
    lifecycle.before_ready.append(prepare)
    lifecycle.background.append(run)


def _bootstrap(server: APIServer, addresses: Addresses, rbac: Rbac) -> None:
    """Has the server make the default objects before it is ready, and keep right after what has to be kept:
    default/kubernetes, the allocators, the rules of aggregated roles."""
    config, resources, world, cache = server.config, server.resources, server.world, server.cache
    where = config.advertise_address or config.bind_addresses[0]
    published = KubernetesService(resources, addresses.addresses.first, where, config.secure_port or DEFAULT_PORT)

    def networks() -> list[IPv4Network]:
        return ready_networks(entry.tree() for entry in cache.list("/registry/servicecidrs/").entries)

    addresses.addresses.more = networks

    async def prepare() -> None:
        await repair(cache, addresses)
        await bootstrap(resources)
        await ensure(resources["networking.k8s.io", "servicecidrs"], default_range(addresses.addresses.network))
        await ensure(resources["", "configmaps"], token_tracking(world.now()))
        await published.prepare()

    async def aggregate() -> None:
        await keep_aggregated(world, cache, resources["rbac.authorization.k8s.io", "clusterroles"], rbac)

    server.lifecycle.before_ready.append(prepare)
    server.lifecycle.background += [published.run, lambda: keep_repairing(world, cache, addresses), aggregate]


def _jwks_uri(config: Config) -> str:
    host = config.advertise_address or config.bind_addresses[0]
    return f"https://{host}:{config.secure_port}{JWKS_PATH}"


async def open_store(world: World, text: str) -> Store:
    """The store that ``--store`` names. Raises ValueError, OSError, StoreUnavailable."""
    kind, _, rest = text.partition(":")
    if kind == "memory":
        from apiserver.storage.memory import MemoryStore

        return MemoryStore()
    if kind == "sqlite" and rest:
        from apiserver.storage.sqlite import SqliteStore

        return SqliteStore(world, Path(rest))
    if kind == "etcd" and rest:
        from apiserver.storage.etcd import EtcdStore

        etcd = EtcdStore(world, rest.split(","))
        await etcd.start()
        return etcd
    raise ValueError(f"--store {text}: use memory, sqlite:FILE or etcd:ADDRESS")
