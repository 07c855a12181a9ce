"""Resizing a pod in place: what is granted, in which steps, and what the status says."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from navarch.api.types import core_v1, meta_v1
from navarch.virtual import SimulatedWorld
from nodeagent.pods.context import Services
from nodeagent.pods.grants import IN_PROGRESS, PENDING, desired_resources, refused, reported, restarts
from nodeagent.pods.resize import Host, Resizer, raised
from nodeagent.runtime.runtime import RUNNING, Container, Resources, RuntimeError_, Sandbox, SandboxConfig


def container(name: str, cpu: str, memory: str = "64Mi", policy: str = "") -> core_v1.Container:
    amounts = {"cpu": cpu, "memory": memory}
    return core_v1.Container(
        name=name,
        resources=core_v1.ResourceRequirements(requests=dict(amounts), limits=dict(amounts)),
        resize_policy=[core_v1.ContainerResizePolicy(resource_name="memory", restart_policy=policy)]
        if policy
        else None,
    )


def pod(*containers: core_v1.Container, uid: str = "u") -> core_v1.Pod:
    metadata = meta_v1.ObjectMeta(name="p", namespace="n", uid=uid, generation=2)
    return core_v1.Pod(metadata=metadata, spec=core_v1.PodSpec(containers=list(containers)))


def running(*names: str) -> list[Container]:
    return [Container(f"{n}-id", "s", n, 0, "i", "i", RUNNING, 0.0) for n in names]


SANDBOX = Sandbox("s", SandboxConfig("u", "n", "p"), True, 0.0)


class FakeRuntime:
    """Notes what is asked of it; refuses what is in ``bad``."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []
        self.bad: dict[str, str] = {}

    async def resize_container(self, container_id: str, resources: Resources) -> None:
        if container_id in self.bad:
            raise RuntimeError_("ResizeError", self.bad[container_id])
        self.calls.append((container_id, resources.cpu_quota, resources.memory_limit >> 20))

    async def resize_sandbox(self, sandbox_id: str, resources: Resources) -> None:
        self.calls.append((sandbox_id, resources.cpu_quota, resources.memory_limit >> 20))


class Node:
    """A resizer and all that it sees."""

    def __init__(self, first: core_v1.Pod, found: bool = False) -> None:
        self.runtime = FakeRuntime()
        self.others: list[core_v1.Pod] = []
        self.stopped: list[str] = []
        self.events: list[str] = []
        self.wakes: list[float] = []
        some: Any = None
        services = Services(
            some, some, SimulatedWorld(), self.runtime, some, some, some, some, some, some, some,  # type: ignore[arg-type]
            memory_capacity=1 << 30, allocatable={"cpu": "2", "memory": "1Gi"}, active=lambda: self.others,
        )  # fmt: skip
        host = Host(
            services, "Guaranteed", lambda c: self.stopped.append(c.name), lambda t, r, m: self.events.append(r),
            self.wakes.append,
        )  # fmt: skip
        self.resizer = Resizer(host, first, found)

    def step(self, now: core_v1.Pod, containers: list[Container]) -> core_v1.PodStatus:
        asyncio.run(self.resizer.step(now, containers, SANDBOX))
        statuses = [
            core_v1.ContainerStatus(
                name=c.name, image="i", image_id="", ready=True, restart_count=0, container_id=f"navarch://{c.id}",
                state=core_v1.ContainerState(running=core_v1.ContainerStateRunning()),
            )
            for c in containers
        ]  # fmt: skip
        return self.resizer.shown(core_v1.PodStatus(container_statuses=statuses), 2, 0.0)


def cpu(status: core_v1.PodStatus) -> list[Any]:
    return [c.resources.limits["cpu"] for c in status.container_statuses or () if c.resources and c.resources.limits]


def test_growing_and_shrinking() -> None:
    node = Node(pod(container("a", "100m"), container("b", "100m")))
    both = running("a", "b")
    status = node.step(pod(container("a", "100m"), container("b", "100m")), both)
    assert node.runtime.calls == [] and cpu(status) == ["100m", "100m"] and not status.conditions
    # The pod's own limit is raised before those of containers, and lowered after them.
    status = node.step(pod(container("a", "300m"), container("b", "100m")), both)
    assert node.runtime.calls == [("s", 40000, 128), ("a-id", 30000, 64), ("s", 40000, 128)]
    assert cpu(status) == ["300m", "100m"] and not status.conditions and node.events == ["ResizeCompleted"]
    node.runtime.calls.clear()
    node.step(pod(container("a", "50m", "32Mi"), container("b", "100m")), both)
    assert node.runtime.calls == [("s", 40000, 128), ("a-id", 5000, 32), ("s", 15000, 96)]


def test_init_containers_are_not_resized() -> None:
    """An init container is made and seen to run before the next step: its status shows no resources, and is no error."""
    first = pod(container("a", "100m"))
    first.spec.init_containers = [container("i", "50m")]
    node = Node(first)
    node.resizer.note_container("i-id", "i")
    state = core_v1.ContainerState(running=core_v1.ContainerStateRunning())
    status = core_v1.ContainerStatus(
        name="i", image="i", image_id="", ready=False, restart_count=0, container_id="navarch://i-id", state=state
    )
    assert node.resizer.shown(core_v1.PodStatus(init_container_statuses=[status]), 1, 0.0).init_container_statuses == [status]


def test_not_on_this_node() -> None:
    first = pod(container("a", "100m"))
    node = Node(first)
    status = node.step(pod(container("a", "3")), running("a"))
    (condition,) = status.conditions or ()
    assert (condition.type, condition.status, condition.reason) == (PENDING, "True", "Infeasible")
    assert condition.message == "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"
    # It goes on with what it has, and so it counts.
    assert cpu(status) == ["100m"] and desired_resources(node.resizer.pod(pod(container("a", "3")))) == desired_resources(first)
    assert not node.resizer.deferred and not (node.step(first, running("a")).conditions)


def test_not_yet() -> None:
    node = Node(pod(container("a", "100m")))
    node.others = [pod(container("x", "1500m"), uid="x"), pod(container("a", "100m"))]  # not against itself
    status = node.step(pod(container("a", "1")), running("a"))
    assert status.conditions is not None and status.conditions[0].reason == "Deferred" and node.resizer.deferred
    text = "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
    assert status.conditions[0].message == text
    node.others = []
    status = node.step(pod(container("a", "1")), running("a"))
    assert cpu(status) == ["1"] and not status.conditions and not node.resizer.deferred


def test_restart_by_policy() -> None:
    node = Node(pod(container("a", "100m", policy="RestartContainer")))
    bigger = pod(container("a", "100m", "96Mi", policy="RestartContainer"))
    status = node.step(bigger, running("a"))
    assert node.stopped == ["a"] and (status.conditions or ())[0].type == IN_PROGRESS
    node.step(bigger, running("a"))
    assert node.stopped == ["a"]  # once
    again = [Container("new", "s", "a", 1, "i", "i", RUNNING, 0.0)]
    node.resizer.note_container("new", "a")
    status = node.step(bigger, again)
    assert not status.conditions and (status.container_statuses or ())[0].resources == desired_resources(bigger)["a"]


def test_failure_is_told_and_tried_again() -> None:
    node = Node(pod(container("a", "100m")))
    node.runtime.bad["a-id"] = "in use"
    smaller = pod(container("a", "100m", "32Mi"))
    for _ in range(2):
        status = node.step(smaller, running("a"))
        (condition,) = status.conditions or ()
        assert (condition.type, condition.reason, condition.message) == (IN_PROGRESS, "Error", "in use")
    assert node.events == ["ResizeError"] and node.wakes == [5.0, 5.0]
    node.runtime.bad.clear()
    assert not node.step(smaller, running("a")).conditions


def test_a_new_agent_goes_on() -> None:
    """What was granted stands in the status: a resize that was pending still is."""
    asked = pod(container("a", "3"))
    had = desired_resources(pod(container("a", "100m")))["a"]
    status = core_v1.ContainerStatus(
        name="a", image="i", image_id="", ready=True, restart_count=0, resources=had, allocated_resources=had.requests
    )
    asked = msgspec.structs.replace(asked, status=core_v1.PodStatus(container_statuses=[status]))
    assert reported(asked) == {"a": had}
    node = Node(asked, found=True)
    assert cpu(node.step(asked, running("a"))) == ["100m"]


@pytest.mark.parametrize(
    ("old", "new", "between"),
    [
        (Resources(2, 100, 10, 5), Resources(9, 50, 10, 7), (9, 100, 7)),
        (Resources(9, 0, 10, 0), Resources(2, 50, 10, 7), (9, 0, 0)),
    ],
)
def test_raised(old: Resources, new: Resources, between: tuple[int, int, int]) -> None:
    found = raised(old, new)
    assert (found.cpu_shares, found.cpu_quota, found.memory_limit) == between


def test_rules() -> None:
    small = container("a", "1", policy="RestartContainer")
    assert not restarts(container("a", "2", policy="RestartContainer"), desired_resources(pod(small))["a"])
    assert restarts(container("a", "1", "1Mi", policy="RestartContainer"), desired_resources(pod(small))["a"])
    assert refused(pod(container("a", "1")), {"memory": "1Gi"}, []) is None
