"""A Service of type LoadBalancer for each Gateway: its address, and where nginx listens behind each of its ports. Pure.

The Service is the one place where the ports inside are written down, so all nodes agree. It lies in kube-system, out of the
reach of who may only write in the Gateway's namespace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from navarch.api import wellknown
from navarch.api.types import core_v1, meta_v1
from proxy.gateway.api import Tree, key, spec_of

NAMESPACE = "kube-system"
LABEL = "navarch.dev/gateway"
OF = "navarch.dev/gateway-of"
"""Annotation of such a Service: namespace/name of its Gateway."""
INSIDE = range(11000, 12000)
"""Ports of the nodes that listeners get."""


def service_name(gateway: str) -> str:
    return "gateway-" + hashlib.sha256(gateway.encode()).hexdigest()[:12]


def gateway_of(service: core_v1.Service) -> str:
    """The Gateway that a Service is for, "" if it is not one of these."""
    name = (service.metadata.annotations or {}).get(OF, "")
    return name if name and service.metadata.name == service_name(name) else ""


def inside(service: core_v1.Service) -> dict[int, int]:
    """Port -> where nginx listens for it."""
    return {p.port: p.target_port for p in service.spec.ports or () if isinstance(p.target_port, int)}


def ports_of(gateway: Tree) -> list[int]:
    listeners = spec_of(gateway).get("listeners") or ()
    return sorted({int(l["port"]) for l in listeners if l.get("protocol") in ("HTTP", "HTTPS")})  # noqa: E741


def chosen(gateway: Tree, services: Iterable[core_v1.Service]) -> dict[int, int]:
    """Ports of a Gateway's listeners and where nginx shall listen: as before, or the first that no Gateway has."""
    before, used = {}, set()
    for service in services:
        if not gateway_of(service):
            continue
        used |= set(inside(service).values())
        if gateway_of(service) == key(gateway):
            before = inside(service)
    free = (number for number in INSIDE if number not in used)
    out: dict[int, int] = {}
    for port in ports_of(gateway):
        number = before.get(port) or next(free, 0)
        if number:
            out[port] = number
    return out


def address_wish(gateway: Tree) -> tuple[str, str]:
    """The address that a Gateway asks for, and why it cannot ask so."""
    wishes = spec_of(gateway).get("addresses") or ()
    if len(wishes) > 1 or any((w.get("type") or "IPAddress") != "IPAddress" for w in wishes):
        return "", "spec.addresses: one of type IPAddress is supported"
    return (str(wishes[0].get("value") or "") if wishes else ""), ""


def service_for(gateway: Tree, ports: Mapping[int, int]) -> core_v1.Service:
    # Local: the node that answers for the address serves by itself, and sees who asks.
    meta = meta_v1.ObjectMeta(
        name=service_name(key(gateway)), namespace=NAMESPACE, labels={LABEL: "true"}, annotations={OF: key(gateway)}
    )
    spec = core_v1.ServiceSpec(
        type="LoadBalancer", external_traffic_policy="Local", allocate_load_balancer_node_ports=False,
        load_balancer_ip=address_wish(gateway)[0] or None,
        ports=[core_v1.ServicePort(name=f"p{port}", port=port, protocol="TCP", target_port=number)
               for port, number in sorted(ports.items())],
    )  # fmt: skip
    return core_v1.Service(metadata=meta, spec=spec)


def address_of(service: core_v1.Service | None) -> str:
    balancer = service.status.load_balancer if service is not None else None
    return next((i.ip for i in (balancer.ingress if balancer else None) or () if i.ip), "")


def announced_by(service: core_v1.Service) -> str:
    return (service.metadata.annotations or {}).get(wellknown.ANNOUNCED_BY, "")
