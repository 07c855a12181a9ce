"""A pod's requests: sums over its containers, its init containers and its overhead.

Amounts are whole numbers: millicores for cpu, base units (bytes, pieces) for everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from navarch.api import quantity
from navarch.api.pods import is_sidecar
from navarch.api.types import core_v1

Amounts = dict[str, int]
Side = Literal["requests", "limits"]

DEFAULT_MILLI_CPU = 100
"""Millicores that scoring assumes for a container without a cpu request (Kubernetes' scheduler util)."""
DEFAULT_MEMORY = 200 * 1024 * 1024
_POD_LEVEL = ("cpu", "memory")
_MISSING = {"cpu": DEFAULT_MILLI_CPU, "memory": DEFAULT_MEMORY}


def is_extended(name: str) -> bool:
    """Whether a resource is one that Kubernetes itself knows nothing of, such as example.com/gpu."""
    return "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")


def amount(name: str, q: quantity.Quantity) -> int:
    """A quantity of the resource in this module's units."""
    return quantity.milli(q) if name == "cpu" else quantity.value(q)


def amounts(listed: Mapping[str, quantity.Quantity] | None) -> Amounts:
    """A ResourceList in this module's units."""
    return {name: amount(name, q) for name, q in listed.items()} if listed else {}


def add(total: Amounts, more: Mapping[str, int]) -> None:
    for name, n in more.items():
        total[name] = total.get(name, 0) + n


def highest(total: Amounts, other: Mapping[str, int]) -> None:
    """Raises each amount in ``total`` to at least that of ``other``."""
    for name, n in other.items():
        if n > total.get(name, -1):
            total[name] = n


def _of(container: core_v1.Container, side: Side, missing: Mapping[str, int]) -> Amounts:
    if container.resources is None:
        return dict(missing)
    own = amounts(container.resources.requests if side == "requests" else container.resources.limits)
    return {**missing, **own} if missing else own


def containers_sum(spec: core_v1.PodSpec, side: Side, missing: Mapping[str, int] = MappingProxyType({})) -> Amounts:
    """The sum of the pod's requests or limits, without overhead. ``missing``: what a container counts for that says
    nothing of a resource."""
    total: Amounts = {}
    for container in spec.containers:
        add(total, _of(container, side, missing))
    # Init containers run one after another, each beside the sidecars started before it: the pod needs the highest of
    # these stages and of the main stage (with all sidecars).
    beside: Amounts = {}
    peak: Amounts = {}
    for container in spec.init_containers or ():
        need = _of(container, side, missing)
        if is_sidecar(container):
            add(total, need)
            add(beside, need)
            need = beside
        else:
            add(need, beside)
        highest(peak, need)
    highest(total, peak)
    own = spec.resources
    listed = (own.requests if side == "requests" else own.limits) if own else None
    for name, q in (listed or {}).items():
        if name in _POD_LEVEL or name.startswith("hugepages-"):
            total[name] = amount(name, q)
    return total


def pod_requests(pod: core_v1.Pod | core_v1.PodSpec) -> Amounts:
    """The resources that the pod reserves on its node, overhead included."""
    spec = pod.spec if isinstance(pod, core_v1.Pod) else pod
    total = containers_sum(spec, "requests")
    add(total, amounts(spec.overhead))
    return total


def pod_limits(pod: core_v1.Pod | core_v1.PodSpec) -> Amounts:
    """The pod's limits; overhead counts only where there is a limit at all."""
    spec = pod.spec if isinstance(pod, core_v1.Pod) else pod
    total = containers_sum(spec, "limits")
    for name, n in amounts(spec.overhead).items():
        if name in total:
            total[name] += n
    return total


def nonzero_requests(pod: core_v1.Pod | core_v1.PodSpec) -> tuple[int, int]:
    """(millicores, bytes) with defaults for containers that ask for nothing: used to score, never to filter. What the pod
    asks for as a whole counts in place of its containers."""
    spec = pod.spec if isinstance(pod, core_v1.Pod) else pod
    total = containers_sum(spec, "requests", _MISSING)
    add(total, amounts(spec.overhead))
    return total["cpu"], total["memory"]
