"""One Endpoints object for a service: addresses grouped by the ports they serve. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from controllers.endpoints import members
from controllers.endpoints.members import Port
from navarch.api.pods import is_ready
from navarch.api.types import core_v1, meta_v1

Address = core_v1.EndpointAddress
MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MAX_ADDRESSES = 1000
"""Most addresses in one Endpoints object; the rest is only in slices."""


def plan(
    service: core_v1.Service,
    pods: Sequence[core_v1.Pod],
    current: core_v1.Endpoints | None,
    trigger: str | None = None,
) -> core_v1.Endpoints | None:
    """The Endpoints object to write, None if ``current`` is right. It has no resource version if it must be made."""
    subsets, dropped = _truncate(_subsets(service, pods))
    old = current.metadata if current is not None else meta_v1.ObjectMeta()
    labels = {**(service.metadata.labels or {}), MANAGED_BY: MANAGER}
    labels.pop(members.HEADLESS, None)
    if members.is_headless(service):
        labels[members.HEADLESS] = ""
    annotations = dict(old.annotations or {})
    annotations.pop(OVER_CAPACITY, None)
    if dropped:
        annotations[OVER_CAPACITY] = "truncated"
    same = current is not None and (current.subsets or []) == subsets and (old.labels or {}) == labels
    if same and (old.annotations or {}) == annotations:
        return None
    annotations.pop(members.LAST_CHANGE, None)
    if trigger is not None:
        annotations[members.LAST_CHANGE] = trigger
    metadata = msgspec.structs.replace(
        old,
        name=service.metadata.name,
        namespace=service.metadata.namespace,
        labels=labels,
        annotations=annotations or None,
    )
    return core_v1.Endpoints(metadata=metadata, subsets=subsets or None)


def _subsets(service: core_v1.Service, pods: Sequence[core_v1.Pod]) -> list[core_v1.EndpointSubset]:
    publish = bool(service.spec.publish_not_ready_addresses)
    family = next(iter(members.families(service)), "IPv4")
    groups: dict[tuple[Port, ...], tuple[list[Address], list[Address]]] = {}
    for pod in pods:
        ip = members.address(pod, family)
        if ip is None or not members.takes_part(pod, terminating=publish):
            continue
        ports = members.ports(service, pod)
        if not ports and (service.spec.ports or not members.is_headless(service)):
            continue
        address = Address(
            ip=ip,
            node_name=pod.spec.node_name,
            target_ref=members.reference(pod),
            hostname=members.hostname(service, pod),
        )
        ready, unready = groups.setdefault(ports, ([], []))
        (ready if publish or is_ready(pod) else unready).append(address)
    return [_subset(ports, *groups[ports]) for ports in sorted(groups, key=lambda g: [(p.name, p.port) for p in g])]


def _subset(ports: tuple[Port, ...], ready: list[Address], unready: list[Address]) -> core_v1.EndpointSubset:
    def order(address: Address) -> tuple[str, str]:
        return address.ip, (address.target_ref.uid if address.target_ref else None) or ""

    return core_v1.EndpointSubset(
        addresses=sorted(ready, key=order) or None,
        not_ready_addresses=sorted(unready, key=order) or None,
        ports=[
            core_v1.EndpointPort(name=p.name or None, port=p.port, protocol=p.protocol, app_protocol=p.app_protocol)
            for p in ports
        ]
        or None,
    )


def _truncate(subsets: list[core_v1.EndpointSubset]) -> tuple[list[core_v1.EndpointSubset], bool]:
    """At most MAX_ADDRESSES addresses, ready ones first."""
    total = sum(len(s.addresses or ()) + len(s.not_ready_addresses or ()) for s in subsets)
    if total <= MAX_ADDRESSES:
        return subsets, False
    room = MAX_ADDRESSES
    parts: list[tuple[core_v1.EndpointSubset, list[Address]]] = []
    for subset in subsets:
        part = (subset.addresses or [])[:room]
        room -= len(part)
        parts.append((subset, part))
    out = []
    for subset, part in parts:
        rest = (subset.not_ready_addresses or [])[:room]
        room -= len(rest)
        if part or rest:
            out.append(
                msgspec.structs.replace(subset, addresses=part or None, not_ready_addresses=rest or None)
            )
    return out, True
