"""Endpoints: the addresses behind a Service, all in one object (the form before EndpointSlices)."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, kind, name_cell
from apiserver.kinds.checks import one_of, optional_name
from apiserver.kinds.core.endpointaddresses import PROTOCOLS, SHOWN, special_address_cause
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from navarch.api import names
from navarch.api.errors import Cause, invalid, required


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


def _address(address: Tree, at: str) -> list[Cause]:
    out = optional_name(address.get("hostname"), f"{at}.hostname", names.dns_label)
    out += optional_name(address.get("nodeName"), f"{at}.nodeName", names.dns_subdomain)
    return out + special_address_cause(address.get("ip") or "", f"{at}.ip")


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
