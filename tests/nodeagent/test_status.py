"""Statuses reach the API server: few, whole, never old after new, and none holds another up."""

from __future__ import annotations

from typing import Any

import msgspec

from navarch.api import errors
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.transport import InProcessTransport
from navarch.virtual import SimulatedWorld
from nodeagent.node.statuswriter import StatusManager
from tests.nodeagent.cluster import Api


class Picky(Api):
    """Refuses the status of the pod named "bad"."""

    def __init__(self, world: SimulatedWorld) -> None:
        super().__init__(world)
        self.patches: list[Any] = []

    def _patch_status(self, path: str, body: Any) -> Any:
        self.patches.append(body["status"])
        if path.endswith("/bad"):
            raise errors.Invalid("no")
        return super()._patch_status(path, body)


def test_statuses() -> None:
    world = SimulatedWorld()

    async def main() -> None:
        api = Picky(world)
        client = Client(InProcessTransport(api, "agent"), world)
        async with world.task_group() as group:
            manager = StatusManager(client, world, group)
            manager.start()

            def known(name: str) -> core_v1.Pod:
                return msgspec.convert(api.objects[f"/api/v1/namespaces/ns/pods/{name}"], core_v1.Pod)

            for name in ("bad", "good"):
                api.pod(name, {"containers": [{"name": "a"}]})
                pod = known(name)
                # Both unimportant ones and the important one after them go out as one patch.
                manager.set(pod, core_v1.PodStatus(phase="Pending", start_time="2026-01-01T00:00:00Z"))
                manager.set(pod, core_v1.PodStatus(phase="Pending", host_ip="10.0.0.1"))
                manager.set(pod, core_v1.PodStatus(phase="Running", host_ip="10.0.0.1"))
            await world.sleep(30)
            assert api.phase("/api/v1/namespaces/ns/pods/good") == "Running"
            assert len([p for p in api.patches if p == {"phase": "Running", "hostIP": "10.0.0.1"}]) > 3  # bad: again and again
            # Somebody else takes the phase back: what we know is written again, once the informer shows it.
            path = "/api/v1/namespaces/ns/pods/good"
            api.put(path, api.objects[path] | {"status": {"phase": "Unknown"}})
            manager.set(known("good"), core_v1.PodStatus(phase="Running", host_ip="10.0.0.1"))
            await world.sleep(1)
            assert api.phase(path) == "Running"
            api.delete(path, 5)
            manager.set(known("good"), core_v1.PodStatus(phase="Succeeded"), final=True)
            await world.sleep(1)
            assert path not in api.objects
            group.cancel()

    world.run(main)
