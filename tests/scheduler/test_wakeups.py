"""What the watches tell reaches the pods that it can help: no room stays kept for pods that are gone, no wake-up is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import pytest

from navarch.api.types import core_v1, meta_v1
from navarch.client.client import Client
from navarch.client.watch import ADDED, DELETED, MODIFIED
from navarch.client.wire import TransportError
from navarch.virtual import SimulatedWorld
from scheduler.framework.plugin import NODE_CHANGED, Event
from scheduler.plugins.node_affinity import NodeAffinity
from scheduler.scheduler import Scheduler
from scheduler.state.pods import PodInfo
from tests.scheduler.test_cycle import node, pod, table


def run(story: Callable[[Scheduler], Awaitable[None]]) -> None:
    """With a scheduler that decides nothing by itself, and sends nothing."""
    world = SimulatedWorld(1)

    async def main() -> None:
        await story(Scheduler(Client(cast(Any, None), world), world))

    world.run(main)


def mine(cpu: str = "", **spec: Any) -> core_v1.Pod:
    return pod(cpu, scheduler_name="default-scheduler", **spec).pod


async def park(s: Scheduler, p: core_v1.Pod, *refused_by: str) -> Callable[[], str]:
    """Has a pod refused; the answer tells where it waits."""
    s.on_pod(ADDED, None, p)
    taken = await s.queue.pop()
    assert taken.uid == p.metadata.uid
    s.queue.unschedulable(taken.uid, refused_by)
    return lambda: s.queue.pods[taken.uid].place


def test_a_pod_that_preempted_gives_its_room_back_when_it_is_deleted():
    async def story(s: Scheduler) -> None:
        s.on_node(ADDED, None, node("a", cpu="1"))
        for end in ("gone", "terminating"):
            high = mine("800m", priority=9)
            high.status.nominated_node_name = "a"
            await park(s, high, "NodeResourcesFit")
            low = await park(s, mine("500m"), "NodeResourcesFit")
            assert low() == "unschedulable"
            if end == "terminating":
                high.metadata.deletion_timestamp = "2026-01-01T00:00:00Z"
                s.on_pod(MODIFIED, high, high)
            else:
                s.on_pod(DELETED, high, high)
            assert low() == "backoff" and not s.nominated

    run(story)


def changed(p: core_v1.Pod, **to: Any) -> core_v1.Pod:
    meta = msgspec.structs.replace(p.metadata, **{k: v for k, v in to.items() if k in ("labels", "annotations")})
    spec = msgspec.structs.replace(p.spec, **{k: v for k, v in to.items() if k not in ("labels", "annotations")})
    return msgspec.structs.replace(p, metadata=meta, spec=spec)


@pytest.mark.parametrize("in_flight", [False, True])
@pytest.mark.parametrize(
    ("plugin", "useless", "useful"),
    [
        ("NodeResourcesFit", {"annotations": {"a": "b"}}, {"containers": mine("100m").spec.containers}),
        ("NodeResourcesFit", {"labels": {"a": "b"}}, {"containers": mine().spec.containers}),
        ("TaintToleration", {"annotations": {"a": "b"}}, {"tolerations": [core_v1.Toleration(operator="Exists")]}),
        ("PodTopologySpread", {"annotations": {"a": "b"}}, {"labels": {"a": "b"}}),
        ("InterPodAffinity", {"annotations": {"a": "b"}}, {"labels": {"a": "b"}}),
    ],
)
def test_a_pods_own_change_wakes_it_only_if_it_can_help(plugin, useless, useful, in_flight):
    async def story(s: Scheduler) -> None:
        first = mine("500m")
        second = changed(first, **useless)
        third = changed(second, **useful)
        s.on_pod(ADDED, None, first)
        taken = await s.queue.pop()
        if in_flight:
            s.on_pod(MODIFIED, first, second)
        s.queue.unschedulable(taken.uid, [plugin])
        waiting = s.queue.pods[taken.uid]
        if not in_flight:
            s.on_pod(MODIFIED, first, second)
        assert waiting.place == "unschedulable" and waiting.pod.pod is second
        s.on_pod(MODIFIED, second, third)
        assert waiting.place == "backoff"

    run(story)


def test_a_zone_that_goes_wakes_pods_that_are_spread():
    """The emptiest domain decides how full the others may be: without it there may be room."""

    async def story(s: Scheduler) -> None:
        empty = node("a", labels={"zone": "a"})
        s.on_node(ADDED, None, empty)
        s.on_node(ADDED, None, node("b", labels={"zone": "b"}))
        rule = core_v1.TopologySpreadConstraint(
            max_skew=1, topology_key="zone", when_unsatisfiable="DoNotSchedule",
            label_selector=meta_v1.LabelSelector(match_labels={"app": "x"}),
        )  # fmt: skip
        spread = await park(s, mine(topology_spread_constraints=[rule]), "PodTopologySpread")
        other = await park(s, mine("500m"), "NodeResourcesFit")
        s.on_node(DELETED, empty, empty)
        assert (spread(), other()) == ("backoff", "unschedulable")

    run(story)


def test_a_node_that_comes_to_match_what_the_profile_adds_wakes_a_pod_without_wishes():
    term = core_v1.NodeSelectorTerm(
        match_expressions=[core_v1.NodeSelectorRequirement(key="disk", operator="In", values=["ssd"])]
    )
    added = core_v1.NodeAffinity(
        required_during_scheduling_ignored_during_execution=core_v1.NodeSelector(node_selector_terms=[term])
    )
    plugin, here = NodeAffinity(added), table()
    plain, fast = node("a"), node("a", labels={"disk": "ssd"})
    assert plugin.helps(Event(NODE_CHANGED, node=fast, old=plain), pod(), here)
    assert not plugin.helps(Event(NODE_CHANGED, node=plain, old=fast), pod(), here)
    assert not plugin.helps(Event(NODE_CHANGED, node=node("a", labels={"disk": "ssd", "x": "y"}), old=fast), pod(), here)


def test_the_annotations_of_a_pod_that_waits_are_followed():
    """Rules may look at them: a pod is decided on by what it says now."""

    async def story(s: Scheduler) -> None:
        p = mine()
        s.on_pod(ADDED, None, p)
        changed = core_v1.Pod(
            metadata=meta_v1.ObjectMeta(name=p.metadata.name, uid=p.metadata.uid, annotations={"most": "3"}), spec=p.spec
        )
        s.on_pod(MODIFIED, p, changed)
        assert (await s.queue.pop()).pod.metadata.annotations == {"most": "3"}

    run(story)


def test_preemption_goes_by_the_time_at_which_pods_started():
    """Known only after they were assumed: the watch tells it later, and nothing else of the pod changes."""

    async def story(s: Scheduler) -> None:
        s.on_node(ADDED, None, node("a", cpu="1"))
        assumed = pod("500m")
        s.table.add_pod(assumed, "a")
        s.assumed[assumed.uid] = "a"
        assert assumed.importance[1] == assumed.started
        for started in ("2026-01-01T00:00:05Z", "2026-01-01T00:00:09Z"):
            meta = meta_v1.ObjectMeta(name="p", namespace=assumed.namespace, uid=assumed.uid, labels=assumed.labels)
            bound = core_v1.Pod(
                metadata=meta,
                spec=PodInfo(pod("500m").pod).pod.spec,
                status=core_v1.PodStatus(start_time=started),
            )
            bound.spec.node_name = "a"
            s.on_pod(MODIFIED, None, bound)
            known, _ = s.table.pods[assumed.uid]
            assert known.started == PodInfo(bound).started and known.importance[1] == known.started

    run(story)


def test_who_waits_for_a_permit_and_is_bound_by_another_waits_no_longer():
    from scheduler.framework.waitingpods import WaitingPod

    async def story(s: Scheduler) -> None:
        p = mine()
        s.on_pod(ADDED, None, p)
        held = WaitingPod(await s.queue.pop(), "a", {"Gang": 900.0})
        s.waiting.add(held)
        bound = core_v1.Pod(metadata=p.metadata, spec=mine().spec)
        bound.spec.node_name = "b"
        s.on_pod(MODIFIED, p, bound)
        assert not s.queue.pods and held._answer.done()

    run(story)


class Unreachable:
    """The pods of a server that does not answer."""

    async def patch_status(self, *args: Any, **more: Any) -> None:
        raise TransportError("no answer")


def test_who_preempts_stays_in_flight_and_looks_again_if_it_failed():
    async def story(s: Scheduler) -> None:
        s.writes.client = cast(Any, {core_v1.Pod: Unreachable()})
        s.on_node(ADDED, None, node("a", cpu="1"))
        low = mine("800m")
        low.spec.node_name = "a"
        s.on_pod(ADDED, None, low)
        high = mine("500m", priority=9)
        s.on_pod(ADDED, None, high)
        taken = await s.queue.pop()
        waiting = s.queue.pods[taken.uid]
        async with s.world.task_group() as group:
            s._group = group
            s.refuse(s.decide(taken), s.profiles[taken.profile])
            assert s.nominated.node_of(taken.uid) == "a" and waiting.place == "flight"
        assert waiting.place == "backoff"  # nothing has happened to the victim that could wake it

    run(story)
