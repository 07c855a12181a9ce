"""NetworkPolicies: which traffic may reach pods and leave them."""

from __future__ import annotations

import ipaddress
from typing import Any

from apiserver.kinds.cells import age_cell, fill, kind, name_cell, selector_text, spec_of
from apiserver.kinds.checks import range_cause, validate_label_selector
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from navarch.api import names
from navarch.api.errors import Cause, forbidden, invalid, not_supported, required

PROTOCOLS = ("SCTP", "TCP", "UDP")
TYPES = ("Egress", "Ingress")


class NetworkPolicyStrategy(Strategy):
    kind = kind("networking.k8s.io/v1", "NetworkPolicy")
    columns = (NAME_COLUMN, Column("Pod-Selector"), AGE_COLUMN)

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        fill(spec, podSelector={})
        for rule in [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]:
            for port in rule.get("ports") or ():
                fill(port, protocol="TCP")
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        out = validate_label_selector(spec.get("podSelector"), "spec.podSelector")
        for field, peers in (("ingress", "from"), ("egress", "to")):
            for i, rule in enumerate(spec.get(field) or ()):
                here = f"spec.{field}[{i}]"
                for j, port in enumerate(rule.get("ports") or ()):
                    out += _port(port, f"{here}.ports[{j}]")
                for j, peer in enumerate(rule.get(peers) or ()):
                    out += _peer(peer, f"{here}.{peers}[{j}]")
        types = spec.get("policyTypes") or []
        if len(types) > len(TYPES):
            return [*out, invalid("spec.policyTypes", types, "may not specify more than two policyTypes")]
        return out + [
            not_supported(f"spec.policyTypes[{i}]", type_, TYPES) for i, type_ in enumerate(types) if type_ not in TYPES
        ]

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), selector_text(spec_of(obj).get("podSelector") or {}), age_cell(obj, now)]


def _port(port: Tree, path: str) -> list[Cause]:
    protocol, number, end = port.get("protocol"), port.get("port"), port.get("endPort")
    out = [] if protocol in PROTOCOLS else [not_supported(f"{path}.protocol", protocol or "", PROTOCOLS)]
    if isinstance(number, int):
        out += range_cause(number, f"{path}.port", names.port_number)
        if end is not None:
            if end < number:
                out.append(invalid(f"{path}.endPort", number, "must be greater than or equal to `port`"))
            out += range_cause(end, f"{path}.endPort", names.port_number)
    elif number is not None:
        if end is not None:
            out.append(invalid(f"{path}.endPort", end, "may not be specified when `port` is non-numeric"))
        out += [invalid(f"{path}.port", number, m) for m in names.port_name(str(number))]
    elif end is not None:
        out.append(invalid(f"{path}.endPort", end, "may not be specified when `port` is not specified"))
    return out


def _peer(peer: Tree, path: str) -> list[Cause]:
    selectors = [f for f in ("podSelector", "namespaceSelector") if peer.get(f) is not None]
    out = [c for field in selectors for c in validate_label_selector(peer[field], f"{path}.{field}")]
    block = peer.get("ipBlock")
    if block is not None:
        out += _block(block, f"{path}.ipBlock")
        if selectors:
            out.append(forbidden(path, "may not specify both ipBlock and another peer"))
    elif not selectors:
        out.append(required(path, "must specify a peer"))
    return out


def _block(block: Tree, path: str) -> list[Cause]:
    text = block.get("cidr") or ""
    if not text:
        return [required(f"{path}.cidr")]
    out = [invalid(f"{path}.cidr", text, m) for m in names.cidr(text)]
    if out:
        return out
    whole = ipaddress.ip_network(text, strict=False)
    for i, hole in enumerate(block.get("except") or ()):
        here = f"{path}.except[{i}]"
        wrong = [invalid(here, hole, m) for m in names.cidr(hole)]
        out += wrong
        if wrong:
            continue
        inner = ipaddress.ip_network(hole, strict=False)
        inside = inner.version == whole.version and inner.prefixlen > whole.prefixlen
        if not inside or inner.network_address not in whole:
            out.append(invalid(here, hole, "must be a strict subset of `cidr`"))
    return out
