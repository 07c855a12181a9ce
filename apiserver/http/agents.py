"""The way to node agents: an address and a transport for each node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apiserver.config import Config as ServerConfig
from apiserver.registry.resources import Resources
from navarch.api.errors import BadRequest, InternalError, NotFound
from navarch.client.kubeconfig import Config
from navarch.client.transport import HTTPSTransport

Tree = dict[str, Any]


class Agents:
    """Connections to agents, kept by address."""

    def __init__(self, resources: Resources, config: ServerConfig) -> None:
        self.resources, self.config = resources, config
        self._transports: dict[str, HTTPSTransport] = {}

    async def close(self) -> None:
        for transport in self._transports.values():
            await transport.close()
        self._transports.clear()

    def of_pod(self, pod: Tree) -> HTTPSTransport:
        """The transport to the agent that runs the pod. Raises BadRequest for a pod without a node, as ``of_node``."""
        node = pod["spec"].get("nodeName")
        if not node:
            raise BadRequest(f"pod {pod['metadata']['name']} does not have a host assigned")
        return self.of_node(node)

    def of_node(self, name: str) -> HTTPSTransport:
        """Raises NotFound, InternalError for a node that tells no address."""
        node = self.resources["", "nodes"].cached("", name)
        if node is None:
            raise NotFound(f'nodes "{name}" not found')
        host = self._preferred(node)
        port = (((node.get("status") or {}).get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
        if not host or not port:
            raise InternalError(f'Internal error occurred: no preferred addresses found for node "{name}"')
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        agent = self._transports.get(address)
        if agent is None:
            agent = self._transports[address] = self._transport(address)
        return agent

    @staticmethod
    def host(node: Tree) -> str:
        """The node's InternalIP, "" if it tells none."""
        addresses = (node.get("status") or {}).get("addresses") or ()
        return next((str(a["address"]) for a in addresses if a.get("type") == "InternalIP"), "")

    def _preferred(self, node: Tree) -> str:
        """Where the node's agent is reached: its first address of the types that are preferred, "" if it has none."""
        addresses = {a.get("type"): str(a["address"]) for a in (node.get("status") or {}).get("addresses") or ()}
        types = self.config.kubelet_preferred_address_types.split(",")
        return next((addresses[t] for t in types if t in addresses), "")

    def _transport(self, address: str) -> HTTPSTransport:
        config = self.config

        def content(path: str) -> bytes:
            return Path(path).read_bytes() if path else b""

        return HTTPSTransport(
            Config(
                server=f"https://{address}",
                ca=content(config.kubelet_certificate_authority),
                client_certificate=content(config.kubelet_client_certificate),
                client_key=content(config.kubelet_client_key),
                # Without an authority for agents their identity is unknown, as with kube-apiserver's default.
                insecure=not config.kubelet_certificate_authority,
            )
        )
