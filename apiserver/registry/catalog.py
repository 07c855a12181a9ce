"""Every kind that is served, with its strategy. A kind that is not listed here does not exist: discovery is silent
about it and its paths answer 404. The review kinds, which are asked and never stored, are in :mod:`.reviews`."""

from __future__ import annotations

from dataclasses import dataclass

from apiserver.authn import Authenticator
from apiserver.authz.authorizer import Authorizer
from apiserver.crd.definition import CustomResourceDefinitionStrategy
from apiserver.registry.allocation import AddressAllocator, PortAllocator
from apiserver.registry.apps import DeploymentStrategy, ReplicaSetStrategy
from apiserver.registry.configdata import ConfigMapStrategy, SecretStrategy
from apiserver.registry.endpoints import Endpoint, EndpointKey
from apiserver.registry.endpointslices import EndpointSliceStrategy, EndpointsStrategy
from apiserver.registry.events import EventStrategy, NewEventStrategy
from apiserver.registry.namespacefinalize import namespace_endpoints
from apiserver.registry.namespaces import NamespaceStrategy
from apiserver.registry.nodes import NodeStrategy
from apiserver.registry.podendpoints import pod_endpoints
from apiserver.registry.pods.strategy import PodStrategy
from apiserver.registry.rbac import (
    ClusterRoleBindingStrategy,
    ClusterRoleStrategy,
    RoleBindingStrategy,
    RoleStrategy,
)
from apiserver.registry.reviews import review_endpoints
from apiserver.registry.serviceaddresses import Addresses
from apiserver.registry.services import ServiceStrategy
from apiserver.registry.simple import LeaseStrategy, PriorityClassStrategy, ServiceAccountStrategy
from apiserver.registry.strategy import Strategy
from apiserver.registry.tokenrequest import token_endpoints
from apiserver.storage.store import Store
from apiserver.tokens import TokenIssuer
from navarch.world import World


@dataclass(frozen=True)
class CatalogConfig:
    """What the kinds need to know about the cluster."""

    service_cidr: str = "10.96.0.0/16"
    node_port_low: int = 30000
    node_port_high: int = 32767


def service_addresses(world: World, store: Store, config: CatalogConfig) -> Addresses:
    return Addresses(
        AddressAllocator(world, store, config.service_cidr),
        PortAllocator(world, store, config.node_port_low, config.node_port_high),
    )


def endpoints(authenticator: Authenticator, authorizer: Authorizer, issuer: TokenIssuer) -> dict[EndpointKey, Endpoint]:
    """All that is not a plain verb of a stored kind."""
    return {
        **pod_endpoints(),
        **namespace_endpoints(),
        **token_endpoints(issuer),
        **review_endpoints(authenticator, authorizer),
    }


def catalog(world: World, store: Store, config: CatalogConfig | None = None) -> dict[tuple[str, str], Strategy]:
    """(group, resource) -> strategy. The Service strategy holds the allocators (``.addresses``)."""
    strategies: list[Strategy] = [
        NamespaceStrategy(),
        NodeStrategy(),
        PodStrategy(),
        ServiceStrategy(service_addresses(world, store, config or CatalogConfig())),
        EndpointsStrategy(),
        EndpointSliceStrategy(),
        ConfigMapStrategy(),
        SecretStrategy(),
        ServiceAccountStrategy(),
        EventStrategy(),
        NewEventStrategy(),
        LeaseStrategy(),
        ReplicaSetStrategy(),
        DeploymentStrategy(),
        PriorityClassStrategy(),
        RoleStrategy(),
        RoleBindingStrategy(),
        ClusterRoleStrategy(),
        ClusterRoleBindingStrategy(),
        CustomResourceDefinitionStrategy(world),
    ]
    return {(s.kind.group, s.kind.resource): s for s in strategies}
