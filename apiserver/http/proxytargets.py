"""Where pods/NAME/proxy, services/NAME/proxy and nodes/NAME/proxy lead. NAME may be ``[SCHEME:]NAME[:PORT]``."""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple

from apiserver.http.agents import Agents
from apiserver.registry.resources import Resources
from apiserver.request import RequestInfo
from apiserver.serviceresolver import ServiceResolver, ready_addresses
from navarch.api.addresses import is_dialable
from navarch.api.errors import BadRequest, NotFound, ServiceUnavailable

Tree = dict[str, Any]


class Target(NamedTuple):
    """``tls`` is None for plain HTTP; ``server_name`` is what the certificate must be good for, "" for the host."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    server_name: str = ""

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"


def split_name(name: str, what: str) -> tuple[str, str, str]:
    """Scheme, name and port, "" where absent. Raises BadRequest."""
    parts = name.split(":")
    if len(parts) == 1:
        scheme, bare, port = "", parts[0], ""
    elif len(parts) == 2:
        scheme, (bare, port) = "", parts
    elif len(parts) == 3:
        scheme, bare, port = parts
    else:
        raise BadRequest(f'invalid {what} request "{name}"')
    if scheme not in ("", "http", "https") or not bare:
        raise BadRequest(f'invalid {what} request "{name}"')
    return scheme, bare, port


def check_address(address: str) -> str:
    """Refuses addresses that lead back to the API server's own machine. Raises BadRequest."""
    if not is_dialable(address):
        raise BadRequest("address not allowed")
    return address


def _number(port: str, name: str, what: str) -> int:
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise BadRequest(f'invalid {what} request "{name}"')
    return int(port)


class Targets:
    """Finds the target of a request."""

    def __init__(self, resources: Resources, agents: Agents, resolver: ServiceResolver) -> None:
        self.resources, self.agents, self.resolver = resources, agents, resolver
        # As upstream: what a pod calls itself cannot be known.
        self._any = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._any.check_hostname = False
        self._any.verify_mode = ssl.CERT_NONE

    async def find(self, info: RequestInfo) -> Target:
        """Raises NotFound, BadRequest, ServiceUnavailable."""
        match info.resource:
            case "pods":
                return await self._pod(info.namespace, info.name)
            case "services":
                return await self._service(info.namespace, info.name)
        return await self._node(info.name)

    def _reachable(self, address: str) -> str:
        """Raises BadRequest, ServiceUnavailable."""
        if not self.resolver.reachable(check_address(address)):
            raise ServiceUnavailable(f"nobody answers at {address}: pods of simulated nodes listen on no ports")
        return address

    def _tls(self, scheme: str) -> ssl.SSLContext | None:
        return self._any if scheme == "https" else None

    async def _pod(self, namespace: str, text: str) -> Target:
        scheme, name, port = split_name(text, "pod")
        pod = await self.resources["", "pods"].get_tree(namespace, name)
        if port:
            number = _number(port, text, "pod")
        else:
            ports = [p for c in pod["spec"]["containers"] for p in (c.get("ports") or ())[:1]]
            number = int(ports[0]["containerPort"]) if ports else 443 if scheme == "https" else 80
        address = self._reachable((pod.get("status") or {}).get("podIP") or "")
        return Target(address, number, self._tls(scheme))

    async def _service(self, namespace: str, text: str) -> Target:
        scheme, name, port = split_name(text, "service")
        service = await self.resources["", "services"].get_tree(namespace, name)
        if port.isdigit():
            ports = [p for p in service["spec"].get("ports") or () if p.get("port") == int(port)]
            if not ports:
                raise ServiceUnavailable(f'no service port {port} found for service "{name}"')
            port = ports[0].get("name") or ""
        choice = ready_addresses(self.resolver.slices(namespace, name), port)
        if not choice:
            raise ServiceUnavailable(f'no endpoints available for service "{text}"')
        address, number = self.resources.backend.world.random.choice(choice)
        return Target(self._reachable(address), number, self._tls(scheme))

    async def _node(self, text: str) -> Target:
        scheme, name, port = split_name(text, "node")
        node = self.resources["", "nodes"].cached("", name)
        if node is None:
            raise NotFound(f'nodes "{name}" not found')
        own = ((node.get("status") or {}).get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
        if not port or port == str(own.get("Port")):
            agent = self.agents.of_node(name)
            host, number, tls = agent.endpoint()
            return Target(host, number, tls)
        return Target(self._reachable(self.agents.host(node)), _number(port, text, "node"), self._tls(scheme))
