"""The QoS class of a pod: Guaranteed, Burstable or BestEffort, by the cpu and memory of its containers.

The server writes it into the status, the agent sets oom_score_adj and the order of eviction by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from navarch.api import quantity
from navarch.api.resources import amounts
from navarch.api.types import core_v1

_COUNTED = ("cpu", "memory")


def qos_class(pod: core_v1.Pod | core_v1.PodSpec) -> str:
    """Guaranteed, Burstable or BestEffort (by cpu and memory of all containers, or of the pod where it has them)."""
    spec = pod.spec if isinstance(pod, core_v1.Pod) else pod
    own, containers = spec.resources, [*spec.containers, *(spec.init_containers or ())]
    pairs = [(c.resources.requests, c.resources.limits) if c.resources else (None, None) for c in containers]
    return _qos([(own.requests, own.limits)] if own and (own.requests or own.limits) else pairs)


def qos_of_tree(spec: Mapping[str, Any]) -> str:
    """The same of a pod's spec as a plain tree. Raises QuantityError."""
    own = spec.get("resources") or {}
    sources = [own] if own.get("requests") or own.get("limits") else []
    if not sources:
        containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
        sources = [c.get("resources") or {} for c in containers]
    return _qos([(source.get("requests"), source.get("limits")) for source in sources])


_Listed = Mapping[str, quantity.Quantity] | None


def _qos(sources: Iterable[tuple[_Listed, _Listed]]) -> str:
    any_set, guaranteed = False, True
    for requested, limited in sources:
        requests = {k: v for k, v in amounts(requested).items() if k in _COUNTED and v}
        limits = {k: v for k, v in amounts(limited).items() if k in _COUNTED and v}
        any_set = any_set or bool(requests or limits)
        guaranteed = guaranteed and len(limits) == 2 and all(limits.get(k) == v for k, v in requests.items())
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
