"""Endpoints and EndpointSlices: where the pods of a Service answer."""

from __future__ import annotations

import ipaddress
from typing import Any

from apiserver.kinds.cells import age_cell, kind, name_cell
from apiserver.kinds.checks import immutable, one_of, optional_name
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from navarch.api import names
from navarch.api.errors import Cause, duplicate, invalid, not_supported, required, too_many

PROTOCOLS = ("SCTP", "TCP", "UDP")
ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
MAX_ENDPOINTS, MAX_PORTS, MAX_ADDRESSES = 1000, 20000, 100
SHOWN = 3


class EndpointsStrategy(Strategy):
    kind = kind("v1", "Endpoints")
    create_on_update = True
    generation = False
    columns = (NAME_COLUMN, Column("Endpoints"), AGE_COLUMN)
    deprecation = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"

    def default(self, obj: Tree) -> None:
        for subset in obj.get("subsets") or ():
            for port in subset.get("ports") or ():
                if not port.get("protocol"):
                    port["protocol"] = "TCP"

    def validate(self, obj: Tree) -> list[Cause]:
        out: list[Cause] = []
        for i, subset in enumerate(obj.get("subsets") or ()):
            at = f"subsets[{i}]"
            ready, unready = subset.get("addresses") or [], subset.get("notReadyAddresses") or []
            if not ready and not unready:
                out.append(required(at, "must specify `addresses` or `notReadyAddresses`"))
            for field, listed in (("addresses", ready), ("notReadyAddresses", unready)):
                for j, address in enumerate(listed):
                    out += _address(address, f"{at}.{field}[{j}]")
            ports = subset.get("ports") or []
            for j, port in enumerate(ports):
                out += _port(port, f"{at}.ports[{j}]", len(ports) > 1)
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), endpoints_text(obj.get("subsets")), age_cell(obj, now)]


def _special(text: str, path: str) -> list[Cause]:
    """Addresses that no endpoint may have: they would let a user aim a Service at the node itself."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return [invalid(path, text, m) for m in names.ip_address(text)]
    rules = (
        (address.is_unspecified, f"may not be unspecified ({text})"),
        (address.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (address.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (
            address.is_multicast and (text.startswith("224.0.0.") or address.version == 6),
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    )
    return [invalid(path, text, message) for bad, message in rules if bad]


def _address(address: Tree, at: str) -> list[Cause]:
    out = optional_name(address.get("hostname"), f"{at}.hostname", names.dns_label)
    out += optional_name(address.get("nodeName"), f"{at}.nodeName", names.dns_subdomain)
    return out + _special(address.get("ip") or "", f"{at}.ip")


def _port(port: Tree, at: str, require_name: bool) -> list[Cause]:
    out: list[Cause] = []
    if require_name and not port.get("name"):
        out.append(required(f"{at}.name"))
    out += optional_name(port.get("name"), f"{at}.name", names.dns_label)
    out += [invalid(f"{at}.port", port.get("port") or 0, m) for m in names.port_number(port.get("port") or 0)]
    out += one_of(port.get("protocol"), f"{at}.protocol", PROTOCOLS)
    return out + optional_name(port.get("appProtocol"), f"{at}.appProtocol", names.qualified_name)


def endpoints_text(subsets: list[Tree] | None) -> str:
    """The first three address:port pairs."""
    if not subsets:
        return "<none>"
    shown: list[str] = []
    count = 0
    for subset in subsets:
        ports, addresses = subset.get("ports") or [], subset.get("addresses") or []
        if not ports:
            count += len(addresses)
            shown += [a.get("ip", "") for a in addresses]
        for port in ports:
            count += len(addresses)
            shown += [_join(a.get("ip", ""), port.get("port")) for a in addresses]
    text = ",".join(shown[:SHOWN])
    if count > SHOWN:
        return f"{text} + {count - SHOWN} more..."
    return text or "<none>"


def _join(address: str, port: Any) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class EndpointSliceStrategy(Strategy):
    kind = kind("discovery.k8s.io/v1", "EndpointSlice")
    columns = (NAME_COLUMN, Column("AddressType"), Column("Ports"), Column("Endpoints"), AGE_COLUMN)

    def default(self, obj: Tree) -> None:
        for port in obj.get("ports") or ():
            if port.get("name") is None:
                port["name"] = ""
            if not port.get("protocol"):
                port["protocol"] = "TCP"

    def validate(self, obj: Tree) -> list[Cause]:
        type_ = obj.get("addressType") or ""
        out = one_of(type_, "addressType", ADDRESS_TYPES)
        endpoints, ports = obj.get("endpoints") or [], obj.get("ports") or []
        if len(endpoints) > MAX_ENDPOINTS:
            return [*out, too_many("endpoints", len(endpoints), MAX_ENDPOINTS)]
        for i, endpoint in enumerate(endpoints):
            out += _endpoint(endpoint, f"endpoints[{i}]", type_)
        if len(ports) > MAX_PORTS:
            return [*out, too_many("ports", len(ports), MAX_PORTS)]
        seen: set[str] = set()
        for i, port in enumerate(ports):
            at, name = f"ports[{i}]", port.get("name") or ""
            out += optional_name(name, f"{at}.name", names.dns_label)
            if name in seen:
                out.append(duplicate(f"{at}.name", name))
            seen.add(name)
            if port.get("protocol") not in PROTOCOLS:
                out.append(not_supported(f"{at}.protocol", port.get("protocol") or "", PROTOCOLS))
            out += optional_name(port.get("appProtocol"), f"{at}.appProtocol", names.qualified_name)
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return self.validate(obj) + immutable(obj.get("addressType"), old.get("addressType"), "addressType")

    def cells(self, obj: Tree, now: float) -> list[Any]:
        addresses = [e["addresses"][0] for e in obj.get("endpoints") or () if e.get("addresses")]
        ports = [str(p["port"]) if p.get("port") is not None else "*" for p in obj.get("ports") or ()]
        type_ = obj.get("addressType") or ""
        return [name_cell(obj), type_, _shown(ports, "<unset>"), _shown(addresses, "<unset>"), age_cell(obj, now)]


def _shown(items: list[str], empty: str) -> str:
    if not items:
        return empty
    text = ",".join(items[:SHOWN])
    return f"{text} + {len(items) - SHOWN} more..." if len(items) > SHOWN else text


def _endpoint(endpoint: Tree, at: str, type_: str) -> list[Cause]:
    addresses = endpoint.get("addresses") or []
    out: list[Cause] = []
    if not addresses:
        out.append(required(f"{at}.addresses", "must contain at least 1 address"))
    elif len(addresses) > MAX_ADDRESSES:
        out.append(too_many(f"{at}.addresses", len(addresses), MAX_ADDRESSES))
    for i, address in enumerate(addresses):
        here = f"{at}.addresses[{i}]"
        if type_ == "FQDN":
            out += [invalid(here, address, m) for m in names.dns_subdomain(address)]
            continue
        wrong = _special(address, here)
        version = "" if wrong else f"IPv{ipaddress.ip_address(address).version}"
        if not wrong and type_ in ("IPv4", "IPv6") and version != type_:
            wrong = [invalid(here, address, f"must be an {type_} address")]
        out += wrong
    out += optional_name(endpoint.get("nodeName"), f"{at}.nodeName", names.dns_subdomain)
    out += optional_name(endpoint.get("hostname"), f"{at}.hostname", names.dns_label)
    topology = endpoint.get("deprecatedTopology") or {}
    return out + [
        invalid(f"{at}.deprecatedTopology", key, m) for key in sorted(topology) for m in names.qualified_name(key)
    ]
