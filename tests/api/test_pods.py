"""Rules on pods that several rooms share: resources, affinity, conditions, hashes."""

from __future__ import annotations

from typing import Any

import msgspec

from navarch.api import affinity, conditions, hashes, pods, qos, resources
from navarch.api.types import core_v1


def pod(**spec: Any) -> core_v1.Pod:
    return msgspec.convert({"spec": {"containers": [], **spec}}, core_v1.Pod)


def container(name: str = "c", **requests: str) -> dict[str, Any]:
    return {"name": name, "resources": {"requests": requests}}


def test_requests() -> None:
    p = pod(
        containers=[container("a", cpu="100m", memory="1Gi"), container("b", cpu="0.2")],
        initContainers=[
            container("i", cpu="150m"),
            container("side", cpu="50m") | {"restartPolicy": "Always"},
            container("j", cpu="1", memory="10Mi"),
        ],
        overhead={"cpu": "10m"},
    )
    assert resources.pod_requests(p) == {"cpu": 1060, "memory": 2**30}
    assert resources.pod_limits(p) == {}
    assert resources.nonzero_requests(pod(containers=[{"name": "a"}])) == (100, 200 * 2**20)
    # j runs beside the sidecar, which asks for no memory and counts for 200 Mi.
    assert resources.nonzero_requests(p) == (1060, 2**30 + 2 * 200 * 2**20)
    whole = pod(containers=[{"name": "a"}, {"name": "b"}], resources={"requests": {"cpu": "50m"}}, overhead={"cpu": "5m"})
    assert resources.nonzero_requests(whole) == (55, 2 * 200 * 2**20)


def test_qos() -> None:
    exact = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1024Mi"}}
    assert qos.qos_class(pod(containers=[{"name": "a"}])) == "BestEffort"
    assert qos.qos_class(pod(containers=[{"name": "a", "resources": exact}])) == "Guaranteed"
    assert qos.qos_class(pod(containers=[{"name": "a", "resources": exact}, {"name": "b"}])) == "Burstable"
    assert (
        qos.qos_class(pod(containers=[{"name": "a", "resources": {"limits": exact["limits"]}}])) == "Guaranteed"
    )


def test_node_affinity() -> None:
    terms = [
        {
            "matchExpressions": [
                {"key": "zone", "operator": "In", "values": ["a", "b"]},
                {"key": "n", "operator": "Gt", "values": ["3"]},
            ]
        },
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n9"]}]},
        {},
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    spec = pod(nodeSelector={"os": "linux"}, affinity={"nodeAffinity": required}).spec
    assert affinity.pod_matches_node(spec, "n1", {"os": "linux", "zone": "a", "n": "4"})
    assert affinity.pod_matches_node(spec, "n9", {"os": "linux"})
    assert not affinity.pod_matches_node(spec, "n1", {"os": "linux", "zone": "a", "n": "3"})
    assert not affinity.pod_matches_node(spec, "n9", {})


def test_tolerations() -> None:
    taint = core_v1.Taint(key="k", effect="NoExecute", value="v")
    t = core_v1.Toleration
    assert affinity.tolerates(t(key="k", value="v"), taint) and affinity.tolerates(t(operator="Exists"), taint)
    assert not affinity.tolerates(t(key="k"), taint) and not affinity.tolerates(
        t(key="k", value="v", effect="NoSchedule"), taint
    )
    assert affinity.untolerated([t(key="k", operator="Exists")], [taint]) is None
    assert affinity.untolerated(None, [taint]) is taint
    assert affinity.eviction_seconds(None, [taint]) == 0
    assert affinity.eviction_seconds([t(operator="Exists")], [taint]) is None
    assert (
        affinity.eviction_seconds(
            [t(operator="Exists", toleration_seconds=300), t(key="k", value="v", toleration_seconds=5)], [taint]
        )
        == 5
    )


def test_conditions() -> None:
    def ready(status: str, reason: str | None = None) -> core_v1.PodCondition:
        return core_v1.PodCondition(type="Ready", status=status, reason=reason)

    one, changed = conditions.set_condition(None, ready("False"), "t1")
    assert changed and one[0].last_transition_time == "t1"
    two, changed = conditions.set_condition(one, ready("False", "Why"), "t2")
    assert changed and two[0].last_transition_time == "t1" and one[0].reason is None
    same, changed = conditions.set_condition(two, ready("False", "Why"), "t3")
    assert not changed and same[0].last_transition_time == "t1"
    three, changed = conditions.set_condition(two, ready("True"), "t4")
    assert changed and three[0].last_transition_time == "t4" and conditions.is_true(three, "Ready")


def test_pod_helpers() -> None:
    p = pod(nodeName="n")
    p.status.conditions = [
        core_v1.PodCondition(type="Ready", status="True", last_transition_time="1970-01-01T00:01:40Z")
    ]
    p.status.phase = "Running"
    assert pods.is_ready(p) and pods.is_available(p, 10, 110) and not pods.is_available(p, 10, 109)
    unbound = pod()
    assert min([p, unbound], key=lambda x: pods.deletion_rank(x, 1, 200)) is unbound


def test_hashes() -> None:
    first = hashes.template_hash({"a": 1, "b": {"c": 2}})
    assert first == hashes.template_hash({"b": {"c": 2}, "a": 1}) and len(first) == 10
    assert first != hashes.template_hash({"a": 1, "b": {"c": 2}}, 1)
    assert hashes.template_hash(core_v1.LocalObjectReference(name="a")) == hashes.template_hash({"name": "a"})
