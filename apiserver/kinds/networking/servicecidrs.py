"""ServiceCIDRs: the ranges of cluster IPs."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from apiserver.kinds.cells import age_cell, kind, name_cell, spec_of
from apiserver.kinds.checks import immutable
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.errors import Cause, invalid, required

MAX_CIDRS = 2


class ServiceCIDRStrategy(Strategy):
    kind = kind("networking.k8s.io/v1", "ServiceCIDR")
    has_status = True
    generation = False
    columns = (NAME_COLUMN, Column("CIDRs"), AGE_COLUMN)

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = {}

    def validate(self, obj: Tree) -> list[Cause]:
        cidrs = spec_of(obj).get("cidrs") or []
        if not cidrs:
            return [required("spec.cidrs", "at least one CIDR required")]
        if len(cidrs) > MAX_CIDRS:
            return [invalid("spec.cidrs", cidrs, "may only hold up to 2 values")]
        out = [c for i, text in enumerate(cidrs) for c in _cidr(text, f"spec.cidrs[{i}]")]
        if not out and len({ipaddress.ip_network(text).version for text in cidrs}) != len(cidrs):
            text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96"
            out.append(invalid("spec.cidrs", cidrs, text))
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        new, was = spec_of(obj).get("cidrs") or [], spec_of(old).get("cidrs") or []
        if new[: len(was)] == was and len(was) == 1 and len(new) == MAX_CIDRS:
            return self.validate(obj)  # the other family may come later
        return immutable(new, was, "spec.cidrs")

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), ",".join(spec_of(obj).get("cidrs") or ()), age_cell(obj, now)]


def ready_networks(ranges: Iterable[Tree]) -> list[ipaddress.IPv4Network]:
    """The IPv4 networks of ServiceCIDRs from which addresses may be given out."""
    out = []
    for obj in ranges:
        conditions = (obj.get("status") or {}).get("conditions") or ()
        is_ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
        if is_ready and not obj["metadata"].get("deletionTimestamp"):
            networks = map(ipaddress.ip_network, spec_of(obj).get("cidrs") or ())
            out += [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    return out


def default_range(network: ipaddress.IPv4Network) -> Tree:
    """The ServiceCIDR of the range that the server was started with."""
    head = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}}
    return {**head, "spec": {"cidrs": [str(network)]}}


def _cidr(text: str, path: str) -> list[Cause]:
    wrong = [invalid(path, text, m) for m in names.cidr(text)]
    if not wrong and str(ipaddress.ip_network(text, strict=False)) != text:
        canonical = ipaddress.ip_network(text, strict=False)
        wrong.append(invalid(path, text, f'must be in canonical form ("{canonical}")'))
    return wrong
