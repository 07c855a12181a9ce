"""Every kind that is served, with its strategy. A kind that is not listed here does not exist: discovery is silent
about it and its paths answer 404. The review kinds, which are asked and never stored, are in :mod:`.reviews`."""

from __future__ import annotations

from dataclasses import dataclass

from apiserver.aggregation.strategy import APIServiceStrategy
from apiserver.authn.authenticator import Authenticator
from apiserver.authz.authorizer import Authorizer
from apiserver.crd.definition import CustomResourceDefinitionStrategy
from apiserver.registry.admissionpolicies import (
    ValidatingAdmissionPolicyBindingStrategy,
    ValidatingAdmissionPolicyStrategy,
)
from apiserver.registry.allocation import AddressAllocator, PortAllocator
from apiserver.registry.apps import DeploymentStrategy, ReplicaSetStrategy
from apiserver.registry.autoscaling import HorizontalPodAutoscalerStrategy
from apiserver.registry.autoscalingv1 import HorizontalPodAutoscalerV1Strategy
from apiserver.registry.certificates import CertificateSigningRequestStrategy
from apiserver.registry.configdata import ConfigMapStrategy, SecretStrategy
from apiserver.registry.cronjobs import CronJobStrategy
from apiserver.registry.daemonsets import ControllerRevisionStrategy, DaemonSetStrategy
from apiserver.registry.disruption import PodDisruptionBudgetStrategy
from apiserver.registry.endpoints import Endpoint, EndpointKey
from apiserver.registry.endpointslices import EndpointSliceStrategy, EndpointsStrategy
from apiserver.registry.events import EventStrategy, NewEventStrategy
from apiserver.registry.flowcontrol import FlowSchemaStrategy, PriorityLevelConfigurationStrategy
from apiserver.registry.ingresses import IngressClassStrategy, IngressStrategy
from apiserver.registry.jobs import JobStrategy
from apiserver.registry.namespacefinalize import namespace_endpoints
from apiserver.registry.namespaces import NamespaceStrategy
from apiserver.registry.networkpolicies import NetworkPolicyStrategy
from apiserver.registry.nodes import NodeStrategy
from apiserver.registry.podendpoints import pod_endpoints
from apiserver.registry.pods.strategy import PodStrategy
from apiserver.registry.quotas import LimitRangeStrategy, ResourceQuotaStrategy
from apiserver.registry.rbac import (
    ClusterRoleBindingStrategy,
    ClusterRoleStrategy,
    RoleBindingStrategy,
    RoleStrategy,
)
from apiserver.registry.replicationcontrollers import PodTemplateStrategy, ReplicationControllerStrategy
from apiserver.registry.reviews import review_endpoints
from apiserver.registry.runtimeclasses import RuntimeClassStrategy
from apiserver.registry.serviceaddresses import Addresses
from apiserver.registry.serviceips import IPAddressStrategy, ServiceCIDRStrategy
from apiserver.registry.services import ServiceStrategy
from apiserver.registry.simple import LeaseStrategy, PriorityClassStrategy, ServiceAccountStrategy
from apiserver.registry.statefulsets import StatefulSetStrategy
from apiserver.registry.storage import (
    CSIDriverStrategy,
    CSINodeStrategy,
    CSIStorageCapacityStrategy,
    StorageClassStrategy,
    VolumeAttachmentStrategy,
    VolumeAttributesClassStrategy,
)
from apiserver.registry.strategy import Strategy
from apiserver.registry.tokenrequest import token_endpoints
from apiserver.registry.volumeclaims import PersistentVolumeClaimStrategy, PersistentVolumeStrategy
from apiserver.registry.webhooks import MutatingWebhookConfigurationStrategy, ValidatingWebhookConfigurationStrategy
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
    """(group, resource) -> strategy. The Service strategy holds the allocators (``.addresses``).

    A kind that is served in a second version has it behind its resource's name there: ``resource.v1``."""
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
        PersistentVolumeStrategy(),
        PersistentVolumeClaimStrategy(),
        PodTemplateStrategy(),
        ReplicationControllerStrategy(),
        ResourceQuotaStrategy(),
        LimitRangeStrategy(),
        StatefulSetStrategy(),
        DaemonSetStrategy(),
        ControllerRevisionStrategy(),
        JobStrategy(),
        CronJobStrategy(),
        HorizontalPodAutoscalerStrategy(),
        HorizontalPodAutoscalerV1Strategy(),
        PodDisruptionBudgetStrategy(),
        IngressStrategy(),
        IngressClassStrategy(),
        NetworkPolicyStrategy(),
        ServiceCIDRStrategy(),
        IPAddressStrategy(),
        StorageClassStrategy(),
        VolumeAttachmentStrategy(),
        CSIDriverStrategy(),
        CSINodeStrategy(),
        CSIStorageCapacityStrategy(),
        VolumeAttributesClassStrategy(),
        RuntimeClassStrategy(),
        CertificateSigningRequestStrategy(),
        FlowSchemaStrategy(),
        PriorityLevelConfigurationStrategy(),
        CustomResourceDefinitionStrategy(world),
        MutatingWebhookConfigurationStrategy(),
        ValidatingWebhookConfigurationStrategy(),
        APIServiceStrategy(world),
        ValidatingAdmissionPolicyStrategy(),
        ValidatingAdmissionPolicyBindingStrategy(),
    ]
    out: dict[tuple[str, str], Strategy] = {}
    for strategy in strategies:
        kind = strategy.kind
        first = (kind.group, kind.resource)
        out[first if first not in out else (kind.group, f"{kind.resource}.{kind.version}")] = strategy
    return out
