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


def container(running: bool) -> core_v1.ContainerStatus:
    state = core_v1.ContainerState(running=core_v1.ContainerStateRunning())
    dead = core_v1.ContainerState(terminated=core_v1.ContainerStateTerminated(exit_code=0))
    return core_v1.ContainerStatus(
        name="a", image="i", image_id="i", ready=running, restart_count=0, state=state if running else dead
    )


def patches(count: int, each: float) -> int:
    """Patches for so many pods that start together, whose three states are so many seconds apart."""
    world = SimulatedWorld()

    async def main() -> int:
        api = Picky(world)
        async with world.task_group() as group:
            manager = StatusManager(Client(InProcessTransport(api, "agent"), world), world, group)
            manager.start()
            for name in [f"p{n}" for n in range(count)]:
                api.pod(name, {"containers": [{"name": "a"}]})
            pods = [msgspec.convert(pod, core_v1.Pod) for path, pod in sorted(api.objects.items()) if "/pods/" in path]
            for status in (
                core_v1.PodStatus(phase="Pending", host_ip="10.0.0.9"),
                core_v1.PodStatus(phase="Pending", pod_ip="10.0.0.1"),
                core_v1.PodStatus(phase="Running", pod_ip="10.0.0.1", container_statuses=[container(True)]),
            ):
                for pod in pods:
                    manager.set(pod, status)
                await world.sleep(each)
            group.cancel()
        return len(api.patches)

    return world.run(main)


def test_pods_that_start_together_need_fewer_patches() -> None:
    assert patches(1, 0.05) == 1 and patches(10, 0.5) == 10  # what is under way stays unsaid
    assert patches(1, 0.5) == 3 and patches(10, 3.0) == 30  # but not for long


def test_a_pod_that_goes_ends_with_one_patch() -> None:
    world = SimulatedWorld()

    async def main() -> None:
        api = Picky(world)
        async with world.task_group() as group:
            manager = StatusManager(Client(InProcessTransport(api, "agent"), world), world, group)
            manager.start()
            api.pod("p", {"containers": [{"name": "a"}]})
            path = "/api/v1/namespaces/ns/pods/p"
            runs = core_v1.PodStatus(phase="Running", container_statuses=[container(True)])
            manager.set(msgspec.convert(api.objects[path], core_v1.Pod), runs)
            await world.sleep(1)
            api.delete(path, 5)
            pod = msgspec.convert(api.objects[path], core_v1.Pod)
            manager.set(pod, core_v1.PodStatus(phase="Running", container_statuses=[container(False)]))
            await world.sleep(0.1)
            manager.set(pod, core_v1.PodStatus(phase="Succeeded", container_statuses=[container(False)]), final=True)
            await world.sleep(1)
            assert path not in api.objects and [p["phase"] for p in api.patches] == ["Running", "Succeeded"]
            group.cancel()

    world.run(main)
