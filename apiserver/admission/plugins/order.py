"""The admission plugins of a cluster, in the order in which they run, which is Kubernetes'."""

from __future__ import annotations

from collections.abc import Callable

from apiserver.admission.chain import Chain, KeepsUp, Plugin
from apiserver.admission.configuration import chosen, plugin_options
from apiserver.admission.plugins.alwaysadmit import AlwaysAdmit
from apiserver.admission.plugins.alwaysdeny import AlwaysDeny
from apiserver.admission.plugins.alwayspullimages import AlwaysPullImages
from apiserver.admission.plugins.certificates import Certificates
from apiserver.admission.plugins.defaultingressclass import DefaultIngressClass
from apiserver.admission.plugins.defaultstorageclass import DefaultStorageClass
from apiserver.admission.plugins.defaulttolerationseconds import DefaultTolerationSeconds
from apiserver.admission.plugins.denyserviceexternalips import DenyServiceExternalIPs
from apiserver.admission.plugins.escalation import Escalation
from apiserver.admission.plugins.extendedresourcetoleration import ExtendedResourceToleration
from apiserver.admission.plugins.limitpodhardantiaffinitytopology import LimitPodHardAntiAffinityTopology
from apiserver.admission.plugins.limitranger import LimitRanger
from apiserver.admission.plugins.namespaceautoprovision import NamespaceAutoProvision
from apiserver.admission.plugins.namespaceexists import NamespaceExists
from apiserver.admission.plugins.namespacelifecycle import NamespaceLifecycle
from apiserver.admission.plugins.noderestriction import NodeRestriction
from apiserver.admission.plugins.ownerreferencespermissionenforcement import OwnerReferencesPermissionEnforcement
from apiserver.admission.plugins.persistentvolumeclaimresize import PersistentVolumeClaimResize
from apiserver.admission.plugins.podnodeselector import PodNodeSelector
from apiserver.admission.plugins.podtolerationrestriction import PodTolerationRestriction
from apiserver.admission.plugins.priority import Priority
from apiserver.admission.plugins.resourcequota import ResourceQuota, limited_resources
from apiserver.admission.plugins.runtimeclass import RuntimeClass
from apiserver.admission.plugins.serviceaccount import ServiceAccount
from apiserver.admission.plugins.storageobjectinuseprotection import StorageObjectInUseProtection
from apiserver.admission.plugins.taintnodesbycondition import TaintNodesByCondition
from apiserver.admission.podsecurity.configuration import configuration_of
from apiserver.admission.podsecurity.plugin import PodSecurity
from apiserver.admission.policies.policies import ValidatingAdmissionPolicy
from apiserver.admission.policies.typechecking import TypeChecker
from apiserver.admission.webhooks.metrics import WebhookMetrics
from apiserver.admission.webhooks.webhooks import MutatingAdmissionWebhook, ValidatingAdmissionWebhook
from apiserver.authz.authorizer import Authorizer
from apiserver.config import Config
from apiserver.lifecycle import Lifecycle
from apiserver.registry.resources import Resources
from apiserver.serviceresolver import ServiceResolver
from apiserver.webhookclient import WebhookClient
from navarch.exposition import Source

OFF = (
    "AlwaysAdmit", "NamespaceAutoProvision", "NamespaceExists", "LimitPodHardAntiAffinityTopology", "AlwaysPullImages",
    "PodNodeSelector", "PodTolerationRestriction", "ExtendedResourceToleration", "OwnerReferencesPermissionEnforcement",
    "DenyServiceExternalIPs", "AlwaysDeny",
)  # fmt: skip
"""Plugins that run only if --enable-admission-plugins names them. NodeRestriction is on: there is no cluster without it."""


def admission_plugins(
    config: Config, resources: Resources, chain: Chain, authorizer: Authorizer, resolver: ServiceResolver,
    lifecycle: Lifecycle, sources: list[Source],
) -> list[Plugin]:  # fmt: skip
    """The plugins that the flags choose, kept up to date while the server runs. ``sources`` of metrics gets theirs.
    Raises ValueError, OSError."""
    world, cache = resources.backend.world, resources.backend.cache
    asking = authorizer.authorize, chain.forget
    options = plugin_options(config.admission_control_config_file)
    client, metrics = WebhookClient(resolver), WebhookMetrics()
    sources.append(metrics.lines)
    patience = (config.default_not_ready_toleration_seconds, config.default_unreachable_toleration_seconds)
    factories: dict[str, Callable[[], Plugin]] = {
        "AlwaysAdmit": AlwaysAdmit,
        "NamespaceAutoProvision": lambda: NamespaceAutoProvision(resources),
        "NamespaceLifecycle": lambda: NamespaceLifecycle(cache),
        "NamespaceExists": lambda: NamespaceExists(cache),
        "LimitPodHardAntiAffinityTopology": LimitPodHardAntiAffinityTopology,
        "LimitRanger": lambda: LimitRanger(cache),
        "ServiceAccount": lambda: ServiceAccount(world, cache),
        "NodeRestriction": lambda: NodeRestriction(cache, authorizer.authorize),
        "TaintNodesByCondition": TaintNodesByCondition,
        "AlwaysPullImages": AlwaysPullImages,
        "PodSecurity": lambda: PodSecurity(world, cache, configuration_of(options.get("PodSecurity"))),
        "PodNodeSelector": lambda: PodNodeSelector(cache, options.get("PodNodeSelector") or {}),
        "Priority": lambda: Priority(cache),
        "DefaultTolerationSeconds": lambda: DefaultTolerationSeconds(*patience),
        "PodTolerationRestriction": lambda: PodTolerationRestriction(cache),
        "ExtendedResourceToleration": ExtendedResourceToleration,
        "DefaultStorageClass": lambda: DefaultStorageClass(cache),
        "StorageObjectInUseProtection": StorageObjectInUseProtection,
        "OwnerReferencesPermissionEnforcement": lambda: OwnerReferencesPermissionEnforcement(resources, authorizer),
        "PersistentVolumeClaimResize": lambda: PersistentVolumeClaimResize(cache),
        "RuntimeClass": lambda: RuntimeClass(cache),
        "CertificateApproval": lambda: Certificates(authorizer, "CertificateApproval"),
        "CertificateSigning": lambda: Certificates(authorizer, "CertificateSigning"),
        "CertificateSubjectRestriction": lambda: Certificates(authorizer, "CertificateSubjectRestriction"),
        "DefaultIngressClass": lambda: DefaultIngressClass(cache),
        "DenyServiceExternalIPs": DenyServiceExternalIPs,
        "MutatingAdmissionWebhook": lambda: MutatingAdmissionWebhook(resources, client, metrics, *asking),
        "ValidatingAdmissionPolicy": lambda: ValidatingAdmissionPolicy(resources, *asking),
        "ValidatingAdmissionWebhook": lambda: ValidatingAdmissionWebhook(resources, client, metrics, *asking),
        # Last of those that count: what is counted is really going to be stored.
        "ResourceQuota": lambda: ResourceQuota(resources, limited_resources(options.get("ResourceQuota"))),
        "AlwaysDeny": AlwaysDeny,
    }
    usual = [name for name in factories if name not in OFF]
    names = chosen(tuple(factories), usual, config.enable_admission_plugins, config.disable_admission_plugins)
    # Upstream the RBAC kinds' storage refuses escalation, so nobody can switch that off.
    plugins = [Escalation(authorizer), *(factories[name]() for name in names)]
    for plugin in plugins:
        if isinstance(plugin, KeepsUp):
            lifecycle.before_ready.append(plugin.prepare)
            lifecycle.background.append(plugin.follow)

    async def close() -> None:
        try:
            await lifecycle.stopping.wait()
        finally:
            await client.close()

    lifecycle.background += [close, TypeChecker(resources).run]
    return plugins
