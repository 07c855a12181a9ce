"""The disruption controller: keeps the status of PodDisruptionBudgets, which evictions ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from controllers.controller import Context, Controller, key, patience
from controllers.endpoints.selecting import BY_LABEL, label_pair, label_pairs
from navarch.api import selectors
from navarch.api.conditions import set_condition
from navarch.api.intstr import scaled_value
from navarch.api.kinds import group_version
from navarch.api.pods import controller_of, is_ready
from navarch.api.times import format_time, parse_time
from navarch.api.types import apps_v1, core_v1, meta_v1, policy_v1
from navarch.client.informer import Informer

Pod = core_v1.Pod
Budget = policy_v1.PodDisruptionBudget
DELETION_TIMEOUT = 120.0
"""Seconds after which an eviction that has not made its pod go no longer counts."""
ALLOWED = "DisruptionAllowed"


class Scale(NamedTuple):
    """How many pods there should be, and how many of them healthy."""

    expected: int
    healthy: int


def needs(spec: policy_v1.PodDisruptionBudgetSpec, pods: int, scale: int) -> Scale:
    """``pods`` that are selected, ``scale``: what their controllers want in all."""
    if spec.max_unavailable is not None:
        return Scale(scale, max(0, scale - scaled_value(spec.max_unavailable, scale, up=True)))
    if isinstance(spec.min_available, str):
        return Scale(scale, scaled_value(spec.min_available, scale, up=True))
    return Scale(pods, spec.min_available or 0)


def disrupted(
    status: policy_v1.PodDisruptionBudgetStatus, pods: Sequence[Pod], now: float
) -> tuple[dict[str, str], float | None]:
    """The evictions that are still to be seen, and the seconds until the first of them is given up."""
    pending: dict[str, str] = {}
    again: float | None = None
    by_name = {pod.metadata.name: pod for pod in pods}
    for name, at in (status.disrupted_pods or {}).items():
        pod = by_name.get(name)
        remains = parse_time(at) + DELETION_TIMEOUT - now
        if pod is None or pod.metadata.deletion_timestamp is not None or remains <= 0:
            continue
        pending[name] = at
        again = min(remains, again if again is not None else remains)
    return pending, again


def report(budget: Budget, pods: Sequence[Pod], scale: Scale, evicting: Mapping[str, str], now: float) -> Any:
    """The status that this amounts to."""
    healthy = sum(
        is_ready(pod) and pod.metadata.deletion_timestamp is None and pod.metadata.name not in evicting for pod in pods
    )
    allowed = max(0, healthy - scale.healthy) if scale.expected > 0 else 0
    enough = meta_v1.Condition(
        type=ALLOWED,
        status="True" if allowed else "False",
        reason="SufficientPods" if allowed else "InsufficientPods",
        message="",
        last_transition_time="",
        observed_generation=budget.metadata.generation,
    )
    conditions, _ = set_condition(budget.status.conditions, enough, format_time(now))
    return policy_v1.PodDisruptionBudgetStatus(
        current_healthy=healthy,
        desired_healthy=scale.healthy,
        disruptions_allowed=allowed,
        expected_pods=scale.expected,
        conditions=conditions,
        disrupted_pods=dict(evicting) or None,
        observed_generation=budget.metadata.generation,
    )


class DisruptionController(Controller):
    name = "disruption-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.budgets = self.informer(Budget)
        self.keys_are_of(self.budgets)
        self.pods = self.informer(Pod, {BY_LABEL: label_pairs})
        self.sets = self.informer(apps_v1.ReplicaSet)
        self.deployments = self.informer(apps_v1.Deployment)
        self.others: dict[tuple[str, str], Informer[Any]] = {
            ("", "ReplicationController"): self.informer(core_v1.ReplicationController),
            ("apps", "StatefulSet"): self.informer(apps_v1.StatefulSet),
        }
        self.budgets.add_handler(lambda kind, old, new: self.enqueue(new))
        self.pods.add_handler(self._pod_changed)
        owners: list[Informer[Any]] = [self.sets, self.deployments, *self.others.values()]
        for informer in owners:
            informer.add_handler(self._scaled)

    def _pod_changed(self, kind: str, old: Pod | None, new: Pod) -> None:
        for budget in self.budgets.list(new.metadata.namespace):
            try:
                selector = selectors.from_struct(budget.spec.selector)
            except ValueError:
                continue  # its own reconcile says what is wrong with it
            if any(selector.matches(pod.metadata.labels) for pod in (old, new) if pod is not None):
                self.queue.add_after(key(budget), patience(budget.status.expected_pods))

    def _scaled(self, kind: str, old: Any, new: Any) -> None:
        """Queues the budgets of an owner's pods. Pods that were given other labels than the owner's template has are seen at
        their next change."""
        if old is not None and old.spec.replicas == new.spec.replicas:
            return
        labels = new.spec.template.metadata.labels if new.spec.template and new.spec.template.metadata else None
        for budget in self.budgets.list(new.metadata.namespace):
            try:
                selector = selectors.from_struct(budget.spec.selector)
            except ValueError:
                continue  # its own reconcile says what is wrong with it
            if selector.matches(labels):
                self.enqueue(budget)

    def _pods_of(self, budget: Budget) -> list[Pod]:
        """The pods that a budget selects. Looks only at those that have one of the labels asked for: a namespace has many."""
        if budget.spec.selector is None:
            return []
        selector, namespace = selectors.from_struct(budget.spec.selector), budget.metadata.namespace
        near = [self.pods.by_index(BY_LABEL, label_pair(namespace, k, v)) for k, v in selector.exact.items()]
        return [
            pod for pod in min(near or [self.pods.list(namespace)], key=len) if selector.matches(pod.metadata.labels)
        ]

    async def reconcile(self, key: str) -> float | None:
        budget = self.budgets.get_key(key)
        if budget is None or budget.metadata.deletion_timestamp is not None:
            return None
        now = self.world.now()
        pods = self._pods_of(budget)
        counted = budget.spec.max_unavailable is not None or isinstance(budget.spec.min_available, str)
        scale = self._scale(pods) if counted else 0
        evicting, again = disrupted(budget.status, pods, now)
        status = report(budget, pods, needs(budget.spec, len(pods), scale), evicting, now)
        if status != budget.status:
            await self.client[Budget].update_status(msgspec.structs.replace(budget, status=status))
        return again

    def _scale(self, pods: Sequence[Pod]) -> int:
        """The sum of the replicas that the controllers of the pods want, each counted once."""
        total: dict[str, int] = {}
        for pod in pods:
            ref = controller_of(pod.metadata)
            if ref is None or ref.uid in total:
                continue
            namespace = pod.metadata.namespace or ""
            replica_set = self.sets.get(namespace, ref.name) if ref.kind == "ReplicaSet" else None
            owner = controller_of(replica_set.metadata) if replica_set is not None else None
            if owner is not None and owner.kind == "Deployment":
                deployment = self.deployments.get(namespace, owner.name)
                if deployment is not None and deployment.metadata.uid == owner.uid:
                    total[owner.uid] = _desired_replicas(deployment.spec.replicas)
            elif replica_set is not None and replica_set.metadata.uid == ref.uid:
                total[ref.uid] = _desired_replicas(replica_set.spec.replicas)
            else:
                group, _ = group_version(ref.api_version)
                informer = self.others.get((group, ref.kind))
                owner_object = informer.get(namespace, ref.name) if informer is not None else None
                if owner_object is not None and owner_object.metadata.uid == ref.uid:
                    total[ref.uid] = _desired_replicas(owner_object.spec.replicas)
        return sum(total.values())


def _desired_replicas(replicas: int | None) -> int:
    return 1 if replicas is None else replicas
