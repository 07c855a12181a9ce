"""The one next step of a stateful set (or, with Parallel, all of them), and its status. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from controllers.statefulset.claims import claim_name
from navarch.api import pods as podrules
from navarch.api.types import apps_v1, core_v1, meta_v1

Pod = core_v1.Pod
StatefulSet = apps_v1.StatefulSet
REVISION = "controller-revision-hash"
POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"


class Plan(NamedTuple):
    """``create``: ordinals with the name of the revision that each is made of."""

    create: list[tuple[int, str]]
    delete: list[Pod]


def first_ordinal(stateful_set: StatefulSet) -> int:
    return (stateful_set.spec.ordinals.start or 0) if stateful_set.spec.ordinals is not None else 0


def desired_replicas(stateful_set: StatefulSet) -> int:
    return 1 if stateful_set.spec.replicas is None else stateful_set.spec.replicas


def has_ordinal(stateful_set: StatefulSet, number: int) -> bool:
    """Whether the set has a pod of this ordinal."""
    return first_ordinal(stateful_set) <= number < first_ordinal(stateful_set) + desired_replicas(stateful_set)


def ordinal(stateful_set: StatefulSet, pod: Pod) -> int:
    """The number in the pod's name, -1 if it is no name of this set."""
    head, _, tail = (pod.metadata.name or "").rpartition("-")
    return int(tail) if head == stateful_set.metadata.name and tail.isdecimal() else -1


def partition(stateful_set: StatefulSet) -> int:
    """Pods from this ordinal on get the new template."""
    update = stateful_set.spec.update_strategy
    rolling = update.rolling_update if update is not None else None
    return first_ordinal(stateful_set) + ((rolling.partition or 0) if rolling is not None else 0)


def is_on_delete(stateful_set: StatefulSet) -> bool:
    return stateful_set.spec.update_strategy is not None and stateful_set.spec.update_strategy.type == "OnDelete"


def revision_of(pod: Pod) -> str:
    return (pod.metadata.labels or {}).get(REVISION, "")


def plan(stateful_set: StatefulSet, pods: Sequence[Pod], current: str, update: str, now: float) -> Plan:
    """``current`` and ``update`` name the revisions before and after a rolling update.

    What waits for what is upstream's (stateful_set_control.go): of the pods beyond the set's size the one with the highest
    ordinal goes, if it is well and has been for minReadySeconds; one that is not well goes only if no pod below it is unwell.
    """
    start, grace = first_ordinal(stateful_set), stateful_set.spec.min_ready_seconds or 0
    one_by_one = stateful_set.spec.pod_management_policy != "Parallel"
    by_ordinal = {ordinal(stateful_set, pod): pod for pod in pods}
    out = Plan([], [])
    for number in range(start, start + desired_replicas(stateful_set)):
        pod = by_ordinal.get(number)
        if pod is None:
            old = not is_on_delete(stateful_set) and number < partition(stateful_set)
            out.create.append((number, current if old else update))
        elif pod.metadata.deletion_timestamp is not None:
            if one_by_one:
                return out
            continue
        elif podrules.is_terminal(pod):
            out.delete.append(pod)
        elif is_healthy(pod) and podrules.is_available(pod, grace, now):
            continue
        # Each waits for all before it to be there and available.
        if one_by_one:
            return out
    # Now every pod that is wanted is there and, unless all go at once, available.
    condemned = [by_ordinal[n] for n in sorted(by_ordinal, reverse=True) if n >= 0 and not has_ordinal(stateful_set, n)]
    unhealthy = next((pod for pod in reversed(condemned) if not is_healthy(pod)), None)
    for pod in condemned:
        if pod.metadata.deletion_timestamp is None:
            if one_by_one and pod is not unhealthy and not (is_healthy(pod) and podrules.is_available(pod, grace, now)):
                return out  # another pod is not well: taking this one, too, could cost a quorum
            out.delete.append(pod)
        if one_by_one:
            return out
    if is_on_delete(stateful_set):
        return out
    for number in range(start + desired_replicas(stateful_set) - 1, partition(stateful_set) - 1, -1):
        pod = by_ordinal.get(number)
        if pod is None or pod.metadata.deletion_timestamp is not None:
            return out
        if revision_of(pod) != update:
            if pod not in out.delete:
                out.delete.append(pod)
            return out
        if not is_healthy(pod):
            return out
    return out


def is_healthy(pod: Pod) -> bool:
    """Running, ready and not on its way out."""
    return pod.metadata.deletion_timestamp is None and pod.status.phase == "Running" and podrules.is_ready(pod)


def new_pod(
    stateful_set: StatefulSet, template: core_v1.PodTemplateSpec, owner: meta_v1.OwnerReference, number: int, revision: str
) -> Pod:
    meta, spec = template.metadata, template.spec
    name = f"{stateful_set.metadata.name}-{number}"
    labels = {**(meta.labels or {}), POD_NAME: name, POD_INDEX: str(number), REVISION: revision}
    templates = stateful_set.spec.volume_claim_templates or ()
    claims = {c.metadata.name or "": claim_name(stateful_set, c, number) for c in templates}
    volumes = [v for v in spec.volumes or () if v.name not in claims]
    for volume, claim in claims.items():
        source = core_v1.PersistentVolumeClaimVolumeSource(claim_name=claim)
        volumes.append(core_v1.Volume(name=volume, persistent_volume_claim=source))
    return Pod(
        metadata=meta_v1.ObjectMeta(
            name=name, namespace=stateful_set.metadata.namespace, labels=labels, annotations=meta.annotations,
            finalizers=meta.finalizers, owner_references=[owner],
        ),
        spec=msgspec.structs.replace(
            spec, hostname=name, subdomain=stateful_set.spec.service_name or spec.subdomain, volumes=volumes or None
        ),
    )  # fmt: skip


def report(
    stateful_set: StatefulSet, pods: Sequence[Pod], current: str, update: str, now: float
) -> tuple[apps_v1.StatefulSetStatus, float | None]:
    """The status, and the seconds until a ready pod becomes available by waiting alone."""
    grace = stateful_set.spec.min_ready_seconds or 0
    live = [p for p in pods if not podrules.is_terminal(p)]
    staying = [p for p in live if p.metadata.deletion_timestamp is None]
    ready = [p for p in live if podrules.is_ready(p)]
    available = sum(podrules.is_available(p, grace, now) for p in ready)
    updated = sum(revision_of(p) == update for p in staying)
    old = sum(revision_of(p) == current for p in staying)
    done = not is_on_delete(stateful_set) and updated == len(live) == len(ready) and updated == desired_replicas(stateful_set)
    if done:
        current, old = update, updated
    waits = [s + grace - now for p in ready if grace and (s := podrules.ready_since(p)) and s + grace > now]
    status = msgspec.structs.replace(
        stateful_set.status,
        replicas=len(live),
        ready_replicas=len(ready) or None,
        available_replicas=available,
        current_replicas=old or None,
        updated_replicas=updated or None,
        current_revision=current,
        update_revision=update,
        observed_generation=stateful_set.metadata.generation,
        collision_count=stateful_set.status.collision_count or 0,
    )
    return status, max(0.0, min(waits)) + 0.01 if waits else None
