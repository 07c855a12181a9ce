"""How many pods to make, which to delete, and what to report: pure functions of a replica set and its pods.

A replication controller is a replica set with a simpler selector, and serves here as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from navarch.api import pods as podrules
from navarch.api.conditions import get_condition, remove_condition
from navarch.api.times import format_time
from navarch.api.types import apps_v1, core_v1, meta_v1

BURST = 500
"""Most pods to make or delete in one go."""
REPLICA_FAILURE = "ReplicaFailure"

Pod = core_v1.Pod
ReplicaSet = apps_v1.ReplicaSet | core_v1.ReplicationController
Status = apps_v1.ReplicaSetStatus | core_v1.ReplicationControllerStatus


class Plan(NamedTuple):
    create: int
    delete: list[Pod]


class Report(NamedTuple):
    """``again``: seconds until a ready pod becomes available by waiting alone."""

    status: Status
    again: float | None


def desired_replicas(replica_set: ReplicaSet) -> int:
    return 1 if replica_set.spec.replicas is None else replica_set.spec.replicas


def plan(replica_set: ReplicaSet, pods: Sequence[Pod], related: Iterable[Pod], now: float) -> Plan:
    """``pods`` are the active pods of the set, ``related`` those of all sets with the same owner (this one's too)."""
    excess = len(pods) - desired_replicas(replica_set)
    if excess <= 0:
        return Plan(min(-excess, BURST), [])
    return Plan(0, victims(pods, related, min(excess, BURST), now))


def victims(pods: Sequence[Pod], related: Iterable[Pod], count: int, now: float) -> list[Pod]:
    """The pods that can best be spared, the first to go first."""
    on_node: dict[str, int] = {}
    for pod in related:
        if pod.spec.node_name and podrules.is_active(pod):
            on_node[pod.spec.node_name] = on_node.get(pod.spec.node_name, 0) + 1

    def rank(pod: Pod) -> tuple[tuple[float, ...], str]:
        beside = on_node.get(pod.spec.node_name or "", 0)
        return podrules.deletion_rank(pod, beside, now), pod.metadata.uid or ""

    return sorted(pods, key=rank)[:count]


def new_pod(replica_set: ReplicaSet, owner: meta_v1.OwnerReference) -> Pod:
    """A pod of the set's template, named by the server."""
    template = replica_set.spec.template
    if template is None:
        raise ValueError(f"replica set {replica_set.metadata.name} has no template")
    meta = template.metadata
    return Pod(
        metadata=meta_v1.ObjectMeta(
            generate_name=f"{replica_set.metadata.name}-",
            namespace=replica_set.metadata.namespace,
            labels=meta.labels,
            annotations=meta.annotations,
            finalizers=meta.finalizers,
            owner_references=[owner],
        ),
        spec=template.spec,
    )


def report(replica_set: ReplicaSet, pods: Sequence[Pod], error: Exception | None, now: float) -> Report:
    """The status that the active ``pods`` amount to; ``error`` is what making or deleting pods failed with."""
    template = replica_set.spec.template
    labels = (template.metadata.labels if template is not None else None) or {}
    grace = replica_set.spec.min_ready_seconds or 0
    ready = [pod for pod in pods if podrules.is_ready(pod)]
    available = sum(podrules.is_available(pod, grace, now) for pod in ready)
    fully = sum(all((pod.metadata.labels or {}).get(k) == v for k, v in labels.items()) for pod in pods)
    waits = [
        since + grace - now
        for since in map(podrules.ready_since, ready)
        if grace and since is not None and since + grace > now
    ]
    status = msgspec.structs.replace(
        replica_set.status,
        replicas=len(pods),
        ready_replicas=len(ready) or None,
        available_replicas=available or None,
        fully_labeled_replicas=fully or None,
        observed_generation=replica_set.metadata.generation,
        conditions=_conditions(replica_set, len(pods), error, now),
    )
    return Report(status, max(0.0, min(waits)) + 0.01 if waits else None)


def _conditions(replica_set: ReplicaSet, count: int, error: Exception | None, now: float) -> list[Any] | None:
    conditions = replica_set.status.conditions
    failed = get_condition(conditions, REPLICA_FAILURE)
    if error is None:
        return remove_condition(conditions, REPLICA_FAILURE) or None
    if failed is not None:
        return conditions
    of_set = isinstance(replica_set, apps_v1.ReplicaSet)
    condition = apps_v1.ReplicaSetCondition if of_set else core_v1.ReplicationControllerCondition
    new = condition(
        type=REPLICA_FAILURE,
        status="True",
        reason="FailedDelete" if count > desired_replicas(replica_set) else "FailedCreate",
        message=str(error),
        last_transition_time=format_time(now),
    )
    return [*(conditions or ()), new]
