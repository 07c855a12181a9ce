"""Which pod of a stateful set goes next when others are not well: upstream's rules, case by case."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controllers import history
from controllers.statefulset.plan import REVISION, plan
from navarch.api.types import core_v1, meta_v1
from tests.controllers.test_statefulsets import make

NOW = 1_800_000_000.0
LONG_AGO, JUST_NOW = "2020-01-01T00:00:00Z", "2027-01-15T07:59:59Z"


def pod(number: int, state: str = "ready", revision: str = "new") -> core_v1.Pod:
    """``state``: ready, young (ready just now), unready, pending, failed or leaving."""
    ready = state in ("ready", "young", "leaving")
    condition = core_v1.PodCondition(
        type="Ready", status=str(ready), last_transition_time=JUST_NOW if state == "young" else LONG_AGO
    )
    meta = meta_v1.ObjectMeta(name=f"s-{number}", namespace="default", uid=f"u{number}", labels={REVISION: revision})
    if state == "leaving":
        meta.deletion_timestamp = JUST_NOW
    phase = {"pending": "Pending", "failed": "Failed"}.get(state, "Running")
    spec = core_v1.PodSpec(containers=[])
    return core_v1.Pod(metadata=meta, spec=spec, status=core_v1.PodStatus(phase=phase, conditions=[condition]))


def deleted(replicas: int, states: list[str], **spec: Any) -> list[int]:
    """Ordinals of the pods that go next; ``states`` of the pods 0, 1, 2 ..."""
    pods = [pod(n, state) for n, state in enumerate(states)]
    todo = plan(make(replicas, **spec), pods, "new", "new", NOW)
    return [int((p.metadata.name or "")[2:]) for p in todo.delete]


@pytest.mark.parametrize(
    ("replicas", "states", "expected"),
    [
        (1, ["ready", "ready", "ready"], [2]),
        (1, ["unready", "ready", "ready"], []),  # a pod that stays is not well: nothing goes
        (1, ["pending", "ready", "unready"], []),
        (1, ["ready", "unready", "ready"], [2]),  # the last one is well: it goes though another is not
        (1, ["ready", "ready", "unready"], [2]),  # the only one that is not well
        (1, ["ready", "unready", "unready"], []),  # 1 is the first that is not well, and 2 is not it
        (1, ["ready", "unready", "ready", "unready"], []),
        (1, ["ready", "ready", "leaving"], []),
        (1, ["ready", "leaving", "ready"], [2]),
        (1, ["ready", "leaving", "unready"], []),  # who is on its way out counts as not well
        (1, ["ready", "failed", "unready"], []),
        (1, ["ready", "pending"], [1]),
        (0, ["unready", "unready"], []),
        (0, ["unready", "ready"], [1]),
        (0, ["unready"], [0]),
        (0, ["failed"], [0]),
    ],
)
def test_scaling_down_in_order(replicas: int, states: list[str], expected: list[int]) -> None:
    assert deleted(replicas, states) == expected


def test_scaling_down_waits_for_min_ready_seconds() -> None:
    assert deleted(1, ["ready", "ready", "young"], min_ready_seconds=30) == []
    assert deleted(1, ["young", "ready", "ready"], min_ready_seconds=30) == []
    assert deleted(1, ["ready", "young", "ready"], min_ready_seconds=30) == [2]
    assert deleted(1, ["ready", "ready", "unready"], min_ready_seconds=30) == [2]


def test_all_at_once_nobody_waits() -> None:
    parallel = {"pod_management_policy": "Parallel"}
    assert deleted(1, ["unready", "unready", "leaving", "ready"], **parallel) == [3, 1]
    assert deleted(0, ["young", "pending"], min_ready_seconds=30, **parallel) == [1, 0]


def test_a_rolling_update_waits_for_the_last_pod_to_be_well() -> None:
    def updated(*pods: core_v1.Pod, **spec: Any) -> list[str]:
        return [p.metadata.name or "" for p in plan(make(3, **spec), pods, "old", "new", NOW).delete]

    old = [pod(n, revision="old") for n in range(3)]
    assert updated(*old) == ["s-2"]
    assert updated(*old[:2], pod(2)) == ["s-1"]
    parallel = {"pod_management_policy": "Parallel"}
    assert updated(*old[:2], pod(2, "unready"), **parallel) == []
    assert updated(*old[:2], pod(2, "young"), min_ready_seconds=30, **parallel) == ["s-1"]
    assert updated(*old[:2], pod(2, "unready", "old"), **parallel) == ["s-2"]  # a broken old one is replaced


def test_what_a_revision_keeps_is_in_the_order_of_gos_maps() -> None:
    container = core_v1.Container(name="c", image="i", env=[core_v1.EnvVar(name="b", value="1")], command=["x"])
    meta = meta_v1.ObjectMeta(labels={"z": "1", "a": "2"})
    template = core_v1.PodTemplateSpec(
        metadata=meta, spec=core_v1.PodSpec(containers=[container], active_deadline_seconds=5)
    )
    data = history.data_of(template)
    assert json.dumps(data) == json.dumps(data, sort_keys=True)
    assert list(data["spec"]["template"]) == ["$patch", "metadata", "spec"]
    assert json.dumps(data["spec"]["template"]["metadata"]) == '{"creationTimestamp": null, "labels": {"a": "2", "z": "1"}}'
