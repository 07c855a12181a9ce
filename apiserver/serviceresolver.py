"""Where a Service is reached by this server, which has no service proxy beside it: one of the ready endpoints."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from apiserver.registry.resources import Resources
from navarch.api import wellknown
from navarch.api.addresses import in_networks
from navarch.api.selectors import from_labels

if TYPE_CHECKING:
    import aiohttp
    import aiohttp.abc

Tree = dict[str, Any]
Address = tuple[str, int]


class NoEndpoint(Exception):
    """The Service is not there, does not have the port, or nobody stands behind it; in the words of Kubernetes."""


def service_port(service: Tree, port: int) -> Tree | None:
    """The port of a Service with this number."""
    return next((p for p in service["spec"].get("ports") or () if p.get("port") == port), None)


def ready_addresses(slices: list[Tree], port_name: str) -> list[Address]:
    """Address and port of every ready endpoint behind a named port."""
    out: list[Address] = []
    for part in slices:
        numbers = [p["port"] for p in part.get("ports") or () if (p.get("name") or "") == port_name and p.get("port")]
        for endpoint in part.get("endpoints") or ():
            if numbers and (endpoint.get("conditions") or {}).get("ready") is not False:
                out += [(str(a), int(numbers[0])) for a in endpoint.get("addresses") or ()]
    return out


class ServiceResolver:
    """``denied``: networks in which nobody answers, the pods of simulated nodes."""

    def __init__(self, resources: Resources, denied: Sequence[str] = ()) -> None:
        self.resources, self.denied = resources, denied

    def reachable(self, address: str) -> bool:
        """False for the addresses of simulated pods, at which nobody answers: a connection would leave the machine.

        A host name is looked at when it has become an address, see :meth:`names`.
        """
        try:
            return not in_networks(address, self.denied)
        except ValueError:
            return True

    def names(self) -> aiohttp.abc.AbstractResolver:
        """For connections to host names that users chose: leaves out what is not :meth:`reachable`."""
        import aiohttp
        from aiohttp.abc import ResolveResult

        reachable = self.reachable

        class Reachable(aiohttp.ThreadedResolver):
            async def resolve(
                self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
            ) -> list[ResolveResult]:
                results = await super().resolve(host, port, family)
                allowed = [result for result in results if reachable(result["host"])]
                if not allowed:
                    raise OSError(f"nobody answers at {host}: its addresses are those of simulated pods")
                return allowed

        return Reachable()

    def slices(self, namespace: str, name: str) -> list[Tree]:
        """The EndpointSlices of a Service, as the cache has them."""
        slices = self.resources["discovery.k8s.io", "endpointslices"]
        selector = from_labels({wellknown.SERVICE_NAME: name})
        return [entry.tree() for entry in slices.cache.list(slices.prefix, namespace, labels=selector).entries]

    def address(self, namespace: str, name: str, port: int) -> Address:
        """An address that answers for the Service. Raises NoEndpoint."""
        service = self.resources["", "services"].cached(namespace, name)
        if service is None:
            raise NoEndpoint(f'service "{name}" not found')
        if service["spec"].get("type") == "ExternalName":
            return str(service["spec"].get("externalName") or ""), port
        service_port_ = service_port(service, port)
        if service_port_ is None:
            raise NoEndpoint(f'no service port {port} found for service "{name}"')
        choice = ready_addresses(self.slices(namespace, name), service_port_.get("name") or "")
        choice = [address for address in choice if self.reachable(address[0])]
        if not choice:
            raise NoEndpoint(f'no endpoints available for service "{name}"')
        return self.resources.backend.world.random.choice(choice)
