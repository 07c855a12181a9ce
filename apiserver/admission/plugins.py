"""The admission plugins of a cluster, in the order in which they run."""

from __future__ import annotations

from apiserver.admission.chain import Plugin
from apiserver.admission.escalation import Escalation
from apiserver.admission.namespacelifecycle import NamespaceLifecycle
from apiserver.admission.noderestriction import NodeRestriction
from apiserver.admission.podplacement import DefaultTolerationSeconds, TaintNodesByCondition
from apiserver.admission.priority import Priority
from apiserver.admission.serviceaccount import ServiceAccount
from apiserver.authz.authorizer import Authorizer
from apiserver.cache.cache import Cache
from navarch.world import World


def default_plugins(world: World, cache: Cache, authorizer: Authorizer) -> list[Plugin]:
    """All that Kubernetes switches on by default and that concerns the kinds that are served."""
    return [
        NamespaceLifecycle(cache),
        ServiceAccount(world, cache),
        NodeRestriction(cache),
        TaintNodesByCondition(),
        Priority(cache),
        DefaultTolerationSeconds(),
        Escalation(authorizer),
    ]
