"""Decides a node's conditions and taints, given how long it has been silent. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from navarch.api import wellknown
from navarch.api.conditions import get_condition
from navarch.api.times import format_time
from navarch.api.types import coordination_v1, core_v1

Node = core_v1.Node
Condition = core_v1.NodeCondition
Taint = core_v1.Taint

NOT_READY = wellknown.NOT_READY
UNREACHABLE = wellknown.UNREACHABLE
UNSCHEDULABLE = wellknown.UNSCHEDULABLE
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"

WATCHED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
"""Conditions that become Unknown when the node falls silent."""

PRESSURE_TAINTS = {
    "MemoryPressure": wellknown.MEMORY_PRESSURE,
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
}
SCHEDULE_KEYS = (NOT_READY, UNREACHABLE, UNSCHEDULABLE, *PRESSURE_TAINTS.values())
EXECUTE_KEYS = (NOT_READY, UNREACHABLE)


def readiness(node: Node) -> str:
    """Status of the Ready condition: "True", "False" or "Unknown" (also when there is none)."""
    ready = get_condition(node.status.conditions, "Ready")
    return ready.status if ready is not None else "Unknown"


def has_reported(node: Node) -> bool:
    return get_condition(node.status.conditions, "Ready") is not None


def grace(node: Node, lease: coordination_v1.Lease | None, monitor: float, startup: float) -> float:
    """Seconds of silence after which a node is held for dead: ``monitor`` for one that has reported.

    A node renews its Lease four times in the Lease's time. Where ``monitor`` leaves no room for two renewals, the Lease
    is waited for. With kubelet's Leases of 40 s that is below 20 s only; simulated nodes have longer ones.
    """
    if not has_reported(node):
        return startup
    lasts = float(lease.spec.lease_duration_seconds or 0) if lease is not None else 0.0
    return monitor if monitor >= lasts / 2 else lasts


def silent_conditions(node: Node, now: float) -> list[Condition] | None:
    """The conditions of a node that has been silent for too long; None if they say so already."""
    at = format_time(now)
    out = list(node.status.conditions or ())
    changed = False
    for type_ in WATCHED:
        old = get_condition(out, type_)
        if old is None:
            new = Condition(
                type=type_,
                status="Unknown",
                reason="NodeStatusNeverUpdated",
                message="Kubelet never posted node status.",
                last_heartbeat_time=node.metadata.creation_timestamp,
                last_transition_time=at,
            )
            out.append(new)
        elif old.status != "Unknown":
            new = msgspec.structs.replace(
                old,
                status="Unknown",
                reason="NodeStatusUnknown",
                message="Kubelet stopped posting node status.",
                last_transition_time=at,
            )
            out[out.index(old)] = new
        else:
            continue
        changed = True
    return out if changed else None


def schedule_taints(node: Node) -> list[str]:
    """Keys of the NoSchedule taints that follow from conditions and spec.unschedulable."""
    out = []
    match get_condition(node.status.conditions, "Ready"):
        case None:
            pass
        case ready if ready.status == "False":
            out.append(NOT_READY)
        case ready if ready.status == "Unknown":
            out.append(UNREACHABLE)
    for type_, key in PRESSURE_TAINTS.items():
        condition = get_condition(node.status.conditions, type_)
        if condition is not None and condition.status == "True":
            out.append(key)
    if node.spec.unschedulable:
        out.append(UNSCHEDULABLE)
    return out


def execute_taint(node: Node) -> str | None:
    """Key of the NoExecute taint that follows from readiness, None for a ready node or one that never reported."""
    if not has_reported(node):
        return None
    return {"True": None, "False": NOT_READY}.get(readiness(node), UNREACHABLE)


def has_execute_taint(node: Node) -> bool:
    return any(t.effect == "NoExecute" and t.key in EXECUTE_KEYS for t in node.spec.taints or ())


def with_taints(node: Node, schedule: Sequence[str], execute: str | None, now: float) -> list[Taint] | None:
    """The node's taints with ours as given and everybody else's as they are; None if that changes nothing."""
    desired = [(key, "NoSchedule") for key in schedule]
    if execute is not None:
        desired.append((execute, "NoExecute"))
    old = list(node.spec.taints or ())
    unchanged = [t for t in old if (t.key, t.effect) in desired or not _ours(t)]
    have = [(t.key, t.effect) for t in unchanged]
    added = [
        Taint(key=key, effect=effect, time_added=format_time(now))
        for key, effect in desired
        if (key, effect) not in have
    ]
    return unchanged + added if added or len(unchanged) != len(old) else None


def _ours(taint: Taint) -> bool:
    if taint.effect == "NoExecute":
        return taint.key in EXECUTE_KEYS
    return taint.effect == "NoSchedule" and taint.key in SCHEDULE_KEYS
