"""From a Service and its EndpointSlices to rules: pure, one service at a time.

Every service port is one chain that picks an endpoint; maps lead from addresses to chains in one step however many
services there are:

    services     address . protocol . port -> chain       cluster IPs, external and load balancer IPs
    nodeports    protocol . port -> chain                 on the node's own addresses
    refused      address . protocol . port                services without endpoints: reject
    refused-nodeports  protocol . port
    dropped      address . protocol . port                services of policy Local without an endpoint on this node
    dropped-nodeports  protocol . port
    balancers    address                                  load balancer addresses: other ports of them are refused
    hairpin      address . address                        an endpoint that reaches itself must be masqueraded
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

from navarch.api import wellknown
from navarch.api.types import core_v1, discovery_v1

MASQUERADE = "0x4000"  # the mark kube-proxy and its users know
SERVICE_NAME = wellknown.SERVICE_NAME
AFFINITY_DEFAULT, MAX_AFFINITY = 10800, 86400  # seconds
EVERY_PORT = 0


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
    """The rules of one owner (a service, a policy, a pod): chains, elements of maps and sets, and sets of its own: by name
    the seconds after which an affinity set forgets a client, or what nftables is to declare."""

    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    elements: dict[tuple[str, str], str] = field(default_factory=dict)  # (map or set, key) -> verdict, "" in sets
    sets: dict[str, int | str] = field(default_factory=dict)
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
        if number is None or not 0 < number < 65536:
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
            for address in ipv4_only(entry.addresses):
                place[Endpoint(address, number, entry.node_name == node, zones, nodes)] = None
    return sorted(ready), sorted(ending)


def ipv4_of(text: str) -> str | None:
    """An IPv4 address as nftables wants it, None for anything else: one word that it does not know, or that it takes for
    a host name and asks a resolver about, would spoil the rules of everybody.

    As in Go's older parser, which Kubernetes keeps for its older fields, zeros may lead and IPv6 may wrap.
    """
    text = text.strip()
    parts = text.split(".")
    if len(parts) == 4 and all(p.isascii() and p.isdigit() for p in parts):
        text = ".".join(p.lstrip("0") or "0" for p in parts)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped) if address.ipv4_mapped else None
    return str(address)


def ipv4_only(texts: Iterable[str | None]) -> list[str]:
    """The IPv4 addresses among ``texts``, each once. Those of the other family are not this table's business."""
    return list(dict.fromkeys(a for text in texts if text and (a := ipv4_of(text)) is not None))


def is_proxied(service: core_v1.Service) -> bool:
    """Whether the service has an address that needs rules."""
    spec = service.spec
    return spec.type != "ExternalName" and bool(spec.cluster_ip) and spec.cluster_ip != "None"


def service_rules(
    service: core_v1.Service,
    slices: Sequence[discovery_v1.EndpointSlice],
    here: Place,
    cluster_cidr: str,
    refused: Container[tuple[str, int]] = (),
) -> Rules:
    """The rules of a service at ``here``. ``cluster_cidr`` is where pods live; others are masqueraded. ``refused``: external
    (address, port or EVERY_PORT) that are not the service's to have (externalips.py)."""
    rules = Rules()
    if is_proxied(service):
        for port in service.spec.ports or ():
            if (port.protocol or "TCP") in ("TCP", "UDP", "SCTP") and 0 < port.port < 65536:
                endpoints = endpoints_of(slices, port, here.node)
                _Port(rules, service, port, endpoints, here, cluster_cidr, refused).make()
    return rules


class _Port:
    """One service port on its way to rules. ``everywhere``: the endpoints that a connection may go to, by where this
    node is; ``own``: those on this node, which policy Local keeps to."""

    def __init__(
        self,
        rules: Rules,
        service: core_v1.Service,
        port: core_v1.ServicePort,
        endpoints: tuple[list[Endpoint], list[Endpoint]],
        here: Place,
        cluster_cidr: str,
        refused: Container[tuple[str, int]],
    ) -> None:
        self.rules, self.service, self.port, self.cluster_cidr = rules, service, port, cluster_cidr
        self.refused = refused
        self.protocol = (port.protocol or "TCP").lower()
        self.base = _name(service, port, self.protocol)
        self.everywhere, self.own = (_pick(*endpoints, here, local) for local in (False, True))
        self.internal_local = service.spec.internal_traffic_policy == "Local"
        self.external_local = service.spec.external_traffic_policy == "Local"

    def make(self) -> None:
        spec = self.service.spec
        inside = self.own if self.internal_local else self.everywhere
        chain = f"svc-{self.base}"
        if inside:
            self._endpoint_chain(chain, inside, self._strangers())
        for address in ipv4_only(spec.cluster_ips or [spec.cluster_ip]):
            self._address(address, chain if inside else "")
            if self.protocol == "udp":
                self.rules.udp[address, self.port.port] = tuple(inside)
        self._external()

    def _strangers(self) -> tuple[str, ...]:
        """A client that is no pod (the node itself, the host) must get its answers by the way it came."""
        return (f"ip saddr != {self.cluster_cidr} meta mark set meta mark or {MASQUERADE}",) if self.cluster_cidr else ()

    def _external(self) -> None:
        external = [
            address
            for address in ipv4_only(self.service.spec.external_ips or ())
            if (address, EVERY_PORT) not in self.refused and (address, self.port.port) not in self.refused
        ]
        balanced = ipv4_only(ingress_addresses(self.service))
        node_port = self.port.node_port if self.port.node_port and 0 < self.port.node_port < 65536 else 0
        if not (node_port or external or balanced):
            return
        chain, outside = f"ext-{self.base}", self.own if self.external_local else self.everywhere
        if self.external_local and self.everywhere:
            self._local_chain(chain)
        elif outside:
            self._endpoint_chain(chain, outside, (f"meta mark set meta mark or {MASQUERADE}",))
        goal = chain if self.everywhere else ""
        dropped = self.external_local and bool(self.everywhere) and not self.own
        for address in external:
            self._address(address, goal, dropped)
        for address in balanced:
            self.rules.elements["balancers", address] = ""
            self._address(address, self._firewall(goal), dropped)
        if node_port:
            key = f"{self.protocol} . {node_port}"
            if goal:
                self.rules.elements["nodeports", key] = f"goto {goal}"
            else:
                self.rules.elements["refused-nodeports", key] = ""
            if dropped:
                self.rules.elements["dropped-nodeports", key] = ""
            if self.protocol == "udp":
                self.rules.udp["", node_port] = tuple(self.everywhere)

    def _local_chain(self, chain: str) -> None:
        """externalTrafficPolicy Local keeps what comes from outside to this node's endpoints. Pods, and the node itself,
        are not outside: theirs goes to any endpoint, as if they had asked the cluster IP."""
        anywhere = f"svc-{self.base}"
        if self.internal_local:
            anywhere = f"all-{self.base}"
            self._endpoint_chain(anywhere, self.everywhere, ())
        lines = [f"ip saddr {self.cluster_cidr} goto {anywhere}"] if self.cluster_cidr else []
        lines += [f"fib saddr type local meta mark set meta mark or {MASQUERADE}", f"fib saddr type local goto {anywhere}"]
        if self.own:
            self._endpoint_chain(chain, self.own, tuple(lines))
        else:
            self.rules.chains[chain] = tuple(lines)

    def _firewall(self, goal: str) -> str:
        """The chain for a load balancer's addresses: before ``goal``, who may ask (loadBalancerSourceRanges)."""
        networks = []
        for text in self.service.spec.load_balancer_source_ranges or ():
            with contextlib.suppress(ValueError):
                networks.append(ipaddress.IPv4Network(text.strip(), strict=False))
        ranges = [str(n) for n in ipaddress.collapse_addresses(networks)]
        if not goal or not ranges or "0.0.0.0/0" in ranges:
            return goal
        chain = f"fw-{self.base}"
        self.rules.chains[chain] = (f"ip saddr != {{ {', '.join(ranges)} }} drop", f"goto {goal}")
        return chain

    def _address(self, address: str, chain: str, dropped: bool = False) -> None:
        """Decides the fate of connections to an address: ``chain``, or nobody takes them. ``dropped``: those that the
        chain lets pass are to end in silence."""
        key = f"{address} . {self.protocol} . {self.port.port}"
        if chain:
            self.rules.elements["services", key] = f"goto {chain}"
        if dropped or (not chain and self.everywhere):
            self.rules.elements["dropped", key] = ""
        elif not chain:
            self.rules.elements["refused", key] = ""

    def _endpoint_chain(self, chain: str, endpoints: list[Endpoint], first: tuple[str, ...]) -> None:
        """The chain that sends a connection to one of the endpoints, evenly or to where its client went before."""
        rules, proto = self.rules, f"meta l4proto {self.protocol}"
        for endpoint in endpoints:
            rules.elements["hairpin", f"{endpoint.address} . {endpoint.address}"] = ""
        if self.service.spec.session_affinity != "ClientIP":
            listed = ", ".join(f"{i} : {e.address} . {e.port}" for i, e in enumerate(endpoints))
            pick = f"{proto} dnat ip to numgen random mod {len(endpoints)} map {{ {listed} }}"
            rules.chains[chain] = (*first, pick)
            return
        lines, branches, seconds = list(first), [], _affinity_seconds(self.service.spec)
        for i, endpoint in enumerate(endpoints):
            # With the seconds in its name, since the timeout of a set cannot be changed.
            name = f"{chain[:100]}-{_digest(f'{endpoint.address}:{endpoint.port}:{seconds}')}"
            rules.sets[name] = seconds
            rules.chains[name] = (
                f"update @{name} {{ ip saddr }}",
                f"{proto} dnat ip to {endpoint.address}:{endpoint.port}",
            )
            lines.append(f"ip saddr @{name} goto {name}")
            branches.append(f"{i} : goto {name}")
        lines.append(f"numgen random mod {len(endpoints)} vmap {{ {', '.join(branches)} }}")
        rules.chains[chain] = tuple(lines)


def _affinity_seconds(spec: core_v1.ServiceSpec) -> int:
    config = spec.session_affinity_config
    seconds = (config.client_ip.timeout_seconds if config and config.client_ip else None) or AFFINITY_DEFAULT
    return min(max(seconds, 1), MAX_AFFINITY)


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


def ingress_addresses(service: core_v1.Service) -> list[str]:
    """The load balancer's addresses that nodes answer for; with ipMode Proxy it does so itself."""
    balancer = service.status.load_balancer
    entries = (balancer.ingress if balancer else None) or ()
    return [i.ip for i in entries if i.ip and i.ip_mode != "Proxy"]


def _name(service: core_v1.Service, port: core_v1.ServicePort, protocol: str) -> str:
    """A readable name, unique through its digest; nft's identifiers end at 127 characters."""
    meta = service.metadata
    full = f"{meta.namespace}/{meta.name}/{protocol}/{port.name or port.port}"
    return f"{_digest(full)}-{re.sub(r'[^A-Za-z0-9/_.-]', '-', full)[:80]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
