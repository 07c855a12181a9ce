"""Replica sets alone: whom to delete, what to report, whom to adopt."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.expectations import DOUBT, TIMEOUT, Expectations
from controllers.ownership import claim
from controllers.replicaset import plan as planning
from navarch.api.times import format_time
from navarch.api.types import apps_v1, core_v1, meta_v1

NOW = 1_700_000_000.0


def replica_set(replicas: int = 3, **spec: object) -> apps_v1.ReplicaSet:
    template = core_v1.PodTemplateSpec(
        metadata=meta_v1.ObjectMeta(labels={"app": "web"}),
        spec=core_v1.PodSpec(containers=[core_v1.Container(name="c", image="i")]),
    )
    return apps_v1.ReplicaSet(
        metadata=meta_v1.ObjectMeta(name="web", namespace="default", uid="rs", generation=4),
        spec=apps_v1.ReplicaSetSpec(
            replicas=replicas,
            selector=meta_v1.LabelSelector(match_labels={"app": "web"}),
            template=template,
            **spec,  # type: ignore[arg-type]
        ),
        status=apps_v1.ReplicaSetStatus(replicas=0),
    )


def pod(
    name: str,
    *,
    node: str | None = "n1",
    phase: str = "Running",
    ready: float | None = 100,
    age: float = 200,
    cost: str | None = None,
    restarts: int = 0,
    owner: str | None = "rs",
    labels: dict[str, str] | None = None,
) -> core_v1.Pod:
    """``ready`` and ``age`` in seconds before now; ready None: not ready."""
    conditions = []
    if ready is not None:
        at = format_time(NOW - ready)
        conditions.append(core_v1.PodCondition(type="Ready", status="True", last_transition_time=at))
    ref = meta_v1.OwnerReference(api_version="apps/v1", kind="ReplicaSet", name="x", uid=owner or "", controller=True)
    statuses = [
        core_v1.ContainerStatus(name="c", image="i", image_id="", ready=ready is not None, restart_count=restarts)
    ]
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(
            name=name,
            namespace="default",
            uid=name,
            labels={"app": "web"} if labels is None else labels,
            creation_timestamp=format_time(NOW - age),
            annotations={"controller.kubernetes.io/pod-deletion-cost": cost} if cost else None,
            owner_references=[ref] if owner else None,
        ),
        spec=core_v1.PodSpec(containers=[core_v1.Container(name="c", image="i")], node_name=node),
        status=core_v1.PodStatus(phase=phase, conditions=conditions, container_statuses=statuses),
    )


def test_victims_in_upstreams_order() -> None:
    expected = [
        pod("unassigned", node=None, phase="Pending", ready=None),
        pod("pending", phase="Pending", ready=None, node="n2"),
        pod("unknown", phase="Unknown", ready=None, node="n2"),
        pod("not-ready", ready=None, node="n2"),
        pod("cheap", cost="-5", node="n2"),
        pod("crowded", node="n3"),
        pod("just-ready", node="n4", ready=3),
        pod("restarting", node="n5", ready=100, restarts=4),
        pod("young", node="n6", ready=100, age=200),
        pod("old", node="n7", ready=100, age=90000),
        pod("dear", node="n2", cost="100"),
    ]
    related = [*expected, pod("other", node="n3", owner="rs2")]
    found = planning.victims(expected[::-1], related, len(expected), NOW)
    assert [p.metadata.name for p in found] == [p.metadata.name for p in expected]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1200), st.integers(0, 40))
def test_the_plan_closes_the_gap(wanted: int, existing: int) -> None:
    pods = [pod(f"p{i}") for i in range(existing)]
    plan = planning.plan(replica_set(wanted), pods, pods, NOW)
    if wanted >= existing:
        assert plan.create == min(wanted - existing, planning.BURST) and not plan.delete
    else:
        assert plan.create == 0 and len(plan.delete) == existing - wanted


def test_status() -> None:
    pods = [pod("a", ready=100), pod("b", ready=4), pod("c", ready=None), pod("d", labels={"app": "other"})]
    status, again = planning.report(replica_set(4, min_ready_seconds=10), pods, None, NOW)
    assert (status.replicas, status.ready_replicas, status.available_replicas) == (4, 3, 2)
    assert (status.fully_labeled_replicas, status.observed_generation) == (3, 4)
    assert again is not None and 6 <= again < 6.1


def test_failure_condition_comes_and_goes() -> None:
    rs = replica_set(2)
    rs.status, _ = planning.report(rs, [], RuntimeError("quota"), NOW)
    (condition,) = rs.status.conditions or []
    assert (condition.type, condition.reason, condition.message) == ("ReplicaFailure", "FailedCreate", "quota")
    rs.status, _ = planning.report(rs, [], None, NOW)
    assert rs.status.conditions is None


def test_claim() -> None:
    mine, other = pod("mine"), pod("other", owner="else")
    orphan, stray = pod("orphan", owner=None), pod("stray", labels={})
    going = pod("going", owner=None)
    going.metadata.deletion_timestamp = format_time(NOW)
    rs = replica_set()

    def matches(p: core_v1.Pod) -> bool:
        return (p.metadata.labels or {}).get("app") == "web"

    everyone = [mine, other, orphan, stray, going]
    assert claim(rs, matches, everyone) == ([mine], [orphan], [stray])
    rs.metadata.deletion_timestamp = format_time(NOW)
    assert claim(rs, matches, everyone) == ([mine], [], [])


class Clock:
    time = 0.0

    def monotonic(self) -> float:
        return self.time


def test_expectations() -> None:
    clock = Clock()
    expectations = Expectations(clock)  # type: ignore[arg-type]
    assert expectations.satisfied("a")
    expectations.expect_creations("a", 2)
    expectations.created("a")
    assert not expectations.satisfied("a")
    expectations.created("a")
    assert expectations.satisfied("a")
    expectations.expect_deletions("a", ["x", "y"])
    expectations.deleted("a", "x")
    expectations.deleted("a", "x")
    assert not expectations.satisfied("a")
    clock.time = TIMEOUT + 1
    assert expectations.satisfied("a")
    expectations.expect_creations("b", 1)
    expectations.doubted("b")
    assert not expectations.satisfied("b")
    clock.time += DOUBT + 1
    assert expectations.satisfied("b")
