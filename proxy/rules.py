"""From a Service and its EndpointSlices to rules: pure, one service at a time.

Every service port is one chain that picks an endpoint; maps lead from addresses to chains in one step however many
services there are:

    services     address . protocol . port -> chain       cluster IPs, external and load balancer IPs
    nodeports    protocol . port -> chain                 on the node's own addresses
    refused      address . protocol . port                services without endpoints: reject
    refused-nodeports  protocol . port
    hairpin      address . address                        an endpoint that reaches itself must be masqueraded
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from navarch.api.types import core_v1, discovery_v1

MASQUERADE = "0x4000"  # the mark kube-proxy and its users know
SERVICE_NAME = "kubernetes.io/service-name"
AFFINITY_DEFAULT = 10800  # seconds


@dataclass(frozen=True, order=True)
class Endpoint:
    """``zones`` and ``nodes``: for whom it is meant, by its hints."""

    address: str
    port: int
    local: bool = False
    zones: tuple[str, ...] = field(default=(), compare=False)
    nodes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Place:
    """Where the proxy is. ``zone``: its node's topology.kubernetes.io/zone, or ""."""

    node: str
    zone: str = ""


@dataclass
class Rules:
    """What one service needs: chains, elements of the maps and sets above, and affinity sets (name -> seconds)."""

    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    elements: dict[tuple[str, str], str] = field(default_factory=dict)  # (map or set, key) -> verdict, "" in sets
    sets: dict[str, int] = field(default_factory=dict)
    udp: dict[tuple[str, int], tuple[Endpoint, ...]] = field(default_factory=dict)  # (address or "", port) -> endpoints


def endpoints_of(
    slices: Iterable[discovery_v1.EndpointSlice], port: core_v1.ServicePort, node: str
) -> tuple[list[Endpoint], list[Endpoint]]:
    """(ready, serving though terminating) endpoints of a service port, sorted.

    The second kind takes connections only where there is none of the first (KEP-1669).
    """
    ready: dict[Endpoint, None] = {}
    ending: dict[Endpoint, None] = {}
    for piece in slices:
        if piece.address_type != "IPv4":
            continue
        number = next(
            (
                p.port
                for p in piece.ports or ()
                if (p.name or "") == (port.name or "") and (p.protocol or "TCP") == (port.protocol or "TCP")
            ),
            None,
        )
        if number is None:
            continue
        for entry in piece.endpoints or ():
            conditions = entry.conditions or discovery_v1.EndpointConditions()
            place = ready
            if conditions.ready is False:
                if not (conditions.serving and conditions.terminating):
                    continue
                place = ending
            hints = entry.hints or discovery_v1.EndpointHints()
            zones = tuple(z.name for z in hints.for_zones or ())
            nodes = tuple(n.name for n in hints.for_nodes or ())
            for address in entry.addresses:
                place[Endpoint(address, number, entry.node_name == node, zones, nodes)] = None
    return sorted(ready), sorted(ending)


def is_proxied(service: core_v1.Service) -> bool:
    """Whether the service has an address that needs rules."""
    spec = service.spec
    return spec.type != "ExternalName" and bool(spec.cluster_ip) and spec.cluster_ip != "None"


def service_rules(
    service: core_v1.Service, slices: Sequence[discovery_v1.EndpointSlice], here: Place, cluster_cidr: str
) -> Rules:
    """The rules of a service at ``here``. ``cluster_cidr`` is where pods live; others are masqueraded."""
    rules = Rules()
    if not is_proxied(service):
        return rules
    spec = service.spec
    for port in spec.ports or ():
        protocol = (port.protocol or "TCP").lower()
        if protocol not in ("tcp", "udp", "sctp"):
            continue
        ready, ending = endpoints_of(slices, port, here.node)
        inside = _pick(ready, ending, here, spec.internal_traffic_policy == "Local")
        outside = _pick(ready, ending, here, spec.external_traffic_policy == "Local")
        base = _name(service, port, protocol)
        addresses = [a for a in spec.cluster_ips or [spec.cluster_ip or ""] if ":" not in a]
        _address_rules(rules, f"svc-{base}", service, protocol, port.port, addresses, inside, cluster_cidr)
        external = [*(spec.external_ips or ()), *_ingress_addresses(service)]
        if port.node_port or external:
            local = spec.external_traffic_policy == "Local"
            chain = f"ext-{base}"
            first = () if local else (f"meta mark set meta mark or {MASQUERADE}",)
            if outside:
                _endpoint_chain(rules, chain, service, protocol, outside, first)
            for address in external:
                key = f"{address} . {protocol} . {port.port}"
                rules.elements[("services", key) if outside else ("refused", key)] = f"goto {chain}" if outside else ""
            if port.node_port:
                key = f"{protocol} . {port.node_port}"
                if outside:
                    rules.elements["nodeports", key] = f"goto {chain}"
                else:
                    rules.elements["refused-nodeports", key] = ""
                if protocol == "udp":
                    rules.udp["", port.node_port] = tuple(outside)
    return rules


def _pick(ready: list[Endpoint], ending: list[Endpoint], here: Place, local_only: bool) -> list[Endpoint]:
    if local_only:
        ready, ending = [e for e in ready if e.local], [e for e in ending if e.local]
        return ready or ending
    return closest(ready, here) or ending


def closest(ready: list[Endpoint], here: Place) -> list[Endpoint]:
    """The endpoints that are meant for this node, else for this zone, else all (KEP-4444, KEP-3015).

    Hints count only if every endpoint has them: otherwise they are about to change, and some would get no traffic.
    """
    if all(e.nodes for e in ready):
        own = [e for e in ready if here.node in e.nodes]
        if own:
            return own
    if here.zone and all(e.zones for e in ready):
        return [e for e in ready if here.zone in e.zones] or ready
    return ready


def _ingress_addresses(service: core_v1.Service) -> list[str]:
    balancer = service.status.load_balancer
    return [i.ip for i in (balancer.ingress if balancer else None) or () if i.ip]


def _address_rules(
    rules: Rules,
    chain: str,
    service: core_v1.Service,
    protocol: str,
    port: int,
    addresses: Sequence[str],
    endpoints: list[Endpoint],
    cluster_cidr: str,
) -> None:
    if endpoints:
        # A client that is no pod (the node itself, the host) must get its answers by the way it came.
        first = (f"ip saddr != {cluster_cidr} meta mark set meta mark or {MASQUERADE}",) if cluster_cidr else ()
        _endpoint_chain(rules, chain, service, protocol, endpoints, first)
    for address in addresses:
        key = f"{address} . {protocol} . {port}"
        if endpoints:
            rules.elements["services", key] = f"goto {chain}"
        else:
            rules.elements["refused", key] = ""
        if protocol == "udp":
            rules.udp[address, port] = tuple(endpoints)


def _endpoint_chain(
    rules: Rules,
    chain: str,
    service: core_v1.Service,
    protocol: str,
    endpoints: list[Endpoint],
    first: tuple[str, ...],
) -> None:
    """The chain that sends a connection to one of the endpoints, evenly or to where its client went before."""
    proto = f"meta l4proto {protocol}"
    for endpoint in endpoints:
        rules.elements["hairpin", f"{endpoint.address} . {endpoint.address}"] = ""
    if service.spec.session_affinity != "ClientIP":
        listed = ", ".join(f"{i} : {e.address} . {e.port}" for i, e in enumerate(endpoints))
        pick = f"{proto} dnat ip to numgen random mod {len(endpoints)} map {{ {listed} }}"
        rules.chains[chain] = (*first, pick)
        return
    config = service.spec.session_affinity_config
    seconds = (config.client_ip.timeout_seconds if config and config.client_ip else None) or AFFINITY_DEFAULT
    lines, branches = list(first), []
    for i, endpoint in enumerate(endpoints):
        name = f"{chain[:100]}-{_digest(f'{endpoint.address}:{endpoint.port}')}"
        rules.sets[name] = seconds
        rules.chains[name] = (
            f"update @{name} {{ ip saddr }}",
            f"{proto} dnat ip to {endpoint.address}:{endpoint.port}",
        )
        lines.append(f"ip saddr @{name} goto {name}")
        branches.append(f"{i} : goto {name}")
    lines.append(f"numgen random mod {len(endpoints)} vmap {{ {', '.join(branches)} }}")
    rules.chains[chain] = tuple(lines)


def _name(service: core_v1.Service, port: core_v1.ServicePort, protocol: str) -> str:
    """A readable name, unique through its digest; nft's identifiers end at 127 characters."""
    meta = service.metadata
    full = f"{meta.namespace}/{meta.name}/{protocol}/{port.name or port.port}"
    return f"{_digest(full)}-{re.sub(r'[^A-Za-z0-9/_.-]', '-', full)[:80]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
