"""The replica set controller: makes, adopts, releases and deletes pods until as many run as are wanted. Its elder, the
replication controller, works the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from controllers.controller import BY_CONTROLLER, by_controller
from controllers.podowner import UNSETTLED, Pod, PodOwner
from controllers.replicaset import plan as planning
from navarch.api import selectors
from navarch.api.pods import controller_of, is_active
from navarch.api.types import apps_v1, core_v1

ReplicaSet = planning.ReplicaSet


class ReplicaSetController(PodOwner):
    name = "replicaset-controller"
    struct: ClassVar[type[Any]] = apps_v1.ReplicaSet
    api_version = "apps/v1"
    kind = "ReplicaSet"
    owner_indexes = {BY_CONTROLLER: by_controller}

    async def reconcile(self, key: str) -> float | None:
        replica_set: ReplicaSet | None = self.owners.get_key(key)
        if replica_set is None:
            self.expectations.forget(key)
            return None
        # Asked before the pods are read: an expectation that is met afterwards is not in what we read.
        settled = self.expectations.satisfied(key)
        pods = await self.claim(replica_set, among=is_active)
        error: Exception | None = None
        if settled and replica_set.metadata.deletion_timestamp is None:
            error = await self._manage(key, replica_set, pods)
        status, again = planning.report(replica_set, pods, error, self.world.now())
        if status != replica_set.status:
            await self.client[self.struct].update_status(msgspec.structs.replace(replica_set, status=status))
        if error is not None:
            raise error
        if not settled:  # an event may have been lost
            return min(again or UNSETTLED, UNSETTLED)
        return again

    async def _manage(self, key: str, replica_set: ReplicaSet, pods: Sequence[Pod]) -> Exception | None:
        """Makes or deletes pods; returns the first thing that went wrong."""
        plan = planning.plan(replica_set, pods, self._related(replica_set), self.world.now())
        if plan.create:
            pod = planning.new_pod(replica_set, self.reference(replica_set))
            return await self.create_pods(key, replica_set, [pod] * plan.create)
        return await self.delete_pods(key, replica_set, plan.delete) if plan.delete else None

    def _related(self, replica_set: ReplicaSet) -> list[Pod]:
        """Pods of all replica sets that have the same controller."""
        ref = controller_of(replica_set.metadata)
        family = self.owners.by_index(BY_CONTROLLER, ref.uid) if ref is not None else [replica_set]
        return [pod for rs in family for pod in self.pods.by_index(BY_CONTROLLER, rs.metadata.uid or "")]


class ReplicationControllerController(ReplicaSetController):
    name = "replicationcontroller-controller"
    struct = core_v1.ReplicationController
    api_version = "v1"
    kind = "ReplicationController"

    def selects(self, owner: core_v1.ReplicationController) -> selectors.LabelSelector:
        return selectors.from_labels(owner.spec.selector)
