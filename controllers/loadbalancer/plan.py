"""Which address a Service of type LoadBalancer has, and which node answers for it: pure.

Addresses come from a pool. One that a service has stays; one that it asks for by ``spec.loadBalancerIP`` it gets if the
pool has it and nobody else is there; several services may ask for one and share it if their ports differ and their
endpoints do not matter (externalTrafficPolicy Cluster). The node that answers is kept while it can.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from navarch.api import wellknown
from navarch.api.types import core_v1, discovery_v1

EXCLUDE = wellknown.EXCLUDE_FROM_LOAD_BALANCERS
CLASS = "navarch.dev/lab"
"""The loadBalancerClass that means this controller; services without a class are its, too."""
ANNOUNCED_BY = wellknown.ANNOUNCED_BY

Service = core_v1.Service


class Refused(Exception):
    """A service cannot have an address; the text says why."""


def is_ours(service: Service) -> bool:
    """The service wants an address of this pool."""
    spec = service.spec
    return (
        spec.type == "LoadBalancer"
        and spec.load_balancer_class in (None, CLASS)
        and service.metadata.deletion_timestamp is None
    )


def addresses_of(service: Service) -> list[str]:
    balancer = service.status.load_balancer
    return [i.ip for i in (balancer.ingress if balancer else None) or () if i.ip]


@dataclass
class Use:
    """The use of one address: which services have it, at which ports; ``shared``: others may join them."""

    services: dict[str, frozenset[tuple[str, int]]] = field(default_factory=dict)
    shared: bool = True


def ports_of(service: Service) -> frozenset[tuple[str, int]]:
    return frozenset((port.protocol or "TCP", port.port) for port in service.spec.ports or ())


def may_share(service: Service, address: str) -> bool:
    """Sharing is for those who name the address, and whose packets any node can take."""
    return service.spec.load_balancer_ip == address and service.spec.external_traffic_policy != "Local"


class Pool:
    """The addresses of a range and who has them."""

    def __init__(self, cidr: str) -> None:
        self.network = ipaddress.IPv4Network(cidr)
        self.uses: dict[str, Use] = {}
        self._of: dict[str, str] = {}  # service -> address

    def take(self, key: str, service: Service, address: str) -> None:
        """Notes that a service has an address."""
        if self._of.get(key) != address:
            self.give_back(key)
        use = self.uses.setdefault(address, Use())
        use.services[key] = ports_of(service)
        use.shared = may_share(service, address) and (use.shared or len(use.services) == 1)
        self._of[key] = address

    def give_back(self, key: str) -> str:
        """Frees what a service had; returns the address, "" if it had none."""
        address = self._of.pop(key, "")
        use = self.uses.get(address)
        if use is not None:
            use.services.pop(key, None)
            if not use.services:
                del self.uses[address]
        return address

    def address(self, key: str) -> str:
        return self._of.get(key, "")

    def __contains__(self, address: str) -> bool:
        try:
            value = ipaddress.IPv4Address(address)
        except ValueError:
            return False
        return value in self.network and value not in (self.network.network_address, self.network.broadcast_address)

    def conflict(self, key: str, service: Service, address: str) -> str:
        """Why a service cannot have an address beside those who have it; "" if it can."""
        use = self.uses.get(address)
        others = {k: ports for k, ports in use.services.items() if k != key} if use is not None else {}
        if not others or use is None:
            return ""
        first = next(iter(others))
        if not (use.shared and may_share(service, address)):
            how = "both must ask for it in spec.loadBalancerIP and have externalTrafficPolicy Cluster"
            return f"{address} is the address of {first}; to share it {how}"
        for other, ports in others.items():
            if both := sorted(ports & ports_of(service)):
                return f"port {both[0][1]}/{both[0][0]} of {address} is taken by {other}"
        return ""

    def choose(self, key: str, service: Service) -> str:
        """The address that the service shall have. Raises Refused."""
        requested, has = service.spec.load_balancer_ip or "", self._of.get(key) or next(iter(addresses_of(service)), "")
        if requested:
            if requested not in self:
                raise Refused(f"spec.loadBalancerIP {requested} is not in the pool {self.network}")
            if reason := self.conflict(key, service, requested):
                raise Refused(reason)
            return requested
        if has in self and not self.conflict(key, service, has):
            return has
        for value in self.network.hosts():
            if str(value) not in self.uses:
                return str(value)
        raise Refused(f"all {self.network.num_addresses - 2} addresses of the pool {self.network} are in use")


def candidates(
    service: Service, nodes: Iterable[core_v1.Node], slices: Iterable[discovery_v1.EndpointSlice]
) -> list[str]:
    """Nodes that can answer for the service, sorted: those that are Ready and not excluded; with externalTrafficPolicy
    Local only those that have an endpoint, which takes the packets there."""
    able = [n.metadata.name or "" for n in nodes if is_able(n)]
    if service.spec.external_traffic_policy != "Local":
        return sorted(able)
    near = set()
    for piece in slices:
        for endpoint in piece.endpoints or ():
            conditions = endpoint.conditions or discovery_v1.EndpointConditions()
            if conditions.ready is not False and endpoint.node_name:
                near.add(endpoint.node_name)
    return sorted(name for name in able if name in near)


def is_able(node: core_v1.Node) -> bool:
    labels = node.metadata.labels or {}
    ready = any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or ())
    simulated = labels.get("type") == "hollow"
    return ready and not simulated and EXCLUDE not in labels and node.metadata.deletion_timestamp is None


def announcer(address: str, current: str, able: Iterable[str]) -> str:
    """The node that answers for an address: the present one while it can; else by a rank that differs from address to
    address, so that many addresses spread over the nodes. "" if there is none."""
    names = list(able)
    if current in names:
        return current
    return max(names, key=lambda name: hashlib.sha256(f"{address} {name}".encode()).digest(), default="")


def annotations_of(service: Service) -> Mapping[str, str]:
    return service.metadata.annotations or {}
