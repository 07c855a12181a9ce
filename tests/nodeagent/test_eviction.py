"""The decisions of node-pressure eviction: thresholds, grace periods, order, words. Pure; properties by hypothesis."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.types import core_v1
from nodeagent.linux.diskusage import DiskUse
from nodeagent.node import eviction, thresholds
from nodeagent.node.eviction import ContainerUse, Memory, Observation, PodUse
from tests.nodeagent.life import pod as make_pod

MI = 1 << 20
LOW = Observation(50 * MI, 1024 * MI)
FINE = Observation(500 * MI, 1024 * MI)


def pod(name: str, priority: int = 0, memory: str = "", **spec: Any) -> core_v1.Pod:
    container: dict[str, Any] = {"name": "c", "image": "i"}
    if memory:
        container["resources"] = {"requests": {"memory": memory}}
    return make_pod({"containers": [container], "priority": priority, **spec}, name=name, uid=name)


@pytest.mark.parametrize(("text", "wrong"), [
    ("memory.free<1Gi", "is none of the signals"), ("memory.available=1Gi", "is not SIGNAL<VALUE"),
    ("memory.available<-1", "must be >= 0"), ("memory.available<1Gi,memory.available<2Gi", "stands there twice"),
    ("nodefs.available<-5%", "must be >= 0%"),
])  # fmt: skip
def test_thresholds_that_are_none(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        thresholds.read(text)


def test_what_thresholds_mean() -> None:
    listed = thresholds.read("memory.available<100Mi,nodefs.available<0%,imagefs.available<100%")
    assert [t.signal for t in listed] == ["memory.available"], "0% and 100% switch a threshold off"
    with pytest.raises(ValueError, match="grace period must be specified for the soft eviction threshold"):
        thresholds.read("", "memory.available<1Gi")
    (soft,) = thresholds.read("", "memory.available<10%", "memory.available=1m30s", "memory.available=5%")
    assert (soft.grace, soft.hard) == (90.0, False)
    assert eviction.is_met(soft, Observation(99, 1000)) and not eviction.is_met(soft, Observation(100, 1000))
    assert eviction.is_met(soft, Observation(149, 1000), with_reclaim=True)


def test_a_soft_threshold_waits_and_its_minimum_counts_after() -> None:
    listed = thresholds.read("", "memory.available<100Mi", "memory.available=30s", "memory.available=200Mi")
    memory, due = Memory(), []
    for now, seen in ((0.0, LOW), (29.0, LOW), (30.0, LOW), (40.0, Observation(250 * MI, 1024 * MI)), (50.0, FINE)):
        look = eviction.look(memory, listed, {"memory.available": seen}, now, 300.0)
        memory = look.memory
        due.append(bool(look.due))
        assert look.conditions == ("MemoryPressure",), "it is shown before the grace period is over, and for a while after"
    assert due == [False, False, True, True, False]
    assert eviction.look(memory, listed, {"memory.available": FINE}, 340.0, 300.0).conditions == ()


amounts = st.integers(0, 2**40)
TEXTS = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,pid.available<10%"
seen = st.fixed_dictionaries(
    {s: st.builds(Observation, amounts, amounts) for s in ("memory.available", "nodefs.available", "pid.available")}
)


@given(st.lists(st.tuples(seen, st.floats(0.1, 60.0)), min_size=1, max_size=20), st.floats(0.0, 120.0))
def test_whatever_is_seen(history: list[tuple[dict[str, Observation], float]], transition: float) -> None:
    """A condition is true exactly while its signal is low or was so within the transition period; memory comes first."""
    listed = thresholds.read(TEXTS, "memory.available<1Gi", "memory.available=20s")
    memory, now, last = Memory(), 0.0, {}
    for signals, pause in history:
        now += pause
        look = eviction.look(memory, listed, signals, now, transition)
        memory = look.memory
        last |= {eviction.CONDITION[t.signal]: now for t in listed if eviction.is_met(t, signals.get(t.signal))}
        assert set(look.conditions) == {c for c, when in last.items() if when == now or now - when < transition}
        assert all(eviction.is_met(t, signals[t.signal], with_reclaim=True) for t in look.due)
        assert all(t in look.due for t in listed if t.hard and eviction.is_met(t, signals.get(t.signal)))
        assert sorted(look.due, key=lambda t: t.signal != "memory.available") == list(look.due)


uses = st.tuples(st.integers(-2, 2), st.integers(0, 8), st.one_of(st.none(), st.integers(0, 16)))


@given(st.lists(uses, max_size=8))
def test_the_order(listed: list[tuple[int, int, int | None]]) -> None:
    pods = [pod(f"p{i}", priority, f"{request}Mi" if request else "") for i, (priority, request, _) in enumerate(listed)]
    known = {f"p{i}": PodUse(memory=None if used is None else used * MI) for i, (_, _, used) in enumerate(listed)}
    ranked = eviction.rank("memory.available", pods, known)
    assert sorted(p.metadata.uid or "" for p in ranked) == sorted(known), "nobody is lost"

    def facts(one: core_v1.Pod) -> tuple[bool, bool, int, int]:
        priority, request, used = listed[int((one.metadata.uid or "")[1:])]
        above = 0 if used is None else used - request
        return used is not None, used is not None and above <= 0, priority, -above

    order = [facts(p) for p in ranked]
    assert order == sorted(order), "unknown, above the request, low priority, much above"


def test_the_order_by_disk_and_processes() -> None:
    pods = [pod("a", 5), pod("b", 1), pod("c", 1)]
    used = {"a": PodUse(pids=90), "b": PodUse(pids=5), "c": PodUse(pids=7)}
    assert [p.metadata.name for p in eviction.rank("pid.available", pods, used)] == ["c", "b", "a"]
    disk = {n: PodUse(containers=(ContainerUse("c", rootfs=DiskUse(size, 10 - size)),)) for n, size in (("a", 1), ("b", 9))}
    assert [p.metadata.name for p in eviction.rank("nodefs.available", pods[:2], disk)] == ["b", "a"]
    assert [p.metadata.name for p in eviction.rank("nodefs.inodesFree", [pod("a"), pod("b")], disk)] == ["a", "b"]


def test_the_words() -> None:
    (hard,) = thresholds.read("memory.available<100Mi")
    use = PodUse(memory=9 * MI, containers=(ContainerUse("c", memory=9 * MI),))
    assert eviction.message(hard, {"memory.available": LOW}, pod("a", memory="2Mi"), use) == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "
        "Container c was using 9Mi, request is 2Mi, has larger consumption of memory. "
    )
    (inodes,) = thresholds.read("nodefs.inodesFree<5%")
    text = eviction.message(inodes, {"nodefs.inodesFree": Observation(3, 1000)}, pod("a"), use)
    assert text == "The node was low on resource: inodes. Threshold quantity: 50, available: 3. "


def storage_pod(**limits: str) -> core_v1.Pod:
    containers = [{"name": n, "image": "i", "resources": {"limits": {"ephemeral-storage": v}}} for n, v in limits.items()]
    volumes = [{"name": "v", "emptyDir": {"sizeLimit": "5Mi"}}]
    return make_pod({"containers": containers, "volumes": volumes})


def used(volume: int = 0, memory: bool = False, **containers: tuple[int, int]) -> PodUse:
    parts = tuple(ContainerUse(n, 0, DiskUse(r * MI), DiskUse(g * MI)) for n, (r, g) in containers.items())
    sized = {"v": DiskUse(volume * MI)}
    return PodUse(0, 0, parts, {} if memory else sized, sized if memory else {})


@pytest.mark.parametrize(("limits", "use", "text"), [
    ({"a": "10Mi"}, used(5, a=(1, 1)), ""),
    ({"a": "10Mi"}, used(6, a=(0, 0)), 'Usage of EmptyDir volume "v" exceeds the limit "5Mi". '),
    ({"a": "10Mi"}, used(6, True, a=(0, 0)), 'Usage of EmptyDir volume "v" exceeds the limit "5Mi". '),
    ({"a": "10Mi", "b": "2Mi"}, used(4, a=(4, 3), b=(1, 1)),
     "Pod ephemeral local storage usage exceeds the total limit of containers 12Mi. "),
    ({"a": "10Mi", "b": "2Mi"}, used(1, a=(1, 1), b=(1, 2)),
     'Container b exceeded its local ephemeral storage limit "2Mi". '),
    ({"a": "10Mi", "b": "0"}, used(1, a=(1, 1), b=(1, 2)), ""),
])  # fmt: skip
def test_limits_of_local_storage(limits: dict[str, str], use: PodUse, text: str) -> None:
    assert eviction.exceeds_storage(storage_pod(**limits), use) == text


@pytest.mark.parametrize(("conditions", "qos", "spec", "admitted"), [
    ((), "BestEffort", {}, True),
    (("MemoryPressure",), "Burstable", {}, True),
    (("MemoryPressure",), "BestEffort", {}, False),
    (("MemoryPressure",), "BestEffort", {"tolerations": [{"operator": "Exists"}]}, True),
    (("MemoryPressure",), "BestEffort", {"priority": 2_000_000_000}, True),
    (("DiskPressure",), "Guaranteed", {"tolerations": [{"operator": "Exists"}]}, False),
    (("MemoryPressure", "PIDPressure"), "Guaranteed", {}, False),
])  # fmt: skip
def test_admission_under_pressure(conditions: tuple[str, ...], qos: str, spec: dict[str, Any], admitted: bool) -> None:
    why = eviction.reject(pod("p", **{"priority": 0} | spec), conditions, qos)
    assert (why == "") is admitted
    assert admitted or why == f"The node had condition: [{' '.join(conditions)}]. "


def test_critical_pods_are_spared() -> None:
    mirror = make_pod({"containers": [{"name": "c"}]}, annotations={"kubernetes.io/config.mirror": "x"})
    static = make_pod({"containers": [{"name": "c"}]}, annotations={"kubernetes.io/config.source": "file"})
    assert eviction.candidates([pod("a", 2_000_000_000), mirror, static, pod("b", 1_999_999_999)]) == [pod("b", 1_999_999_999)]
