"""Packing a service's endpoints into slices with as few writes as possible: a pure plan.

Endpoints stay in the slice they are in; changed ones are written there; new ones go first into slices that must be
written anyway, then into one existing slice with room for all of them, and only then into new slices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from controllers.endpoints import members
from controllers.endpoints.members import Port, Ports
from controllers.ownership import reference
from navarch.api import wellknown
from navarch.api.types import core_v1, discovery_v1, meta_v1

Endpoint = discovery_v1.Endpoint
EndpointSlice = discovery_v1.EndpointSlice

SERVICE_NAME = wellknown.SERVICE_NAME
MANAGED_BY = wellknown.ENDPOINTSLICE_MANAGED_BY
MANAGER = "endpointslice-controller.k8s.io"
MIRROR_MANAGER = "endpointslicemirroring-controller.k8s.io"
RESERVED = (SERVICE_NAME, MANAGED_BY, members.HEADLESS)


@dataclass
class Plan:
    create: list[EndpointSlice] = field(default_factory=list)
    update: list[EndpointSlice] = field(default_factory=list)
    delete: list[EndpointSlice] = field(default_factory=list)


def plan(
    service: core_v1.Service,
    pods: Sequence[core_v1.Pod],
    zones: Mapping[str, str | None],
    slices: Sequence[EndpointSlice],
    *,
    most: int = 100,
    trigger: str | None = None,
) -> Plan:
    """``zones`` holds the zone (or None) of every node that exists; pods on other nodes are left out.

    ``most`` is the largest slice; ``trigger`` the time of the change, noted on what is written.
    """
    out = Plan()
    present = {s.address_type for s in slices}
    wanted_families = members.families(service)
    labels = _labels(service)
    for family in wanted_families:
        existing = [s for s in slices if s.address_type == family]
        make = _maker(service, "Service", labels, family, trigger)
        pack(out, endpoints_by_ports(service, pods, zones, family), existing, labels, make, most, trigger, keep_one=True)
    for family in sorted(present - set(wanted_families)):
        out.delete += [s for s in slices if s.address_type == family]
    return out


def mirror(
    endpoints: core_v1.Endpoints | None, slices: Sequence[EndpointSlice], *, most: int = 100, most_each: int = 1000
) -> Plan:
    """Slices that say what an Endpoints object written by somebody says; none if there is nothing to mirror.

    Of each subset at most ``most_each`` addresses are taken.
    """
    out = Plan()
    if endpoints is None:
        out.delete = list(slices)
        return out
    labels = {
        **(endpoints.metadata.labels or {}),
        SERVICE_NAME: endpoints.metadata.name or "",
        MANAGED_BY: MIRROR_MANAGER,
    }
    for family in ("IPv4", "IPv6"):
        groups: dict[Ports, dict[str, Endpoint]] = {}
        for subset in endpoints.subsets or ():
            ports = _sorted_ports(subset.ports)
            both = [(a, True) for a in subset.addresses or ()] + [(a, False) for a in subset.not_ready_addresses or ()]
            for address, ready in both[:most_each]:
                if (":" in address.ip) == (family == "IPv6"):
                    endpoint = _mirrored(address, ready)
                    groups.setdefault(ports, {})[_identity(endpoint)] = endpoint
        existing = [s for s in slices if s.address_type == family]
        make = _maker(endpoints, "Endpoints", labels, family, None)
        pack(out, groups, existing, labels, make, most, None, keep_one=False)
    return out


def _mirrored(address: core_v1.EndpointAddress, ready: bool) -> Endpoint:
    return Endpoint(
        addresses=[address.ip],
        conditions=discovery_v1.EndpointConditions(ready=ready),
        hostname=address.hostname,
        node_name=address.node_name,
        target_ref=address.target_ref,
    )


def endpoints_by_ports(
    service: core_v1.Service, pods: Sequence[core_v1.Pod], zones: Mapping[str, str | None], family: str
) -> dict[Ports, dict[str, Endpoint]]:
    """Endpoints by identity, grouped by the ports they serve."""
    out: dict[Ports, dict[str, Endpoint]] = {}
    publish = bool(service.spec.publish_not_ready_addresses)
    for pod in sorted(pods, key=lambda p: p.metadata.name or ""):
        ip = members.address(pod, family)
        if ip is None or not members.takes_part(pod, terminating=True):
            continue
        node = pod.spec.node_name or ""
        if node not in zones and not publish:
            continue
        endpoint = members.endpoint(service, pod, ip, zones.get(node))
        out.setdefault(members.ports(service, pod), {})[_identity(endpoint)] = endpoint
    return out


def _identity(endpoint: Endpoint) -> str:
    ref = endpoint.target_ref
    return f"{ref.uid if ref is not None else ''} {','.join(endpoint.addresses)} {endpoint.hostname or ''}"


def ports_of(slice_: EndpointSlice) -> Ports:
    return _sorted_ports(slice_.ports)


def _sorted_ports(ports: Sequence[discovery_v1.EndpointPort | core_v1.EndpointPort] | None) -> Ports:
    sorted_ports = [Port(p.name or "", p.protocol or "TCP", p.port or 0, p.app_protocol) for p in ports or ()]
    return tuple(sorted(sorted_ports, key=lambda p: (p.name, p.protocol, p.port)))


def _labels(service: core_v1.Service) -> dict[str, str]:
    out = {k: v for k, v in (service.metadata.labels or {}).items() if k not in RESERVED}
    out[SERVICE_NAME] = service.metadata.name or ""
    out[MANAGED_BY] = MANAGER
    if members.is_headless(service):
        out[members.HEADLESS] = ""
    return out


Maker = Callable[[Ports, list[Endpoint]], EndpointSlice]


def pack(
    out: Plan,
    desired: dict[Ports, dict[str, Endpoint]],
    existing: Sequence[EndpointSlice],
    labels: dict[str, str],
    make: Maker,
    most: int,
    trigger: str | None,
    *,
    keep_one: bool,
) -> None:
    """Adds to ``out`` what turns ``existing`` slices of one address type into ``desired``.

    With ``keep_one`` a slice stays even if there is nothing to hold.
    """
    existing = sorted(existing, key=lambda s: s.metadata.name or "")
    groups: dict[Ports, list[EndpointSlice]] = {ports: [] for ports in desired}
    for slice_ in existing:
        groups.setdefault(ports_of(slice_), []).append(slice_)
    written: list[tuple[EndpointSlice, Ports, list[Endpoint]]] = []
    emptied: list[EndpointSlice] = []
    fresh: list[tuple[Ports, list[Endpoint]]] = []
    for ports, slices in groups.items():
        packed = _pack(slices, desired.get(ports, {}), labels, most)
        for slice_, endpoints in packed.update:
            if endpoints:
                written.append((slice_, ports, endpoints))
            else:
                emptied.append(slice_)
        fresh += [(ports, chunk) for chunk in packed.create]
    if keep_one and not fresh and len(emptied) == len(existing):  # so that watchers know that nobody is there
        keep = next((s for s in emptied if not s.ports and not s.endpoints and s.metadata.labels == labels), None)
        if keep is not None:
            emptied.remove(keep)
        else:
            fresh.append(((), []))
    while fresh and emptied:  # one update instead of a deletion and a creation
        ports, endpoints = fresh.pop(0)
        written.append((emptied.pop(0), ports, endpoints))
    out.update += [_rewrite(s, labels, ports, endpoints, trigger) for s, ports, endpoints in written]
    out.create += [make(ports, endpoints) for ports, endpoints in fresh]
    out.delete += emptied


@dataclass
class _Packing:
    update: list[tuple[EndpointSlice, list[Endpoint]]]
    create: list[list[Endpoint]]


def _pack(
    slices: Sequence[EndpointSlice], desired: Mapping[str, Endpoint], labels: Mapping[str, str], most: int
) -> _Packing:
    """Distributes ``desired`` over slices of the same ports."""
    unplaced = dict(desired)
    touched: list[tuple[EndpointSlice, list[Endpoint]]] = []
    untouched: list[tuple[EndpointSlice, list[Endpoint]]] = []
    for slice_ in slices:
        endpoints: list[Endpoint] = []
        for old in slice_.endpoints or ():
            new = unplaced.pop(_identity(old), None)
            if new is not None and len(endpoints) < most:
                endpoints.append(new)
            elif new is not None:
                unplaced[_identity(new)] = new
        same = endpoints == list(slice_.endpoints or ()) and endpoints and slice_.metadata.labels == labels
        (untouched if same else touched).append((slice_, endpoints))
    rest = list(unplaced.values())
    for _, endpoints in sorted(touched, key=lambda t: -len(t[1])):
        while rest and len(endpoints) < most:
            endpoints.append(rest.pop(0))
    if rest:
        roomy = [t for t in untouched if len(t[1]) + len(rest) <= most]
        if roomy and len(rest) < most:
            slice_, endpoints = max(roomy, key=lambda t: len(t[1]))
            touched.append((slice_, endpoints + rest))
            rest = []
    return _Packing(touched, [rest[i : i + most] for i in range(0, len(rest), most)])


def _ports(ports: Ports) -> list[discovery_v1.EndpointPort]:
    return [
        discovery_v1.EndpointPort(name=p.name, protocol=p.protocol, port=p.port, app_protocol=p.app_protocol)
        for p in ports
    ]


def _annotations(old: Mapping[str, str] | None, trigger: str | None) -> dict[str, str] | None:
    out = {k: v for k, v in (old or {}).items() if k != members.LAST_CHANGE}
    if trigger is not None:
        out[members.LAST_CHANGE] = trigger
    return out or None


def _rewrite(
    slice_: EndpointSlice, labels: dict[str, str], ports: Ports, endpoints: list[Endpoint], trigger: str | None
) -> EndpointSlice:
    meta = slice_.metadata
    metadata = msgspec.structs.replace(meta, labels=labels, annotations=_annotations(meta.annotations, trigger))
    return msgspec.structs.replace(slice_, metadata=metadata, ports=_ports(ports), endpoints=endpoints)


def _maker(
    owner: core_v1.Service | core_v1.Endpoints, kind: str, labels: dict[str, str], family: str, trigger: str | None
) -> Maker:
    def make(ports: Ports, endpoints: list[Endpoint]) -> EndpointSlice:
        return EndpointSlice(
            metadata=meta_v1.ObjectMeta(
                generate_name=f"{owner.metadata.name}-",
                namespace=owner.metadata.namespace,
                labels=labels,
                annotations=_annotations(None, trigger),
                owner_references=[reference(owner, "v1", kind)],
            ),
            address_type=family,
            ports=_ports(ports),
            endpoints=endpoints,
        )

    return make
