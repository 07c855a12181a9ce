"""The admission plugins of a cluster, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from apiserver.admission.certificates import Certificates
from apiserver.admission.chain import Plugin
from apiserver.admission.defaultclasses import DefaultIngressClass, DefaultStorageClass
from apiserver.admission.escalation import Escalation
from apiserver.admission.limitranger import LimitRanger
from apiserver.admission.namespacelifecycle import NamespaceLifecycle
from apiserver.admission.noderestriction import NodeRestriction
from apiserver.admission.podplacement import DefaultTolerationSeconds, TaintNodesByCondition
from apiserver.admission.priority import Priority
from apiserver.admission.resourcequota import ResourceQuota
from apiserver.admission.serviceaccount import ServiceAccount
from apiserver.authz.authorizer import Authorizer
from apiserver.cache.cache import Cache
from navarch.world import World

if TYPE_CHECKING:
    from apiserver.server import APIServer


def default_plugins(
    world: World, cache: Cache, authorizer: Authorizer, server: Callable[[], APIServer]
) -> list[Plugin]:
    """All that Kubernetes switches on by default and that concerns the kinds that are served. ``server`` is asked when
    a request comes."""
    return [
        NamespaceLifecycle(cache),
        LimitRanger(cache),
        ServiceAccount(world, cache),
        NodeRestriction(cache),
        TaintNodesByCondition(),
        Priority(cache),
        DefaultTolerationSeconds(),
        DefaultStorageClass(cache),
        DefaultIngressClass(cache),
        Escalation(authorizer),
        Certificates(authorizer),
        ResourceQuota(server),  # last: it counts what is really going to be stored
    ]
