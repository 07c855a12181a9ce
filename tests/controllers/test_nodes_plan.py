"""Nodes without a server: health, taints, eviction times, zones, pod CIDRs."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.config import Config
from controllers.nodes import health, ipam, zones
from controllers.nodes.eviction import due
from navarch.api.durations import parse_duration
from navarch.api.times import format_time
from navarch.api.types import coordination_v1, core_v1, meta_v1
from tests.controllers.test_replicaset_plan import pod

NOW = 1_700_000_000.0


def node(ready: str | None = "True", taints: list[core_v1.Taint] | None = None, **conditions: str) -> core_v1.Node:
    found = [core_v1.NodeCondition(type=k, status=v) for k, v in conditions.items()]
    if ready is not None:
        found.append(core_v1.NodeCondition(type="Ready", status=ready, reason="KubeletReady"))
    return core_v1.Node(
        metadata=meta_v1.ObjectMeta(name="n1", creation_timestamp=format_time(NOW - 100)),
        spec=core_v1.NodeSpec(taints=taints),
        status=core_v1.NodeStatus(conditions=found),
    )


def test_silence() -> None:
    conditions = health.silent_conditions(node(MemoryPressure="False"), NOW)
    assert conditions is not None
    by_type = {c.type: c for c in conditions}
    assert (by_type["Ready"].status, by_type["Ready"].reason) == ("Unknown", "NodeStatusUnknown")
    assert by_type["Ready"].message == "Kubelet stopped posting node status."
    assert by_type["DiskPressure"].reason == "NodeStatusNeverUpdated"
    silent = node(None)
    silent.status.conditions = conditions
    assert health.silent_conditions(silent, NOW) is None
    assert health.execute_taint(silent) == health.UNREACHABLE


def test_taints_follow_conditions() -> None:
    other = core_v1.Taint(key="gpu", effect="NoSchedule")
    sick = node("False", [other], MemoryPressure="True")
    sick.spec.unschedulable = True
    taints = health.with_taints(sick, health.schedule_taints(sick), health.execute_taint(sick), NOW)
    assert taints is not None
    assert [(t.key, t.effect) for t in taints] == [
        ("gpu", "NoSchedule"),
        (health.NOT_READY, "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        (health.UNSCHEDULABLE, "NoSchedule"),
        (health.NOT_READY, "NoExecute"),
    ]
    assert taints[-1].time_added == format_time(NOW)
    well = node("True", taints)
    assert health.with_taints(well, health.schedule_taints(well), health.execute_taint(well), NOW) == [other]
    assert health.with_taints(node(), [], None, NOW) is None


def test_eviction_times() -> None:
    taint = core_v1.Taint(key=health.UNREACHABLE, effect="NoExecute", time_added=format_time(NOW))
    victim = pod("p", age=1000)
    assert due(victim, [taint], 0) == NOW
    victim.spec.tolerations = [
        core_v1.Toleration(key=health.UNREACHABLE, operator="Exists", effect="NoExecute", toleration_seconds=300)
    ]
    assert due(victim, [taint], 0) == NOW + 300
    assert due(victim, [], 0) is None
    late = core_v1.Taint(key="other", effect="NoExecute")
    assert due(victim, [taint, late], NOW + 5) == NOW + 5
    victim.spec.tolerations = [core_v1.Toleration(operator="Exists")]
    assert due(victim, [taint, late], 0) is None
    young = pod("q", age=-50)
    assert due(young, [taint], 0) == NOW + 50


def test_zone_states() -> None:
    assert zones.state(3, 0, 0.55) is zones.State.NORMAL
    assert zones.state(1, 2, 0.55) is zones.State.NORMAL  # two are too few to tell
    assert zones.state(2, 3, 0.55) is zones.State.PARTIAL
    assert zones.state(0, 1, 0.55) is zones.State.FULL


def test_eviction_waits_its_turn() -> None:
    found = zones.Zones(Config())
    for i in reversed(range(10)):
        assert not found.observe(f"n{i}", "z", i > 1, 0.0)
    assert found.may_evict("n0", 0.0) == 0
    assert found.may_evict("n1", 0.0) == pytest.approx(10)
    assert found.may_evict("n1", 10.0) == 0


def test_nothing_is_evicted_when_all_zones_are_down() -> None:
    found = zones.Zones(Config())
    assert not found.observe("a", "z1", True, 0.0)
    assert not found.observe("b", "z2", True, 0.0)
    assert not found.observe("a", "z1", False, 1.0)
    assert found.may_evict("a", 1.0) == 0
    assert found.observe("b", "z2", False, 2.0) and found.all_down
    assert found.may_evict("b", 2.0) is None
    assert found.observe("a", "z1", True, 3.0) and not found.all_down
    assert found.may_evict("b", 3.0) == 0


def test_a_small_zone_that_is_partly_down_stops_evicting() -> None:
    found = zones.Zones(Config())
    found.observe("far", "y", True, 0.0)
    for i in range(6):
        found.observe(f"n{i}", "z", i > 3, 0.0)
    assert found.state("z") is zones.State.PARTIAL
    assert found.may_evict("n0", 0.0) is None
    found.forget("n0", 1.0)
    found.observe("n1", "z", True, 1.0)
    found.observe("n2", "z", True, 1.0)
    assert found.may_evict("n3", 1.0) == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("adao"), st.integers(0, 20)), max_size=60))
def test_no_cidr_is_given_twice(steps: list[tuple[str, int]]) -> None:
    pool = ipam.Pool("10.244.0.0/20", 24, ["10.244.3.0/25"])
    have: dict[str, str] = {}
    for what, number in steps:
        owner = f"n{number}"
        if what == "d" and owner in have:
            pool.release(have.pop(owner), owner)
        elif what == "o" and owner not in have:
            cidr = f"10.244.{number % 16}.0/24"
            if pool.occupy(cidr, owner) is None:
                have[owner] = cidr
            else:
                pool.release(cidr, owner)
        elif owner not in have:
            try:
                have[owner] = pool.allocate(owner)
            except ipam.RangeFull:
                assert len(have) == 15
        networks = [ipaddress.ip_network(c) for c in have.values()]
        assert len(set(networks)) == len(networks)
        assert ipaddress.ip_network("10.244.3.0/24") not in networks


def test_pools_of_the_knobs() -> None:
    (four,) = ipam.pools(Config())
    assert four.allocate("a") == "10.244.0.0/24"
    config = Config().with_settings(["cluster-cidr=10.1.0.0/16,fd00:10::/56", "node-cidr-mask-size-ipv4=26"])
    four, six = ipam.pools(config)
    assert four.allocate("a") == "10.1.0.0/26" and four.allocate("b") == "10.1.0.64/26"
    assert six.allocate("a") == "fd00:10::/64" and six.allocate("b") == "fd00:10:0:1::/64"
    with pytest.raises(ValueError, match="does not fit"):
        ipam.pools(Config().with_settings(["node-cidr-mask-size=8"]))


def test_settings() -> None:
    config = Config().with_settings(["node-monitor-grace-period=240h", "node-eviction-rate=5", "controllers=*,-x"])
    assert config.node_monitor_grace_period == 864000 and config.node_eviction_rate == 5
    assert config.enabled("y") and not config.enabled("x")
    assert Config().node_monitor_grace_period == 40
    assert parse_duration("1h2m3.5s") == 3723.5 and parse_duration("100ms") == pytest.approx(0.1)
    for wrong in ("nonsense=1", "node-monitor-grace-period=40", "leader-elect=maybe", "cluster-cidr"):
        with pytest.raises(ValueError):
            Config().with_settings([wrong])


@pytest.mark.parametrize(
    ("monitor", "lease", "expected"),
    [(40, 40, 40), (20, 40, 20), (4, 4, 4), (40, None, 40), (40, 200, 200), (4, 40, 40)],
)
def test_no_node_is_dead_before_two_renewals_of_its_lease(monitor: float, lease: int | None, expected: float) -> None:
    spec = coordination_v1.LeaseSpec(lease_duration_seconds=lease)
    known = None if lease is None else coordination_v1.Lease(spec=spec)
    assert health.grace(node(), known, monitor, 60) == expected
    assert health.grace(node(None), known, monitor, 60) == 60, "one that never reported is starting"
