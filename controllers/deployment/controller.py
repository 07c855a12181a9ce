"""The deployment controller: does what the plan says, one write after the other, each guarded by a resource version."""

from __future__ import annotations

import msgspec

from controllers.controller import (
    BY_CONTROLLER,
    Context,
    Controller,
    by_controller,
    namespace_is_terminating,
    orphans,
    refuse_undecodable,
)
from controllers.controller import key as key_of_object
from controllers.deployment import revisions, sizes, status
from controllers.deployment.plan import Create, Delete, Plan, Update, plan
from controllers.ownership import adoption_patch, claim, reference, release_patch
from controllers.pendingwrites import Overlay
from navarch.api import selectors
from navarch.api.errors import AlreadyExists, Conflict, Invalid, NotFound, StatusError
from navarch.api.pods import controller_of, is_terminal
from navarch.api.types import apps_v1, core_v1
from navarch.client.events import NORMAL, WARNING
from navarch.client.transport import TransportError

Deployment = apps_v1.Deployment
ReplicaSet = apps_v1.ReplicaSet
Pod = core_v1.Pod


class DeploymentController(Controller):
    name = "deployment-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.events = context.recorder(self.name)
        self.deployments = self.informer(Deployment)
        self.sets = self.informer(ReplicaSet, {BY_CONTROLLER: by_controller})
        self.pods = self.informer(Pod, {BY_CONTROLLER: by_controller})
        # A plan that does not see the set made a moment ago would make the next one as large as if it were alone.
        self.own = Overlay(self.sets, self.world)
        self._doubtful: set[str] = set()  # deployments with a write of which nobody knows whether it arrived
        self.enqueues(self.deployments)
        self.sets.add_handler(self._set_changed)
        self.pods.add_handler(self._pod_changed)

    # Events

    def _set_changed(self, kind: str, old: ReplicaSet | None, new: ReplicaSet) -> None:
        owner = self._owner(new)
        before = self._owner(old) if old is not None else None
        if before is not None and before is not owner:
            self.enqueue(before)
        if owner is not None:
            self.enqueue(owner)
        elif kind != "DELETED" and controller_of(new.metadata) is None:
            for deployment in self.deployments.list(new.metadata.namespace):
                if _selects(deployment, new):
                    self.enqueue(deployment)

    def _pod_changed(self, kind: str, old: Pod | None, new: Pod) -> None:
        """Recreate waits for old pods to go; nothing else about a pod concerns a deployment directly."""
        if kind != "DELETED" and not is_terminal(new):
            return
        ref = controller_of(new.metadata)
        if ref is None or ref.kind != "ReplicaSet":
            return
        replica_set = self.sets.get(new.metadata.namespace, ref.name)
        owner = self._owner(replica_set) if replica_set is not None else None
        if owner is not None and not sizes.is_rolling(owner):
            self.enqueue(owner)

    def _owner(self, replica_set: ReplicaSet) -> Deployment | None:
        ref = controller_of(replica_set.metadata)
        if ref is None or ref.kind != "Deployment":
            return None
        deployment = self.deployments.get(replica_set.metadata.namespace, ref.name)
        return deployment if deployment is not None and deployment.metadata.uid == ref.uid else None

    # Work

    async def reconcile(self, key: str) -> float | None:
        deployment = self.deployments.get_key(key)
        if deployment is None:
            return None
        selector = selectors.from_struct(deployment.spec.selector)
        if selector.empty:
            text = "This deployment is selecting all pods. A non-empty selector is required."
            self.events.event(deployment, WARNING, "SelectingAll", text)
            if (deployment.status.observed_generation or 0) < (deployment.metadata.generation or 0):
                generation = deployment.metadata.generation
                await self._write_status(
                    deployment, msgspec.structs.replace(deployment.status, observed_generation=generation)
                )
            return None
        replica_sets = await self._claim(deployment, selector)
        old_pods_run = not sizes.is_rolling(deployment) and self._old_pods_run(deployment, replica_sets)
        rollout = plan(deployment, replica_sets, self.world.now(), old_pods_run=old_pods_run)
        try:
            return await self._do(deployment, rollout)
        except TransportError:
            self._doubtful.add(key)
            raise

    async def _claim(self, deployment: Deployment, selector: selectors.LabelSelector) -> list[ReplicaSet]:
        """The deployment's replica sets, after adopting and releasing."""
        meta = deployment.metadata
        refuse_undecodable(self.sets, meta.uid or "")
        if key_of_object(deployment) in self._doubtful:
            for live_set in (await self.client[ReplicaSet].list(meta.namespace)).items:
                self.own.wrote(live_set)
            self._doubtful.discard(key_of_object(deployment))
        near = self.own.over(
            self.sets.by_index(BY_CONTROLLER, meta.uid or "") + self.sets.by_index(BY_CONTROLLER, orphans(meta.namespace)),
            lambda rs: by_controller(rs) == [meta.uid],
        )
        mine, adopt, release = claim(deployment, lambda rs: selector.matches(rs.metadata.labels), near)
        if adopt:
            live = await self.client[Deployment].get(meta.name or "", meta.namespace)
            if live.metadata.uid != meta.uid or live.metadata.deletion_timestamp is not None:
                adopt = []
        for rs in adopt:
            patch = adoption_patch(rs, reference(deployment, "apps/v1", "Deployment"))
            try:
                mine.append(await self.client[ReplicaSet].patch(rs.metadata.name or "", rs.metadata.namespace, patch))
            except NotFound:
                pass
        for rs in release:
            patch = release_patch(rs, meta.uid or "")
            try:
                await self.client[ReplicaSet].patch(rs.metadata.name or "", rs.metadata.namespace, patch)
            except (NotFound, Invalid):
                pass
        return mine

    def _old_pods_run(self, deployment: Deployment, replica_sets: list[ReplicaSet]) -> bool:
        """Pods of old sets that have not finished exist, those on their way out included."""
        new = revisions.find_new(deployment, replica_sets)
        return any(
            not is_terminal(pod)
            for rs in replica_sets
            if new is None or rs.metadata.uid != new.metadata.uid
            for pod in self.pods.by_index(BY_CONTROLLER, rs.metadata.uid or "")
        )

    async def _do(self, deployment: Deployment, rollout: Plan) -> float | None:
        sets = self.client[ReplicaSet]
        for action in rollout.actions:
            match action:
                case Create(replica_set):
                    if not await self._create(deployment, replica_set):
                        return None
                case Update(_, new):
                    self.own.wrote(await sets.update(new))
                case Delete(old):
                    try:
                        meta = old.metadata
                        await sets.delete(
                            meta.name or "", meta.namespace, uid=meta.uid, propagation_policy="Background"
                        )
                    except NotFound:
                        pass
                    self.own.deleted(old)
            for text in () if isinstance(action, Delete) else action.events:
                self.events.event(deployment, NORMAL, "ScalingReplicaSet", text)
        if rollout.revision is not None:
            patch = {"metadata": {"annotations": {sizes.REVISION: rollout.revision}}}
            meta = deployment.metadata
            deployment = await self.client[Deployment].patch(meta.name or "", meta.namespace, patch)
        if rollout.status != deployment.status:
            await self._write_status(deployment, rollout.status)
        return rollout.again

    async def _create(self, deployment: Deployment, replica_set: ReplicaSet) -> bool:
        """True if the set was made; False if there is nothing more to do in this reconcile."""
        try:
            self.own.wrote(await self.client[ReplicaSet].create(replica_set))
            return True
        except AlreadyExists:
            await self._collided(deployment, replica_set)
            return False
        except StatusError as error:
            if namespace_is_terminating(error):
                return False
            text = f'Failed to create new replica set "{replica_set.metadata.name}": {error}'
            if status.has_deadline(deployment):
                now = self.world.now()
                condition = status.make_condition(status.PROGRESSING, "False", status.CREATE_ERROR, text, now)
                conditions = status.put_condition(deployment.status.conditions, condition)
                if conditions != (deployment.status.conditions or []):
                    new = msgspec.structs.replace(deployment.status, conditions=conditions)
                    await self._write_status(deployment, new)
            self.events.event(deployment, WARNING, status.CREATE_ERROR, text)
            raise

    async def _collided(self, deployment: Deployment, replica_set: ReplicaSet) -> None:
        """A set of that name exists. If it is ours the cache is behind; else the next name is tried."""
        meta = replica_set.metadata
        live = await self.client[ReplicaSet].get(meta.name or "", meta.namespace)
        ref = controller_of(live.metadata)
        if (
            ref is not None
            and ref.uid == deployment.metadata.uid
            and revisions.same_template(live.spec.template, deployment.spec.template)
        ):
            if self.sets.get_key(key_of_object(live)) is not None:
                raise Conflict(f"replica set {meta.name} changed meanwhile")
            return
        count = (deployment.status.collision_count or 0) + 1
        self.log.info("%s: hash collision, trying count %d", key_of_object(deployment), count)
        await self._write_status(deployment, msgspec.structs.replace(deployment.status, collision_count=count))

    async def _write_status(self, deployment: Deployment, new: apps_v1.DeploymentStatus) -> None:
        await self.client[Deployment].update_status(msgspec.structs.replace(deployment, status=new))


def _selects(deployment: Deployment, replica_set: ReplicaSet) -> bool:
    try:
        return selectors.from_struct(deployment.spec.selector).matches(replica_set.metadata.labels)
    except ValueError:
        return False  # its own reconcile says what is wrong with its selector
