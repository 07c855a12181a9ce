"""Events are folded and bounded; of two candidates one leads, and the other takes over."""

from __future__ import annotations

import asyncio

import pytest

from navarch.api.types import core_v1, meta_v1
from navarch.client.client import Client
from navarch.client.events import MAX_SIMILAR, NORMAL, SPAM_BURST, WARNING, EventRecorder
from navarch.client.leader import LeaderElector, LeadershipLost
from navarch.client.transport import InProcessTransport
from navarch.world import RealWorld
from tests.client.double import Double
from tests.client.test_informer import until

EVENTS = "/api/v1/namespaces/default/events/"


async def test_events() -> None:
    world = RealWorld()

    server = Double()
    client = Client(InProcessTransport(server, None), world)
    recorder = EventRecorder(client, world, "tester", "host")
    about = core_v1.Pod(
        metadata=meta_v1.ObjectMeta(name="p", namespace="default", uid="u1"), spec=core_v1.PodSpec(containers=[])
    )
    async with world.task_group() as group:
        group.start(recorder.run())
        for _ in range(3):
            recorder.event(about, NORMAL, "Pulled", "have it")
        await until(lambda: any(tree.get("count") == 3 for tree in server.objects.values()))
        (event,) = server.objects.values()
        assert event["involvedObject"] == {
            "apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "default", "uid": "u1",
        }  # fmt: skip
        assert event["source"] == {"component": "tester", "host": "host"}
        server.objects.clear()  # the stored one expired: made anew
        recorder.event(about, NORMAL, "Pulled", "have it")
        await until(lambda: len(server.objects) == 1)
        for n in range(100):
            recorder.event(about, WARNING, "Failed", f"reason {n}")
        node = core_v1.Node(metadata=meta_v1.ObjectMeta(name="n"))
        recorder.event(node, NORMAL, "Ready", "last")
        await until(lambda: any(tree["reason"] == "Ready" for tree in server.objects.values()))
        failed = [tree for tree in server.objects.values() if tree["reason"] == "Failed"]
        assert len(failed) == MAX_SIMILAR + 1
        assert sum(tree["count"] for tree in failed) == SPAM_BURST - 4
        assert failed[-1]["message"].startswith("(combined from similar events): ")
        group.cancel()


async def test_leaders() -> None:
    world = RealWorld()

    server = Double()
    client = Client(InProcessTransport(server, None), world)
    times = {"lease_duration": 0.6, "renew_deadline": 0.4, "retry_period": 0.02}
    order: list[str] = []

    async def lead(name: str) -> None:
        async def work() -> None:
            order.append(name)
            await asyncio.get_running_loop().create_future()

        await LeaderElector(client, world, "kube-system", "it", name, **times).run(work)

    async with world.task_group() as group:
        first = group.start(lead("a"))
        await until(lambda: order == ["a"])
        group.start(lead("b"))
        await asyncio.sleep(0.1)
        assert order == ["a"]
        first.cancel()  # gives the lease back
        await until(lambda: order == ["a", "b"])
        group.cancel()

    async def stolen() -> None:
        with pytest.raises(LeadershipLost):
            await lead("c")

    async with world.task_group() as group:
        group.start(stolen())
        await until(lambda: order[-1] == "c")
        ((path, tree),) = server.objects.items()
        server.put(path, {**tree, "spec": {**tree["spec"], "holderIdentity": "z"}})
