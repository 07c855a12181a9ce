"""Puts the whole API server together: every kind, endpoint, plugin, and the security that goes with them."""

from __future__ import annotations

from pathlib import Path

from apiserver.admission.plugins.order import admission_plugins
from apiserver.aggregation.aggregator import add_aggregation
from apiserver.audit.setup import add_audit
from apiserver.authn.setup import add_authentication, token_issuer
from apiserver.authz.authorizer import Authorizer
from apiserver.bootstrap.objects import add_bootstrap
from apiserver.config import Config
from apiserver.crd.serving import add_definitions
from apiserver.encryption.configuration import load
from apiserver.encryption.providers import SYSTEM_NOISE
from apiserver.encryption.store import EncryptedStore
from apiserver.flowcontrol.keeping import add_flow_control
from apiserver.kinds.catalog import CatalogConfig, catalog, endpoints
from apiserver.kinds.core.services import ServiceStrategy
from apiserver.resourcemetrics.api import OWN, ResourceMetrics
from apiserver.server import APIServer
from apiserver.storage.store import Store
from navarch.world import World

JWKS_PATH = "/openid/v1/jwks"


def assemble(world: World, store: Store, config: Config) -> APIServer:
    """A server that serves everything in the catalog; call within a running event loop."""
    low, high = config.node_ports
    encrypted: EncryptedStore | None = None
    if config.encryption_provider_config:
        rules = load(config.encryption_provider_config, SYSTEM_NOISE)
        store = encrypted = EncryptedStore(store, rules, config.encryption_provider_config)
    kinds = catalog(world, store, CatalogConfig(config.service_cluster_ip_range, low, high))
    server = APIServer(world, store, config, strategies=kinds)
    if encrypted is not None:
        encrypted.serves({s.prefix: (s.kind.group, s.kind.resource) for s in kinds.values() if not s.converts})
        server.parts.stale = encrypted.stale
    tokens = token_issuer(world, config)
    authenticator = add_authentication(server, tokens)
    authorizer = Authorizer(server.cache, config.authorization_always_allow_paths)
    add_audit(server)
    server.endpoints |= endpoints(authenticator, authorizer, tokens)
    server.use(plugins=admission_plugins(server, authorizer), authenticator=authenticator, authorizer=authorizer)
    server.documents[JWKS_PATH] = tokens.jwks
    server.documents["/.well-known/openid-configuration"] = lambda: tokens.openid_configuration(_jwks_uri(config))
    services = kinds["", "services"]
    assert isinstance(services, ServiceStrategy)
    add_definitions(server)
    add_flow_control(server)
    add_bootstrap(server, services.addresses, authorizer.rbac)
    add_aggregation(server, {OWN: ResourceMetrics(server)})
    return server


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
