"""Endpoints and EndpointSlices: where the pods of a Service answer."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, fill, kind, name_cell
from apiserver.kinds.checks import immutable, one_of, optional_name
from apiserver.kinds.core.endpointaddresses import PROTOCOLS, SHOWN, special_address_cause
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from navarch.api import names
from navarch.api.addresses import parse_address
from navarch.api.errors import Cause, duplicate, invalid, not_supported, required, too_many

ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
MAX_ENDPOINTS, MAX_PORTS, MAX_ADDRESSES = 1000, 20000, 100


class EndpointSliceStrategy(Strategy):
    kind = kind("discovery.k8s.io/v1", "EndpointSlice")
    columns = (NAME_COLUMN, Column("AddressType"), Column("Ports"), Column("Endpoints"), AGE_COLUMN)

    def default(self, obj: Tree) -> None:
        for port in obj.get("ports") or ():
            fill(port, name="", protocol="TCP")

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
        earlier: set[str] = set()
        for i, port in enumerate(ports):
            at, name = f"ports[{i}]", port.get("name") or ""
            out += optional_name(name, f"{at}.name", names.dns_label)
            if name in earlier:
                out.append(duplicate(f"{at}.name", name))
            earlier.add(name)
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
        wrong = special_address_cause(address, here)
        version = "" if wrong else f"IPv{parse_address(address).version}"
        if not wrong and type_ in ("IPv4", "IPv6") and version != type_:
            wrong = [invalid(here, address, f"must be an {type_} address")]
        out += wrong
    out += optional_name(endpoint.get("nodeName"), f"{at}.nodeName", names.dns_subdomain)
    out += optional_name(endpoint.get("hostname"), f"{at}.hostname", names.dns_label)
    topology = endpoint.get("deprecatedTopology") or {}
    return out + [
        invalid(f"{at}.deprecatedTopology", key, m) for key in sorted(topology) for m in names.qualified_name(key)
    ]
