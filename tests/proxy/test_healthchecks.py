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


def test_the_node_tells_of_its_endpoints():
    world = RealWorld()
    services, slices = Listed(), Listed()
    near, pieces = [slice_of(("10.9.1.1", "ready"), ("10.9.1.2", "unready"), ("10.9.2.1", "ready"))], {}
    slices.by_index = lambda index, key: pieces.get(key, ())
    listed = {core_v1.Service: services, discovery_v1.EndpointSlice: slices}
    informers = SimpleNamespace(informer=lambda cls, **_: listed[cls])

    async def until(check):
        while not await check():
            await world.sleep(0.01)

    async def main():
        holder = socket.create_server(("127.0.0.1", 0))
        other = socket.create_server(("127.0.0.1", 0))
        port, moved = holder.getsockname()[1], other.getsockname()[1]
        other.close()
        checks = HealthChecks(world, informers, "here", "127.0.0.1")
        pieces["default/a"] = near
        async with world.task_group() as group:
            group.start(checks.run())
            services.put(balanced("a", port))  # somebody else has the port
            await world.sleep(0.1)
            holder.close()

            async def answers(where):
                try:
                    return await ask(where)
                except OSError:
                    return None

            await until(lambda: answers(port))
            status, body = await ask(port)
            assert (status, body["localEndpoints"], body["service"]) == (200, 1, {"namespace": "default", "name": "a"})
            pieces["default/a"] = [slice_of(("10.9.2.1", "ready"))]
            assert (await ask(port))[0] == 503
            services.put(balanced("a", moved))
            await until(lambda: answers(moved))
            assert await answers(port) is None
            services.put(balanced("a", moved, "Cluster"))

            async def closed():
                return await answers(moved) is None

            await until(closed)
            group.cancel()

    world.run(main)
