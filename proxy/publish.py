"""Publishes what a node's own processes answer as an EndpointSlice: its resolver, its ingress proxy."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from navarch.api import wellknown
from navarch.api.errors import AlreadyExists, StatusError
from navarch.api.types import core_v1, discovery_v1, meta_v1
from navarch.client.client import Client
from navarch.client.transport import TransportError
from navarch.world import Backoff, World
from proxy.rules import SERVICE_NAME

log = logging.getLogger(__name__)

NAMESPACE, SERVICE = "kube-system", "kube-dns"
DNS_PORTS = {"dns": (53, "UDP"), "dns-tcp": (53, "TCP")}


def node_slice(
    namespace: str, service: str, manager: str, node: str, address: str, ports: Mapping[str, tuple[int, str]]
) -> discovery_v1.EndpointSlice:
    """One endpoint of a service: this node. ``ports``: name -> (number, protocol)."""
    return discovery_v1.EndpointSlice(
        metadata=meta_v1.ObjectMeta(
            name=f"{service}-{node}",
            namespace=namespace,
            labels={SERVICE_NAME: service, wellknown.ENDPOINTSLICE_MANAGED_BY: manager},
        ),
        address_type="IPv4",
        endpoints=[
            discovery_v1.Endpoint(
                addresses=[address],
                node_name=node,
                conditions=discovery_v1.EndpointConditions(ready=True, serving=True, terminating=False),
                target_ref=core_v1.ObjectReference(kind="Node", name=node),
            )
        ],
        ports=[discovery_v1.EndpointPort(name=n, port=number, protocol=p) for n, (number, p) in ports.items()],
    )


def resolver_slice(node: str, address: str) -> discovery_v1.EndpointSlice:
    return node_slice(NAMESPACE, SERVICE, "navarch-proxy", node, address, DNS_PORTS)


async def publish(client: Client, world: World, node: str, address: str) -> None:
    """Publishes this node's resolver as an endpoint of kube-system/kube-dns."""
    await keep_slice(client, world, resolver_slice(node, address))


async def keep_slice(client: Client, world: World, desired: discovery_v1.EndpointSlice) -> None:
    """Creates or corrects the slice; tries until it works."""
    slices, name, namespace = client[discovery_v1.EndpointSlice], desired.metadata.name or "", desired.metadata.namespace
    backoff = Backoff(world, first=0.2, most=10.0)
    while True:
        try:
            try:
                await slices.create(desired, namespace)
            except AlreadyExists:
                current = await slices.get(name, namespace)
                if (current.endpoints, current.ports) != (desired.endpoints, desired.ports):
                    current.endpoints, current.ports = desired.endpoints, desired.ports
                    await slices.update(current)
            return
        except (StatusError, TransportError) as error:
            log.info("publishing %s/%s: %s", namespace, name, error)
            await world.sleep(backoff.next())
