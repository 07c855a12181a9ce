"""Publishes this node's resolver as an endpoint of kube-system/kube-dns."""

from __future__ import annotations

import logging

from navarch.api import wellknown
from navarch.api.errors import AlreadyExists, StatusError
from navarch.api.types import core_v1, discovery_v1, meta_v1
from navarch.client.client import Client
from navarch.client.transport import TransportError
from navarch.world import Backoff, World
from proxy.rules import SERVICE_NAME

log = logging.getLogger(__name__)

NAMESPACE, SERVICE = "kube-system", "kube-dns"


def resolver_slice(node: str, address: str) -> discovery_v1.EndpointSlice:
    return discovery_v1.EndpointSlice(
        metadata=meta_v1.ObjectMeta(
            name=f"{SERVICE}-{node}",
            namespace=NAMESPACE,
            labels={SERVICE_NAME: SERVICE, wellknown.ENDPOINTSLICE_MANAGED_BY: "navarch-proxy"},
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
        ports=[
            discovery_v1.EndpointPort(name="dns", port=53, protocol="UDP"),
            discovery_v1.EndpointPort(name="dns-tcp", port=53, protocol="TCP"),
        ],
    )


async def publish(client: Client, world: World, node: str, address: str) -> None:
    """Creates or corrects the slice; tries until it works."""
    desired = resolver_slice(node, address)
    slices, name = client[discovery_v1.EndpointSlice], desired.metadata.name or ""
    backoff = Backoff(world, first=0.2, most=10.0)
    while True:
        try:
            try:
                await slices.create(desired, NAMESPACE)
            except AlreadyExists:
                current = await slices.get(name, NAMESPACE)
                if (current.endpoints, current.ports) != (desired.endpoints, desired.ports):
                    current.endpoints, current.ports = desired.endpoints, desired.ports
                    await slices.update(current)
            return
        except (StatusError, TransportError) as error:
            log.info("publishing the resolver: %s", error)
            await world.sleep(backoff.next())
