"""Which replica set is the current one, and the numbers and annotations that let ``kubectl rollout`` go back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from controllers.deployment.sizes import (
    DESIRED,
    HISTORY,
    MAX_INT32,
    MAXIMUM,
    REVISION,
    Deployment,
    ReplicaSet,
    active,
    desired,
    integer_annotation,
    max_surge,
    newest_first,
    oldest_first,
    size,
)
from navarch.api import wellknown
from navarch.api.types import core_v1

TEMPLATE_HASH = "pod-template-hash"
HISTORY_CHARACTERS = 2000
"""Longest revision-history annotation; the oldest entries fall off."""

NOT_COPIED = frozenset(
    (
        wellknown.LAST_APPLIED,
        REVISION,
        HISTORY,
        DESIRED,
        MAXIMUM,
        "deprecated.deployment.rollback.to",
    )
)
"""Annotations of a Deployment that are its own and not its replica sets'."""


def same_template(a: core_v1.PodTemplateSpec | None, b: core_v1.PodTemplateSpec | None) -> bool:
    """Equal but for the hash label."""
    return a is not None and b is not None and _bare(a) == _bare(b)


def _bare(template: core_v1.PodTemplateSpec) -> core_v1.PodTemplateSpec:
    labels = {k: v for k, v in (template.metadata.labels or {}).items() if k != TEMPLATE_HASH}
    metadata = msgspec.structs.replace(
        template.metadata, labels=labels or None, annotations=template.metadata.annotations or None
    )
    return msgspec.structs.replace(template, metadata=metadata)


def find_new(deployment: Deployment, replica_sets: Iterable[ReplicaSet]) -> ReplicaSet | None:
    """The set with the deployment's template; the oldest if there are several, so that all agree on one."""
    for rs in oldest_first(replica_sets):
        if same_template(rs.spec.template, deployment.spec.template):
            return rs
    return None


def find_old(replica_sets: Iterable[ReplicaSet], new: ReplicaSet | None) -> list[ReplicaSet]:
    name = new.metadata.name if new is not None else None
    return oldest_first(rs for rs in replica_sets if rs.metadata.name != name)


def active_or_latest(new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> ReplicaSet | None:
    """The only active set; the newest if none is active; None if several are."""
    active_sets = active([*old, new] if new is not None else old)
    if not active_sets:
        return new or next(iter(newest_first(old)), None)
    return active_sets[0] if len(active_sets) == 1 else None


def revision(replica_set: ReplicaSet) -> int:
    return integer_annotation(replica_set, REVISION) or 0


def next_revision(old: Iterable[ReplicaSet]) -> int:
    return max((revision(rs) for rs in old), default=0) + 1


def replica_annotations(deployment: Deployment) -> dict[str, str]:
    """The replica set's record of the size its deployment had; a difference is how scaling is noticed."""
    want = desired(deployment)
    return {DESIRED: str(want), MAXIMUM: str(want + max_surge(deployment))}


def new_set_annotations(deployment: Deployment, replica_set: ReplicaSet, number: int, *, exists: bool) -> dict[str, str]:
    """All annotations of the new replica set at revision ``number``.

    A set that comes back (a rollback) keeps its former numbers in the history annotation.
    """
    out = dict(replica_set.metadata.annotations or {})
    out.update({k: v for k, v in (deployment.metadata.annotations or {}).items() if k not in NOT_COPIED})
    before = out.get(REVISION)
    if revision(replica_set) < number:
        out[REVISION] = str(number)
        if before is not None:
            entries = [*(e for e in out.get(HISTORY, "").split(",") if e), before]
            while len(entries) > 1 and len(",".join(entries)) > HISTORY_CHARACTERS:
                del entries[0]
            out[HISTORY] = ",".join(entries)
    if not exists:
        out.update(replica_annotations(deployment))
    return out


def is_scaling(deployment: Deployment, replica_sets: Iterable[ReplicaSet]) -> bool:
    """An active set remembers another deployment size than is wanted now."""
    want = desired(deployment)
    return any(integer_annotation(rs, DESIRED) not in (None, want) for rs in active(replica_sets))


def surplus(deployment: Deployment, old: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    """Old sets beyond revisionHistoryLimit that are empty and settled: the lowest revisions."""
    limit = 10 if deployment.spec.revision_history_limit is None else deployment.spec.revision_history_limit
    alive = [rs for rs in old if rs.metadata.deletion_timestamp is None]
    excess = len(alive) - limit
    if limit == MAX_INT32 or excess <= 0:
        return []
    ordered = sorted(oldest_first(alive), key=revision)
    return [
        rs
        for rs in ordered[:excess]
        if size(rs) == 0
        and not rs.status.replicas
        and (rs.metadata.generation or 0) <= (rs.status.observed_generation or 0)
    ]
