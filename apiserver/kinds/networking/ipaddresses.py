"""IPAddresses: who holds a cluster IP, as an object.

Those of Services follow them (controllers/servicecidrs.py). One that somebody makes by hand reserves its address: no Service
gets it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from apiserver.kinds.cells import kind, meta_of, name_cell, spec_of
from apiserver.kinds.checks import immutable
from apiserver.registry.allocation import AddressAllocator, InUse, OutOfRange
from apiserver.registry.strategy import NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names, wellknown
from navarch.api.errors import AlreadyExists, Cause, invalid, required


class IPAddressStrategy(Strategy):
    kind = kind("networking.k8s.io/v1", "IPAddress")
    generation = False
    columns = (NAME_COLUMN, Column("ParentRef"))

    def __init__(self, addresses: AddressAllocator) -> None:
        self.addresses = addresses

    async def begin_create(self, context: Context, obj: Tree, dry_run: bool) -> Callable[[bool], Any] | None:
        if dry_run or (reserved := reservation(obj)) is None:
            return None
        address, owner = reserved
        try:
            await self.addresses.reserve(address, owner)
        except InUse:
            raise AlreadyExists(f'ipaddresses.networking.k8s.io "{address}" already exists') from None
        except OutOfRange:
            return None  # no Service would get it

        async def end(stored: bool) -> None:
            if not stored:
                await self.addresses.release(address, owner)

        return end

    async def after_delete(self, obj: Tree) -> None:
        if (reserved := reservation(obj)) is not None:
            await self.addresses.release(*reserved)

    def name_causes(self, name: str, prefix: bool) -> list[str]:
        """The address itself, written as everybody would write it."""
        wrong = names.ip_address(name)
        if not wrong and str(ipaddress.ip_address(name)) != name:
            wrong = [f'must be in canonical form ("{ipaddress.ip_address(name)}")']
        return wrong

    def validate(self, obj: Tree) -> list[Cause]:
        parent = spec_of(obj).get("parentRef")
        if parent is None:
            return [required("spec.parentRef")]
        out: list[Cause] = []
        if parent.get("group"):
            out += [invalid("spec.parentRef.group", parent["group"], m) for m in names.dns_subdomain(parent["group"])]
        for field in ("resource", "name"):
            value = parent.get(field) or ""
            if not value:
                out.append(required(f"spec.parentRef.{field}"))
            out += [invalid(f"spec.parentRef.{field}", value, m) for m in names.path_segment(value)]
        namespace = parent.get("namespace") or ""
        return out + [invalid("spec.parentRef.namespace", namespace, m) for m in names.path_segment(namespace)]

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return immutable(spec_of(obj).get("parentRef"), spec_of(old).get("parentRef"), "spec.parentRef")

    def cells(self, obj: Tree, now: float) -> list[Any]:
        parent, shown = spec_of(obj).get("parentRef"), "<none>"
        if parent:
            words = [parent.get("resource") or "", parent.get("group") or ""]
            parts = [".".join(w for w in words if w), parent.get("namespace") or "", parent.get("name") or ""]
            shown = "/".join(p for p in parts if p)
        return [name_cell(obj), shown]


def reservation(obj: Tree) -> tuple[str, str] | None:
    """(address, owner) of an IPAddress that nobody's Service stands behind; None for those that follow Services."""
    meta = meta_of(obj)
    if (meta.get("labels") or {}).get(wellknown.IP_MANAGED_BY) == wellknown.IP_ALLOCATOR:
        return None
    return meta.get("name") or "", f"ipaddresses/{meta.get('name')}"
