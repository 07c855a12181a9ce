"""Plans the actions for one Deployment now: a pure function of the deployment, its replica sets and the time.

One reconcile works on a draft: a copy of the replica sets in which each decision shows, so that a later decision of the
same reconcile sees the earlier ones. The actions are the difference between the draft and what is observed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from controllers.deployment import revisions as rev
from controllers.deployment import sizes, status
from controllers.deployment.sizes import Deployment, ReplicaSet, desired, size
from navarch.api.conditions import get_condition
from navarch.api.hashes import template_hash
from navarch.api.types import apps_v1, meta_v1

MIN_READY = "min_ready_seconds"


@dataclass(frozen=True)
class Create:
    """Make this replica set (the deployment's new one)."""

    replica_set: ReplicaSet
    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class Update:
    """Bring ``old`` to ``new``: size, annotations, minReadySeconds. ``events``: ScalingReplicaSet messages."""

    old: ReplicaSet
    new: ReplicaSet
    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class Delete:
    """Old history that nobody needs."""

    replica_set: ReplicaSet


Action = Create | Update | Delete


@dataclass(frozen=True)
class Plan:
    """``revision`` is the number that the deployment's own annotation should carry (None: leave it)."""

    actions: tuple[Action, ...]
    status: apps_v1.DeploymentStatus
    revision: str | None = None
    again: float | None = None


@dataclass
class _Draft:
    """The replica sets as they will be."""

    deployment: Deployment
    sets: dict[str, ReplicaSet]
    events: dict[str, list[str]] = field(default_factory=dict)
    created: str | None = None
    deleted: list[ReplicaSet] = field(default_factory=list)

    @property
    def all(self) -> list[ReplicaSet]:
        return list(self.sets.values())

    @property
    def new(self) -> ReplicaSet | None:
        return rev.find_new(self.deployment, self.sets.values())

    @property
    def old(self) -> list[ReplicaSet]:
        return rev.find_old(self.sets.values(), self.new)

    def change(self, replica_set: ReplicaSet, *, replicas: int | None, annotations: Mapping[str, str]) -> None:
        name = replica_set.metadata.name or ""
        merged = {**(replica_set.metadata.annotations or {}), **annotations}
        spec = replica_set.spec
        if replicas is not None and replicas != size(replica_set):
            spec = msgspec.structs.replace(spec, replicas=replicas)
        metadata = replica_set.metadata
        if merged != (metadata.annotations or {}):
            metadata = msgspec.structs.replace(metadata, annotations=merged)
        if spec is not replica_set.spec or metadata is not replica_set.metadata:
            self.sets[name] = msgspec.structs.replace(replica_set, spec=spec, metadata=metadata)

    def scale(self, replica_set: ReplicaSet, replicas: int) -> bool:
        """Sets the size and what the set remembers of the deployment's. True if the size changed."""
        before = size(replica_set)
        self.change(replica_set, replicas=replicas, annotations=rev.replica_annotations(self.deployment))
        if before == replicas:
            return False
        name = replica_set.metadata.name or ""
        way = "up" if replicas > before else "down"
        text = f"Scaled {way} replica set {name} from {before} to {replicas}"
        self.events.setdefault(name, []).append(text)
        return True

    def scale_all(self, new_sizes: Mapping[str, int]) -> bool:
        return any([self.scale(self.sets[name], count) for name, count in new_sizes.items()])


def plan(deployment: Deployment, replica_sets: Sequence[ReplicaSet], now: float, *, old_pods_run: bool = False) -> Plan:
    """The next actions, all of which can be done at once.

    ``replica_sets`` are those that the deployment controls; ``old_pods_run`` tells (for the Recreate strategy) that pods
    of old replica sets still exist. ``now`` is Unix time.
    """
    draft = _Draft(deployment, {rs.metadata.name or "": rs for rs in sizes.oldest_first(replica_sets)})
    if deployment.metadata.deletion_timestamp is not None:
        return _finish(draft, replica_sets, status.scaled(deployment, draft.all, draft.new, now), None)
    noted = status.pause_condition(deployment, now)
    if noted is not None:
        deployment = draft.deployment = _with_condition(deployment, noted)
    if deployment.spec.paused or rev.is_scaling(deployment, draft.all):
        number = _number_new(draft, now, create=False)
        deployment = draft.deployment
        _scale(draft)
        if deployment.spec.paused:
            _clean(draft)
        return _finish(draft, replica_sets, status.scaled(deployment, draft.all, draft.new, now), number)
    number = _roll(draft, now) if sizes.is_rolling(deployment) else _recreate(draft, now, old_pods_run)
    verdict = status.rolled_out(draft.deployment, draft.all, draft.new, now)
    return _finish(draft, replica_sets, verdict, number)


def _with_condition(deployment: Deployment, condition: apps_v1.DeploymentCondition) -> Deployment:
    conditions = status.put_condition(deployment.status.conditions, condition)
    new_status = msgspec.structs.replace(deployment.status, conditions=conditions)
    return msgspec.structs.replace(deployment, status=new_status)


def _number_new(draft: _Draft, now: float, *, create: bool) -> str | None:
    """Numbers the new replica set, making it if asked to; returns the deployment's revision."""
    deployment, new = draft.deployment, draft.new
    number = rev.next_revision(draft.old)
    if new is not None:
        annotations = rev.new_set_annotations(deployment, new, number, exists=True)
        draft.change(new, replicas=None, annotations=annotations)
        name = new.metadata.name or ""
        new = draft.sets[name]
        if (new.spec.min_ready_seconds or 0) != (deployment.spec.min_ready_seconds or 0):
            spec = msgspec.structs.replace(new.spec, min_ready_seconds=deployment.spec.min_ready_seconds or 0)
            draft.sets[name] = msgspec.structs.replace(new, spec=spec)
        if status.has_deadline(deployment) and not get_condition(deployment.status.conditions, status.PROGRESSING):
            text = f'Found new replica set "{name}"'
            _note(draft, status.EXISTING, text, now)
        return annotations.get(sizes.REVISION)
    if not create:
        return None
    replica_set = new_replica_set(deployment)
    name = replica_set.metadata.name or ""
    replica_set.spec.replicas = sizes.new_size(deployment, [*draft.all, replica_set], replica_set)
    replica_set.metadata.annotations = rev.new_set_annotations(deployment, replica_set, number, exists=False)
    draft.sets[name] = replica_set
    draft.created = name
    if replica_set.spec.replicas:
        draft.events[name] = [f"Scaled up replica set {name} from 0 to {replica_set.spec.replicas}"]
    if status.has_deadline(deployment):
        _note(draft, status.CREATED, f'Created new replica set "{name}"', now)
    return str(number)


def _note(draft: _Draft, reason: str, text: str, now: float) -> None:
    condition = status.make_condition(status.PROGRESSING, "True", reason, text, now)
    draft.deployment = _with_condition(draft.deployment, condition)


def new_replica_set(deployment: Deployment) -> ReplicaSet:
    """The deployment's new replica set, with size 0. Its name follows from the template and the collision count."""
    short = template_hash(deployment.spec.template, deployment.status.collision_count)
    template = msgspec.structs.replace(
        deployment.spec.template,
        metadata=msgspec.structs.replace(
            deployment.spec.template.metadata,
            labels={**(deployment.spec.template.metadata.labels or {}), rev.TEMPLATE_HASH: short},
        ),
    )
    selector = meta_v1.LabelSelector(
        match_labels={**(deployment.spec.selector.match_labels or {}), rev.TEMPLATE_HASH: short},
        match_expressions=deployment.spec.selector.match_expressions,
    )
    owner = meta_v1.OwnerReference(
        api_version="apps/v1",
        kind="Deployment",
        name=deployment.metadata.name or "",
        uid=deployment.metadata.uid or "",
        controller=True,
        block_owner_deletion=True,
    )
    return ReplicaSet(
        metadata=meta_v1.ObjectMeta(
            name=f"{(deployment.metadata.name or '')[: 252 - len(short)]}-{short}",
            namespace=deployment.metadata.namespace,
            labels=dict(template.metadata.labels or {}),
            owner_references=[owner],
        ),
        spec=apps_v1.ReplicaSetSpec(
            replicas=0,
            min_ready_seconds=deployment.spec.min_ready_seconds,
            selector=selector,
            template=template,
        ),
        status=apps_v1.ReplicaSetStatus(replicas=0),
    )


def _scale(draft: _Draft) -> None:
    """Follows a change of spec.replicas without rolling."""
    deployment = draft.deployment
    only = rev.active_or_latest(draft.new, draft.old)
    if only is not None:
        draft.scale(only, desired(deployment))
    elif sizes.is_saturated(deployment, draft.new):
        for old in sizes.active(draft.old):
            draft.scale(old, 0)
    elif sizes.is_rolling(deployment):
        draft.scale_all(sizes.proportional(deployment, draft.all))
    else:  # nothing to share out when recreating: only the memory of the size is brought up to date
        for rs in sizes.active(draft.all):
            draft.scale(rs, size(rs))


def _roll(draft: _Draft, now: float) -> str | None:
    """One step of a rolling update: first the new set grows, and only when it cannot, old ones shrink."""
    number = _number_new(draft, now, create=True)
    deployment, new = draft.deployment, draft.new
    assert new is not None
    if draft.created:  # its size is right already; go on with the old ones
        pass
    elif size(new) > desired(deployment):
        draft.scale(new, desired(deployment))
        return number
    elif draft.scale(new, sizes.new_size(deployment, draft.all, new)):
        return number
    if _shrink_old(draft, new):
        return number
    _clean_if_complete(draft, now)
    return number


def _shrink_old(draft: _Draft, new: ReplicaSet) -> bool:
    deployment = draft.deployment
    if not sizes.active(draft.old):
        return False
    floor = desired(deployment) - sizes.max_unavailable(deployment)
    missing = size(new) - (new.status.available_replicas or 0)
    limit = sizes.total_size(draft.all) - floor - missing
    if limit <= 0:
        return False
    cleaned = draft.scale_all(sizes.clean_unhealthy(deployment, draft.old, limit))
    shrunk = draft.scale_all(sizes.shrink_old(deployment, draft.all, draft.old))
    return cleaned or shrunk


def _recreate(draft: _Draft, now: float, old_pods_run: bool) -> str | None:
    """One step of Recreate: old sets to zero, wait until their pods are gone, then the new set."""
    number = _number_new(draft, now, create=False)
    if draft.scale_all({rs.metadata.name or "": 0 for rs in sizes.active(draft.old)}):
        return number
    if old_pods_run or any(rs.status.replicas for rs in draft.old):
        return number
    number = _number_new(draft, now, create=True)
    new = draft.new
    assert new is not None
    draft.scale(new, desired(draft.deployment))
    _clean_if_complete(draft, now)
    return number


def _clean_if_complete(draft: _Draft, now: float) -> None:
    # Upstream asks the stored status; the one just counted says the same one reconcile earlier.
    if status.is_complete(draft.deployment, status.counted(draft.deployment, draft.all, draft.new, now)):
        _clean(draft)


def _clean(draft: _Draft) -> None:
    for rs in rev.surplus(draft.deployment, draft.old):
        draft.deleted.append(rs)
        del draft.sets[rs.metadata.name or ""]


def _finish(
    draft: _Draft, observed: Sequence[ReplicaSet], verdict: status.Verdict, number: str | None
) -> Plan:
    """The difference between the draft and what is observed. The new set comes first."""
    before = {rs.metadata.name: rs for rs in observed}
    actions: list[Action] = []
    for name, rs in draft.sets.items():
        events = tuple(draft.events.get(name, ()))
        if name == draft.created:
            actions.insert(0, Create(rs, events))
        elif rs is not before[name]:
            actions.append(Update(before[name], rs, events))
    actions += [Delete(rs) for rs in draft.deleted]
    current = (draft.deployment.metadata.annotations or {}).get(sizes.REVISION)
    return Plan(tuple(actions), verdict.status, number if number != current else None, verdict.again)
