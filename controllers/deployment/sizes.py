"""The arithmetic of rollouts: how large each replica set may be. Pure functions on numbers and replica sets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from navarch.api import wellknown
from navarch.api.intstr import scaled_value
from navarch.api.types import apps_v1

MAX_INT32 = 2**31 - 1
REVISION = wellknown.REVISION
HISTORY = wellknown.REVISION_HISTORY
DESIRED = wellknown.DESIRED_REPLICAS
MAXIMUM = wellknown.MAX_REPLICAS

Deployment = apps_v1.Deployment
ReplicaSet = apps_v1.ReplicaSet


def desired(deployment: Deployment) -> int:
    return 1 if deployment.spec.replicas is None else deployment.spec.replicas


def is_rolling(deployment: Deployment) -> bool:
    strategy = deployment.spec.strategy
    return strategy is None or strategy.type in (None, "RollingUpdate")


def fenceposts(deployment: Deployment) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods. Both 0 would never move, so then one pod may be unavailable."""
    strategy = deployment.spec.strategy
    rolling = strategy.rolling_update if strategy else None
    surge: int | str | None = "25%"
    unavailable: int | str | None = "25%"
    if rolling is not None:
        surge = "25%" if rolling.max_surge is None else rolling.max_surge
        unavailable = "25%" if rolling.max_unavailable is None else rolling.max_unavailable
    total = desired(deployment)
    out = scaled_value(surge, total, up=True), scaled_value(unavailable, total, up=False)
    return (0, 1) if out == (0, 0) else out


def max_surge(deployment: Deployment) -> int:
    """Pods allowed above the desired number; 0 unless rolling."""
    return fenceposts(deployment)[0] if is_rolling(deployment) else 0


def max_unavailable(deployment: Deployment) -> int:
    """Pods that may be missing from the desired number; 0 unless rolling."""
    total = desired(deployment)
    return min(fenceposts(deployment)[1], total) if is_rolling(deployment) else 0


def size(replica_set: ReplicaSet) -> int:
    return 1 if replica_set.spec.replicas is None else replica_set.spec.replicas


def total_size(replica_sets: Iterable[ReplicaSet]) -> int:
    return sum(size(rs) for rs in replica_sets)


def available(replica_set: ReplicaSet) -> int:
    """Pods of the set that are available and stay so.

    The status may not have seen the latest scaling down; since a replica set gives up its unavailable pods first, never
    more than its size are counted. (Counting the stale number would let a rollout go below its floor.)
    """
    return min(replica_set.status.available_replicas or 0, size(replica_set))


def total_available(replica_sets: Iterable[ReplicaSet]) -> int:
    return sum(available(rs) for rs in replica_sets)


def active(replica_sets: Iterable[ReplicaSet]) -> list[ReplicaSet]:
    """The sets that want pods."""
    return [rs for rs in replica_sets if size(rs) > 0]


def oldest_first(replica_sets: Iterable[ReplicaSet]) -> list[ReplicaSet]:
    return sorted(replica_sets, key=lambda rs: (rs.metadata.creation_timestamp or "~", rs.metadata.name or ""))


def newest_first(replica_sets: Iterable[ReplicaSet]) -> list[ReplicaSet]:
    return oldest_first(replica_sets)[::-1]


def new_size(deployment: Deployment, every: Sequence[ReplicaSet], new: ReplicaSet) -> int:
    """How large the new replica set may be now: as much as surge leaves room for.

    ``every`` holds all sets, the new one among them.
    """
    want, now = desired(deployment), size(new)
    if not is_rolling(deployment):
        return want
    room = want + max_surge(deployment) - total_size(every)
    return now if room <= 0 else now + min(room, want - now)


def integer_annotation(replica_set: ReplicaSet, key: str) -> int | None:
    text = (replica_set.metadata.annotations or {}).get(key)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        return None


def is_saturated(deployment: Deployment, new: ReplicaSet | None) -> bool:
    """The new set is as large as it should be and all of it available: the old ones can go."""
    if new is None:
        return False
    want = desired(deployment)
    return size(new) == want and integer_annotation(new, DESIRED) == want and available(new) == want


def _fraction(deployment: Deployment, replica_set: ReplicaSet) -> int:
    """Change of one set's size if it kept its share of the whole over the scaling."""
    if desired(deployment) == 0:
        return -size(replica_set)
    limit = desired(deployment) + max_surge(deployment)
    before = integer_annotation(replica_set, MAXIMUM) or deployment.status.replicas or limit
    share = size(replica_set) * limit / before
    return math.floor(share + 0.5) - size(replica_set)


def proportional(deployment: Deployment, replica_sets: Sequence[ReplicaSet]) -> dict[str, int]:
    """New sizes by name when a deployment is scaled in the middle of a rollout.

    Each active set changes by its share, larger sets first, the newer (when growing) or older (when shrinking) of equal
    ones first; what rounding leaves over goes to the first.
    """
    sets = active(replica_sets)
    want = desired(deployment)
    allowed = want + max_surge(deployment) if want > 0 else 0
    change = allowed - total_size(sets)
    ordered = newest_first(sets) if change > 0 else oldest_first(sets)
    ordered.sort(key=size, reverse=True)
    done, out = 0, {}
    for rs in ordered:
        part = 0
        if change and done != change:
            remaining = change - done
            part = min(_fraction(deployment, rs), remaining) if change > 0 else max(_fraction(deployment, rs), remaining)
            done += part
        out[rs.metadata.name or ""] = size(rs) + part
    if ordered and change:
        first = ordered[0].metadata.name or ""
        out[first] = max(0, out[first] + change - done)
    return out


def clean_unhealthy(deployment: Deployment, old: Sequence[ReplicaSet], limit: int) -> dict[str, int]:
    """New sizes by name that take away up to ``limit`` pods of old sets which are not available anyway."""
    removals, out = 0, {}
    for rs in oldest_first(old):
        dead = size(rs) - available(rs)
        if removals >= limit:
            break
        if size(rs) == 0 or dead == 0:
            continue
        part = min(limit - removals, dead)
        removals += part
        out[rs.metadata.name or ""] = size(rs) - part
    return out


def shrink_old(deployment: Deployment, every: Sequence[ReplicaSet], old: Sequence[ReplicaSet]) -> dict[str, int]:
    """New sizes by name of old sets, oldest first, that keep (desired - maxUnavailable) pods available."""
    spare = total_available(every) - (desired(deployment) - max_unavailable(deployment))
    removals, out = 0, {}
    for rs in oldest_first(old):
        if removals >= spare:
            break
        part = min(size(rs), spare - removals)
        if part <= 0:
            continue
        removals += part
        out[rs.metadata.name or ""] = size(rs) - part
    return out
