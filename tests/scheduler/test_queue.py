"""The queue: an event wakes the pods it can help, and no others."""

from __future__ import annotations

from navarch.api.types import core_v1
from navarch.virtual import SimulatedWorld
from scheduler.plugin import NODE_CHANGED, POD_GONE, Event
from scheduler.pods import PodInfo
from scheduler.profiles import default_profile
from scheduler.queue import SchedulingQueue
from tests.scheduler.test_cycle import node, pod, table

GATE = [core_v1.PodSchedulingGate(name="later")]


def mine(cpu: str = "", **spec: object) -> PodInfo:
    return pod(cpu, scheduler_name="default-scheduler", **spec)


def queue(world: SimulatedWorld) -> SchedulingQueue:
    profile = default_profile()
    return SchedulingQueue(world, {profile.name: profile}, table(node("a")))


def places(q: SchedulingQueue) -> list[str]:
    return [w.place for w in q.pods.values()]


def test_events_wake_only_the_pods_that_they_can_help():
    world = SimulatedWorld(1)

    async def main() -> None:
        q = queue(world)
        taint = core_v1.Taint(key="k", effect="NoSchedule")
        tolerant = [core_v1.Toleration(key="k", operator="Exists")]
        waiting = [mine("500m"), mine("500m", tolerations=tolerant), mine(), mine(port=80)]
        reasons = [["NodeResourcesFit"], ["TaintToleration"], ["TaintToleration"], ["NodePorts"]]
        for p, why in zip(waiting, reasons, strict=True):
            q.add(p)
            assert (await q.pop()).uid == p.uid
            q.unschedulable(p.uid, why)
        assert places(q) == ["unschedulable"] * 4
        q.happened(Event(POD_GONE, pod=mine(port=81)))  # frees a place for a pod, but not port 80
        assert places(q) == ["backoff", "unschedulable", "unschedulable", "unschedulable"]
        q.happened(Event(NODE_CHANGED, node=node("a", taints=[taint])))  # the node got a taint
        assert places(q) == ["backoff", "backoff", "unschedulable", "unschedulable"]
        await world.sleep(1.5)
        assert places(q) == ["active", "active", "unschedulable", "unschedulable"]
        await world.sleep(400)  # in case an event was missed
        assert places(q) == ["active"] * 4

    world.run(main)


def test_gates_priorities_and_waits_that_grow():
    world = SimulatedWorld(1)

    async def main() -> None:
        q = queue(world)
        gated, low, high = mine(scheduling_gates=GATE), mine(), mine(priority=9)
        for p in (gated, low, high):
            q.add(p)
        assert q.counts() == {"active": 2, "backoff": 0, "unschedulable": 0, "gated": 1}
        assert [(await q.pop()).uid for _ in range(2)] == [high.uid, low.uid]
        free = PodInfo(gated.pod)
        gated.pod.spec.scheduling_gates = None
        q.add(free)
        assert (await q.pop()).uid == gated.uid
        q.remove(gated.uid)
        waits = []
        for _ in range(6):
            q.failed(low.uid)
            began = world.monotonic()
            await q.pop()
            waits.append(round(world.monotonic() - began))
        assert waits == [1, 2, 4, 8, 10, 10]
        q.remove(low.uid)
        q.remove(high.uid)
        assert len(q) == 0 and not any(q._parked.values())

    world.run(main)
