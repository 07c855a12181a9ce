"""A Deployment's status and its conditions Progressing, Available and ReplicaFailure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from controllers.deployment.sizes import MAX_INT32, Deployment, ReplicaSet, desired, max_unavailable, total_size
from navarch.api.conditions import get_condition, remove_condition
from navarch.api.times import format_time, parse_time
from navarch.api.types import apps_v1

Condition = apps_v1.DeploymentCondition
Status = apps_v1.DeploymentStatus

PROGRESSING, AVAILABLE, REPLICA_FAILURE = "Progressing", "Available", "ReplicaFailure"
COMPLETE, TIMED_OUT = "NewReplicaSetAvailable", "ProgressDeadlineExceeded"
PAUSED, RESUMED = "DeploymentPaused", "DeploymentResumed"
CREATED, EXISTING, UPDATED = "NewReplicaSetCreated", "FoundNewReplicaSet", "ReplicaSetUpdated"
CREATE_ERROR = "ReplicaSetCreateError"


class Verdict(NamedTuple):
    """The new status, and when to look again (seconds from now) if nothing happens in between."""

    status: Status
    again: float | None = None


def make_condition(type_: str, status: str, reason: str, message: str, now: float) -> Condition:
    at = format_time(now)
    return Condition(
        type=type_, status=status, reason=reason, message=message, last_update_time=at, last_transition_time=at
    )


def put_condition(conditions: Sequence[Condition] | None, new: Condition) -> list[Condition]:
    """The list with ``new`` at its end, unless the old one says the same (status and reason): then as it was."""
    old = get_condition(conditions, new.type)
    if old is not None and old.status == new.status:
        if old.reason == new.reason:
            return list(conditions or ())
        new = msgspec.structs.replace(new, last_transition_time=old.last_transition_time)
    return [*remove_condition(conditions, new.type), new]


def has_deadline(deployment: Deployment) -> bool:
    return deadline(deployment) is not None


def deadline(deployment: Deployment) -> int | None:
    """progressDeadlineSeconds; None when it never expires (absent or the largest int32)."""
    seconds = deployment.spec.progress_deadline_seconds
    return None if seconds is None or seconds == MAX_INT32 else seconds


def pause_condition(deployment: Deployment, now: float) -> Condition | None:
    """The condition to set when a deployment was just paused or resumed."""
    if not has_deadline(deployment):
        return None
    current = get_condition(deployment.status.conditions, PROGRESSING)
    if current is not None and current.reason == TIMED_OUT:
        return None
    noted = current is not None and current.reason == PAUSED
    if deployment.spec.paused and not noted:
        return make_condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused", now)
    if not deployment.spec.paused and noted:
        return make_condition(PROGRESSING, "Unknown", RESUMED, "Deployment is resumed", now)
    return None


def counted(
    deployment: Deployment, replica_sets: Sequence[ReplicaSet], new: ReplicaSet | None, now: float
) -> Status:
    """The numbers, and the Available condition; other conditions as they are."""
    ready = sum(rs.status.available_replicas or 0 for rs in replica_sets)
    conditions = deployment.status.conditions
    if ready >= desired(deployment) - max_unavailable(deployment):
        text = "Deployment has minimum availability."
        condition = make_condition(AVAILABLE, "True", "MinimumReplicasAvailable", text, now)
    else:
        text = "Deployment does not have minimum availability."
        condition = make_condition(AVAILABLE, "False", "MinimumReplicasUnavailable", text, now)
    return Status(
        observed_generation=deployment.metadata.generation,
        replicas=sum(rs.status.replicas for rs in replica_sets) or None,
        updated_replicas=(new.status.replicas if new is not None else 0) or None,
        ready_replicas=sum(rs.status.ready_replicas or 0 for rs in replica_sets) or None,
        available_replicas=ready or None,
        unavailable_replicas=max(0, total_size(replica_sets) - ready) or None,
        collision_count=deployment.status.collision_count,
        conditions=put_condition(conditions, condition),
    )


def is_complete(deployment: Deployment, status: Status) -> bool:
    """All replicas are of the new template and available, and no old one is left."""
    want = desired(deployment)
    return (
        (status.updated_replicas or 0) == want
        and (status.replicas or 0) == want
        and (status.available_replicas or 0) == want
        and (status.observed_generation or 0) >= (deployment.metadata.generation or 0)
    )


def has_progressed(before: Status, after: Status) -> bool:
    """More new, fewer old, more ready or more available pods than the last status said."""

    def numbers(status: Status) -> tuple[int, int, int, int]:
        updated = status.updated_replicas or 0
        return (
            updated,
            updated - (status.replicas or 0),
            status.ready_replicas or 0,
            status.available_replicas or 0,
        )

    return any(b > a for a, b in zip(numbers(before), numbers(after), strict=True))


def _expires(deployment: Deployment, condition: Condition) -> float:
    since = parse_time(condition.last_update_time) if condition.last_update_time else 0.0
    return since + (deadline(deployment) or 0)


def _has_timed_out(deployment: Deployment, status: Status, now: float) -> bool:
    condition = get_condition(status.conditions, PROGRESSING)
    if condition is None or not has_deadline(deployment) or condition.reason == COMPLETE:
        return False
    return condition.reason == TIMED_OUT or _expires(deployment, condition) < now


def _failure(replica_sets: Iterable[ReplicaSet], new: ReplicaSet | None) -> Condition | None:
    """The first ReplicaFailure of the new set, else of any."""
    for rs in [*((new,) if new is not None else ()), *replica_sets]:
        failure = get_condition(rs.status.conditions, REPLICA_FAILURE)
        if failure is not None:
            return Condition(
                type=REPLICA_FAILURE,
                status=failure.status,
                reason=failure.reason,
                message=failure.message,
                last_transition_time=failure.last_transition_time,
                last_update_time=failure.last_transition_time,
            )
    return None


def rolled_out(
    deployment: Deployment, replica_sets: Sequence[ReplicaSet], new: ReplicaSet | None, now: float
) -> Verdict:
    """The status in a rollout: Progressing tells how it goes, and the deadline is watched."""
    status = counted(deployment, replica_sets, new, now)
    conditions = status.conditions or []
    current = get_condition(deployment.status.conditions, PROGRESSING)
    settled = status.replicas == status.updated_replicas and current is not None and current.reason == COMPLETE
    what = f'ReplicaSet "{new.metadata.name}"' if new is not None else f'Deployment "{deployment.metadata.name}"'
    if not has_deadline(deployment):
        conditions = remove_condition(conditions, PROGRESSING)
    elif not settled:
        if is_complete(deployment, status):
            text = f"{what} has successfully progressed."
            conditions = put_condition(conditions, make_condition(PROGRESSING, "True", COMPLETE, text, now))
        elif has_progressed(deployment.status, status):
            fresh = make_condition(PROGRESSING, "True", UPDATED, f"{what} is progressing.", now)
            # Replaced even if it says the same: its lastUpdateTime is what the deadline counts from.
            if current is not None and current.status == "True":
                fresh.last_transition_time = current.last_transition_time
            conditions = [*remove_condition(conditions, PROGRESSING), fresh]
        elif _has_timed_out(deployment, status, now):
            text = f"{what} has timed out progressing."
            conditions = put_condition(conditions, make_condition(PROGRESSING, "False", TIMED_OUT, text, now))
    failure = _failure(replica_sets, new)
    conditions = (
        put_condition(conditions, failure) if failure is not None else remove_condition(conditions, REPLICA_FAILURE)
    )
    status.conditions = conditions
    return Verdict(status, _check_again(deployment, status, now))


def _check_again(deployment: Deployment, status: Status, now: float) -> float | None:
    """Seconds until the deadline strikes, if it is running."""
    condition = get_condition(status.conditions, PROGRESSING)
    if condition is None or not has_deadline(deployment) or is_complete(deployment, status):
        return None
    if condition.reason in (TIMED_OUT, COMPLETE):
        return None
    return max(0.0, _expires(deployment, condition) - now) + 1


def scaled(
    deployment: Deployment, replica_sets: Sequence[ReplicaSet], new: ReplicaSet | None, now: float
) -> Verdict:
    """The status outside of a rollout (paused, scaled, being deleted): Progressing stays."""
    return Verdict(counted(deployment, replica_sets, new, now))
