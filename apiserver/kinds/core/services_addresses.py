"""Takes cluster IPs and node ports for a Service before it is written, and gives them back when it no longer needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from apiserver.kinds.cells import Tree, spec_of
from apiserver.registry.allocation import (
    AddressAllocator,
    Allocator,
    InUse,
    OutOfRange,
    PortAllocator,
    RangeFull,
    owner_of,
)
from navarch.api.errors import Cause, InternalError, invalid, resource_invalid

EMPTY: Mapping[str, str] = {}
Allocations = list[tuple[Allocator, str]]


def needs_address(spec: Tree) -> bool:
    return spec.get("type") != "ExternalName"


def needs_node_ports(spec: Tree) -> bool:
    if spec.get("type") == "LoadBalancer":
        return spec.get("allocateLoadBalancerNodePorts") is not False
    return bool(spec.get("type") == "NodePort")


def needs_health_check(spec: Tree) -> bool:
    """Whether each node tells balancers, on a port of its own, if it has endpoints of the Service."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def held_address(obj: Tree) -> str | None:
    """The cluster IP that the stored Service holds."""
    address = spec_of(obj).get("clusterIP")
    return address if address and address != "None" else None


def held_ports(obj: Tree) -> list[str]:
    """The node ports that the stored Service holds, each once (TCP and UDP may share one), that of health checks too."""
    spec = spec_of(obj)
    ports = [p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")]
    if spec.get("healthCheckNodePort"):
        ports.append(spec["healthCheckNodePort"])
    return list(dict.fromkeys(map(str, ports)))


class Addresses:
    """The two allocators, as the Service strategy uses them."""

    def __init__(self, addresses: AddressAllocator, ports: PortAllocator) -> None:
        self.addresses, self.ports = addresses, ports

    async def begin(self, obj: Tree, old: Tree | None, dry_run: bool) -> Callable[[bool], Any]:
        """Sets clusterIP and node ports in ``obj``. The function it returns is to be awaited with whether ``obj`` was
        stored: then what only ``old`` needed is given back, else what was taken now."""
        owner, allocations = owner_of(obj), Allocations()
        before = self._allocations_of(old) if old is not None else []
        try:
            await self._address(obj, owner, before, allocations, dry_run)
            # The ports that were asked for come first, lest an automatic choice takes one of them.
            await self._given_ports(obj, owner, before, allocations, dry_run)
            checked = needs_health_check(spec_of(obj)) and not (old is not None and needs_health_check(spec_of(old)))
            if checked and (check_port := spec_of(obj).get("healthCheckNodePort")):
                await self._requested_check_port(check_port, owner, allocations, dry_run)
            await self._automatic_ports(obj, owner, allocations, dry_run)
            if checked and not spec_of(obj).get("healthCheckNodePort"):
                await self._automatic_check_port(obj, owner, allocations, dry_run)
        except BaseException:
            await self._give_back(allocations, owner)
            raise

        async def end(stored: bool) -> None:
            if dry_run:
                return
            if not stored:
                await self._give_back(allocations, owner)
                return
            still = self._allocations_of(obj)
            await self._give_back([allocation for allocation in before if allocation not in still], owner)

        return end

    async def release(self, obj: Tree) -> None:
        """After the Service is gone."""
        await self._give_back(self._allocations_of(obj), owner_of(obj))

    async def repair(self, services: Iterable[Tree], reserved: Mapping[str, str] = EMPTY) -> list[str]:
        """Gives back what no Service has; returns those values. ``reserved``: addresses that objects of their own hold."""
        addresses: dict[str, str] = dict(reserved)
        ports: dict[str, str] = {}
        for service in services:
            owner, address = owner_of(service), held_address(service)
            if address:
                addresses[address] = owner
            ports.update(dict.fromkeys(held_ports(service), owner))
        return await self.addresses.repair(addresses) + await self.ports.repair(ports)

    def _allocations_of(self, obj: Tree) -> Allocations:
        address = held_address(obj)
        out: Allocations = [(self.addresses, address)] if address else []
        return out + [(self.ports, port) for port in held_ports(obj)]

    async def _give_back(self, allocations: Allocations, owner: str) -> None:
        for allocator, value in allocations:
            await allocator.release(value, owner)

    async def _address(self, obj: Tree, owner: str, before: Allocations, allocations: Allocations, dry_run: bool) -> None:
        spec = spec_of(obj)
        address = spec.get("clusterIP")
        if not needs_address(spec) or address == "None" or (self.addresses, address) in before:
            return
        try:
            if address:
                await self._reserve(self.addresses, address, owner, allocations, dry_run)
                return
            address = await self.addresses.choose(owner, dry_run)
        except InUse:
            raise self._refuse(obj, _why(address or "", "provided IP is already allocated")) from None
        except OutOfRange:
            valid = ",".join(map(str, self.addresses.networks))
            text = f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {valid}"
            raise self._refuse(obj, _why(address or "", text)) from None
        except RangeFull:
            raise InternalError("failed to allocate a serviceIP: range is full") from None
        if not dry_run:
            allocations.append((self.addresses, address))
        spec["clusterIP"], spec["clusterIPs"] = address, [address]

    async def _reserve(self, allocator: Allocator, value: str, owner: str, allocations: Allocations, dry_run: bool) -> None:
        if dry_run:
            return
        await allocator.reserve(value, owner)
        allocations.append((allocator, value))

    async def _given_ports(self, obj: Tree, owner: str, before: Allocations, allocations: Allocations, dry_run: bool) -> None:
        spec = spec_of(obj)
        if spec.get("type") not in ("NodePort", "LoadBalancer"):
            return
        for i, port in enumerate(spec.get("ports") or ()):
            number = port.get("nodePort")
            allocation = (self.ports, str(number))
            checks = needs_health_check(spec) and number == spec.get("healthCheckNodePort")  # it cannot be both
            if not number or (not checks and (allocation in before or allocation in allocations)):
                continue
            at = f"spec.ports[{i}].nodePort"
            try:
                await self._reserve(self.ports, str(number), owner, allocations, dry_run)
            except InUse:
                raise self._refuse(obj, invalid(at, number, "provided port is already allocated")) from None
            except OutOfRange:
                text = f"The range of valid ports is {self.ports.low}-{self.ports.high}"
                raise self._refuse(
                    obj, invalid(at, number, f"provided port is not in the valid range. {text}")
                ) from None

    async def _automatic_ports(self, obj: Tree, owner: str, allocations: Allocations, dry_run: bool) -> None:
        spec = spec_of(obj)
        chosen: dict[Any, int] = {}  # port number -> node port, so that TCP and UDP of one port share it
        for port in (spec.get("ports") or ()) if needs_node_ports(spec) else ():
            if port.get("nodePort"):
                continue
            shared = chosen.get(port.get("port"))
            if shared is None:
                try:
                    shared = int(await self.ports.choose(owner, dry_run))
                except RangeFull:
                    raise InternalError("failed to allocate a nodePort: range is full") from None
                if not dry_run:
                    allocations.append((self.ports, str(shared)))
                chosen[port.get("port")] = shared
            port["nodePort"] = shared

    async def _requested_check_port(self, number: int, owner: str, allocations: Allocations, dry_run: bool) -> None:
        """Raises InternalError, as upstream, for a port that cannot be had."""
        failed = f"Internal error occurred: failed to allocate requested HealthCheck NodePort {number}: provided port is"
        try:
            await self._reserve(self.ports, str(number), owner, allocations, dry_run)
        except InUse:
            raise InternalError(f"{failed} already allocated") from None
        except OutOfRange:
            valid = f"The range of valid ports is {self.ports.low}-{self.ports.high}"
            raise InternalError(f"{failed} not in the valid range. {valid}") from None

    async def _automatic_check_port(self, obj: Tree, owner: str, allocations: Allocations, dry_run: bool) -> None:
        try:
            chosen = await self.ports.choose(owner, dry_run)
        except RangeFull:
            text = "failed to allocate a HealthCheck NodePort 0: range is full"
            raise InternalError(f"Internal error occurred: {text}") from None
        if not dry_run:
            allocations.append((self.ports, chosen))
        spec_of(obj)["healthCheckNodePort"] = int(chosen)

    def _refuse(self, obj: Tree, cause: Cause) -> Exception:
        return resource_invalid("Service", "", obj["metadata"].get("name", ""), [cause])


def _why(address: str, text: str) -> Cause:
    return invalid("spec.clusterIPs", [address], f"failed to allocate IP {address}: {text}")
