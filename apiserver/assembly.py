"""Puts the whole API server together: every kind, endpoint, plugin, and the security that goes with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apiserver.config import Config
from apiserver.registry.catalog import CatalogConfig, catalog
from apiserver.request import User
from apiserver.server import APIServer
from apiserver.storage.store import Store
from navarch.world import World


class Certificates:
    """Users by client certificate: the common name is the user, organizations are the groups."""

    async def authenticate(self, scope: Mapping[str, Any]) -> User | None:
        from cryptography import x509
        from cryptography.x509.oid import NameOID

        der = scope.get("navarch.peer_certificate")
        if der is None:
            return None
        subject = x509.load_der_x509_certificate(der).subject
        names = [str(a.value) for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        groups = [str(a.value) for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        return User(names[0], (*groups, "system:authenticated")) if names else None


def assemble(world: World, store: Store, config: Config) -> APIServer:
    """A server that serves everything in the catalog; call within a running event loop."""
    low, high = config.node_ports
    kinds = catalog(world, store, CatalogConfig(config.service_cluster_ip_range, low, high))
    server = APIServer(world, store, config, strategies=kinds)
    server.use(authenticator=Certificates())
    return server


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

        return EtcdStore(world, rest)
    raise ValueError(f"--store {text}: use memory, sqlite:FILE or etcd:ADDRESS")
