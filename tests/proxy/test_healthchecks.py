"""Health check node ports: who answers what, and ports that come, go, and are somebody else's for a while."""

from __future__ import annotations

import asyncio
import json
import socket
from types import SimpleNamespace

from navarch.api.types import core_v1, discovery_v1
from navarch.world import RealWorld
from proxy.healthchecks import HealthChecks, port_of
from tests.proxy.test_proxy import Listed
from tests.proxy.test_rules import service, slice_of


def balanced(name, port, policy="Local"):
    made = service(name, external_traffic_policy=policy, health_check_node_port=port)
    made.spec.type = "LoadBalancer"
    return made


def test_which_services_are_told_of():
    assert port_of(balanced("a", 31000)) == 31000
    assert port_of(balanced("a", 31000, "Cluster")) == 0 == port_of(service("a", external_traffic_policy="Local"))


async def ask(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /any HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body)


async def answers(port):
    try:
        return await ask(port)
    except OSError:
        return None


async def until(condition):
    while not await condition():
        await asyncio.sleep(0.01)


class Node:
    """Health checks of node "here" over Services and EndpointSlices that are put by hand."""

    def __init__(self, world):
        self.services, self.slices, self.pieces = Listed(), Listed(), {}
        self.slices.by_index = lambda index, key: self.pieces.get(key, ())
        listed = {core_v1.Service: self.services, discovery_v1.EndpointSlice: self.slices}
        informers = SimpleNamespace(informer=lambda cls, **_: listed[cls])
        self.checks = HealthChecks(world, informers, "here", "127.0.0.1")


async def test_the_node_tells_of_its_endpoints():
    world = RealWorld()
    holder = socket.create_server(("127.0.0.1", 0))
    other = socket.create_server(("127.0.0.1", 0))
    port, moved = holder.getsockname()[1], other.getsockname()[1]
    other.close()
    node = Node(world)
    node.pieces["default/a"] = [slice_of(("10.9.1.1", "ready"), ("10.9.1.2", "unready"), ("10.9.2.1", "ready"))]
    async with world.task_group() as group:
        group.start(node.checks.run())
        node.services.put(balanced("a", port))  # somebody else has the port
        await world.sleep(0.1)
        holder.close()
        await until(lambda: answers(port))
        status, body = await ask(port)
        assert (status, body["localEndpoints"], body["service"]) == (200, 1, {"namespace": "default", "name": "a"})
        node.pieces["default/a"] = [slice_of(("10.9.2.1", "ready"))]
        assert (await ask(port))[0] == 503
        node.services.put(balanced("a", moved))
        await until(lambda: answers(moved))
        assert await answers(port) is None
        node.services.put(balanced("a", moved, "Cluster"))

        async def closed():
            return await answers(moved) is None

        await until(closed)
        group.cancel()
