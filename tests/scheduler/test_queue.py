"""The queue: an event wakes the pods it can help, and no others."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api.types import core_v1
from navarch.virtual import SimulatedWorld
from scheduler.framework.plugin import NODE_CHANGED, POD_GONE, Event
from scheduler.framework.profiles import default_profile
from scheduler.queue import SchedulingQueue
from scheduler.state.pods import PodInfo
from tests.scheduler.test_cycle import node, pod, table

GATE = [core_v1.PodSchedulingGate(name="later")]


def mine(cpu: str = "", **spec: object) -> PodInfo:
    return pod(cpu, scheduler_name="default-scheduler", **spec)


def queue(world: SimulatedWorld) -> SchedulingQueue:
    profile = default_profile()
    return SchedulingQueue(world, {profile.name: profile}, table(node("a")))


def places(q: SchedulingQueue) -> list[str]:
    return [w.place for w in q.pods.values()]


async def test_events_wake_only_the_pods_that_they_can_help(world: SimulatedWorld, ):
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


async def test_gates_priorities_and_waits_that_grow(world: SimulatedWorld, ):
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


async def test_what_happens_while_a_pod_is_in_flight_is_asked_when_it_is_back(world: SimulatedWorld, ):
    q = queue(world)
    first, second = mine("500m"), mine("500m")
    for p in (first, second):
        q.add(p)
    assert (await q.pop()).uid == first.uid
    q.happened(Event(POD_GONE, pod=mine("100m")))
    assert (await q.pop()).uid == second.uid
    q.happened(Event(POD_GONE, pod=mine(port=80)))
    q.unschedulable(first.uid, ["NodeResourcesFit"])
    q.unschedulable(second.uid, ["NodePorts"])  # what freed cpu was before it, and port 80 is not what it lacks
    assert places(q) == ["backoff", "unschedulable"]
    assert not q._log and not q._flying


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["add", "pop", "refuse", "bind", "fail", "free", "noise", "wait"]), max_size=60))
def test_no_wake_up_is_lost_and_the_queue_forgets_nothing(steps):
    """Against a model: who was refused, and whether room was freed since he was popped."""
    world = SimulatedWorld(1)

    async def main() -> None:
        q = queue(world)
        flying: dict[str, bool] = {}  # uid -> whether something helped since
        asleep: set[str] = set()
        for step in steps:
            if step == "add":
                q.add(mine("100m"))
            elif step == "pop" and q._active:
                flying[(await q.pop()).uid] = False
            elif step in ("refuse", "bind", "fail") and flying:
                uid = next(iter(flying))
                helped = flying.pop(uid)
                if step == "refuse":
                    q.unschedulable(uid, ["NodeResourcesFit"])
                    if not helped:
                        asleep.add(uid)
                elif step == "fail":
                    q.failed(uid)
                else:
                    q.remove(uid)
            elif step == "free":
                q.happened(Event(POD_GONE, pod=mine("100m")))
                asleep.clear()
                flying = dict.fromkeys(flying, True)
            elif step == "noise":
                q.happened(Event(NODE_CHANGED, node=node("a"), old=node("a")))
            elif step == "wait":
                await world.sleep(11)
            assert {u for u, w in q.pods.items() if w.place == "unschedulable"} == asleep
            assert {u for u, w in q.pods.items() if w.place == "flight"} == set(flying) == set(q._flying)
            assert bool(q._log) <= bool(flying)
        await world.sleep(301)  # and whoever sleeps is woken in the end
        assert all(w.place in ("active", "flight") for w in q.pods.values())

    world.run(main)
