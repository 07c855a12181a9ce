"""Every kind that is served, with its strategy. A kind that is not listed here does not exist: discovery is silent
about it and its paths answer 404. The review kinds, asked and never stored, are in kinds/authorization/reviews.py."""

from __future__ import annotations

from dataclasses import dataclass

from apiserver.aggregation.strategy import APIServiceStrategy
from apiserver.authn.authenticator import Authenticator
from apiserver.authn.tokens import TokenIssuer
from apiserver.authz.authorizer import Authorizer
from apiserver.crd.definition import CustomResourceDefinitionStrategy
from apiserver.kinds.admissionregistration.mutatingwebhookconfigurations import MutatingWebhookConfigurationStrategy
from apiserver.kinds.admissionregistration.validatingadmissionpolicies import ValidatingAdmissionPolicyStrategy
from apiserver.kinds.admissionregistration.validatingadmissionpolicybindings import (
    ValidatingAdmissionPolicyBindingStrategy,
)
from apiserver.kinds.admissionregistration.validatingwebhookconfigurations import ValidatingWebhookConfigurationStrategy
from apiserver.kinds.apps.controllerrevisions import ControllerRevisionStrategy
from apiserver.kinds.apps.daemonsets import DaemonSetStrategy
from apiserver.kinds.apps.deployments import DeploymentStrategy
from apiserver.kinds.apps.replicasets import ReplicaSetStrategy
from apiserver.kinds.apps.statefulsets import StatefulSetStrategy
from apiserver.kinds.authorization.reviews import review_endpoints
from apiserver.kinds.autoscaling.horizontalpodautoscalers import HorizontalPodAutoscalerStrategy
from apiserver.kinds.autoscaling.horizontalpodautoscalers_v1 import HorizontalPodAutoscalerV1Strategy
from apiserver.kinds.batch.cronjobs import CronJobStrategy
from apiserver.kinds.batch.jobs import JobStrategy
from apiserver.kinds.certificates.certificatesigningrequests import CertificateSigningRequestStrategy
from apiserver.kinds.coordination.leases import LeaseStrategy
from apiserver.kinds.core.configmaps import ConfigMapStrategy
from apiserver.kinds.core.endpoints import EndpointsStrategy
from apiserver.kinds.core.events import DEFAULT_TTL, EventStrategy, NewEventStrategy
from apiserver.kinds.core.limitranges import LimitRangeStrategy
from apiserver.kinds.core.namespaces import NamespaceStrategy
from apiserver.kinds.core.namespaces_finalize import namespace_endpoints
from apiserver.kinds.core.nodes import NodeStrategy
from apiserver.kinds.core.persistentvolumeclaims import PersistentVolumeClaimStrategy
from apiserver.kinds.core.persistentvolumes import PersistentVolumeStrategy
from apiserver.kinds.core.pods.binding import pod_endpoints
from apiserver.kinds.core.pods.strategy import PodStrategy
from apiserver.kinds.core.podtemplates import PodTemplateStrategy
from apiserver.kinds.core.replicationcontrollers import ReplicationControllerStrategy
from apiserver.kinds.core.resourcequotas import ResourceQuotaStrategy
from apiserver.kinds.core.secrets import SecretStrategy
from apiserver.kinds.core.serviceaccounts import ServiceAccountStrategy
from apiserver.kinds.core.serviceaccounts_token import token_endpoints
from apiserver.kinds.core.services import ServiceStrategy
from apiserver.kinds.core.services_addresses import Addresses
from apiserver.kinds.discovery.endpointslices import EndpointSliceStrategy
from apiserver.kinds.flowcontrol.flowschemas import FlowSchemaStrategy
from apiserver.kinds.flowcontrol.prioritylevelconfigurations import PriorityLevelConfigurationStrategy
from apiserver.kinds.networking.ingressclasses import IngressClassStrategy
from apiserver.kinds.networking.ingresses import IngressStrategy
from apiserver.kinds.networking.ipaddresses import IPAddressStrategy
from apiserver.kinds.networking.networkpolicies import NetworkPolicyStrategy
from apiserver.kinds.networking.servicecidrs import ServiceCIDRStrategy
from apiserver.kinds.node.runtimeclasses import RuntimeClassStrategy
from apiserver.kinds.policy.poddisruptionbudgets import PodDisruptionBudgetStrategy
from apiserver.kinds.rbac.clusterroles import ClusterRoleStrategy
from apiserver.kinds.rbac.rolebindings import ClusterRoleBindingStrategy, RoleBindingStrategy
from apiserver.kinds.rbac.roles import RoleStrategy
from apiserver.kinds.scheduling.priorityclasses import PriorityClassStrategy
from apiserver.kinds.storage.csidrivers import CSIDriverStrategy
from apiserver.kinds.storage.csinodes import CSINodeStrategy
from apiserver.kinds.storage.csistoragecapacities import CSIStorageCapacityStrategy
from apiserver.kinds.storage.storageclasses import StorageClassStrategy
from apiserver.kinds.storage.volumeattachments import VolumeAttachmentStrategy
from apiserver.kinds.storage.volumeattributesclasses import VolumeAttributesClassStrategy
from apiserver.registry.allocation import AddressAllocator, PortAllocator
from apiserver.registry.resources import Resources
from apiserver.registry.strategy import Strategy
from apiserver.registry.subresources import Endpoint, EndpointKey
from apiserver.request import Admission
from apiserver.storage.store import Store
from navarch.world import World


@dataclass(frozen=True)
class CatalogConfig:
    """The facts about the cluster that the kinds need."""

    service_cidr: str = "10.96.0.0/16"
    node_port_low: int = 30000
    node_port_high: int = 32767
    event_ttl: float = DEFAULT_TTL  # seconds


def service_addresses(world: World, store: Store, config: CatalogConfig) -> Addresses:
    return Addresses(
        AddressAllocator(world, store, config.service_cidr),
        PortAllocator(world, store, config.node_port_low, config.node_port_high),
    )


def endpoints(
    resources: Resources, admission: Admission, authenticator: Authenticator, authorizer: Authorizer, issuer: TokenIssuer
) -> dict[EndpointKey, Endpoint]:
    """All that is not a plain verb of a stored kind."""
    return {
        **pod_endpoints(resources, admission),
        **namespace_endpoints(resources),
        **token_endpoints(resources, admission, issuer),
        **review_endpoints(resources.backend.cache, authenticator, authorizer),
    }


def catalog(world: World, store: Store, config: CatalogConfig | None = None) -> dict[tuple[str, str], Strategy]:
    """(group, resource) -> strategy. The Service strategy holds the allocators (``.addresses``).

    A kind that is served in a second version has it behind its resource's name there: ``resource.v1``."""
    config = config or CatalogConfig()
    addresses = service_addresses(world, store, config)
    strategies: list[Strategy] = [
        NamespaceStrategy(),
        NodeStrategy(),
        PodStrategy(),
        ServiceStrategy(addresses),
        EndpointsStrategy(),
        EndpointSliceStrategy(),
        ConfigMapStrategy(),
        SecretStrategy(),
        ServiceAccountStrategy(),
        EventStrategy(config.event_ttl),
        NewEventStrategy(config.event_ttl),
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
        IPAddressStrategy(addresses.addresses),
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
