"""The replica set controller: makes, adopts, releases and deletes pods until as many run as are wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from controllers.controller import (
    BY_CONTROLLER,
    Context,
    Controller,
    by_controller,
    namespace_is_terminating,
    orphans,
    patience,
)
from controllers.controller import key as key_of_object
from controllers.expectations import Expectations
from controllers.ownership import adoption_patch, claim, reference, release_patch
from controllers.replicaset import plan as planning
from navarch.api import selectors
from navarch.api.errors import Conflict, Invalid, NotFound, StatusError
from navarch.api.pods import controller_of, is_active
from navarch.api.types import apps_v1, core_v1, meta_v1
from navarch.client.events import NORMAL, WARNING
from navarch.client.transport import TransportError

Pod = core_v1.Pod
ReplicaSet = apps_v1.ReplicaSet

UNSETTLED = 6.0
"""Seconds after which we look whether what was expected has come."""
AT_ONCE = 32
"""Requests in flight for one replica set."""


class ReplicaSetController(Controller):
    name = "replicaset-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.expectations = Expectations(self.world)
        self.events = context.recorder(self.name)
        self.sets = self.informer(ReplicaSet, {BY_CONTROLLER: by_controller})
        self.pods = self.informer(Pod, {BY_CONTROLLER: by_controller})
        self.sets.add_handler(self._set_changed)
        self.pods.add_handler(self._pod_changed)

    # Events

    def _set_changed(self, kind: str, old: ReplicaSet | None, new: ReplicaSet) -> None:
        if kind == "DELETED":
            self.expectations.forget(key_of_object(new))
        self.enqueue(new)

    def _pod_changed(self, kind: str, old: Pod | None, new: Pod) -> None:
        ref = controller_of(new.metadata)
        before = controller_of(old.metadata) if old is not None else None
        if before is not None and (ref is None or before.uid != ref.uid) and (owner := self._owner(old, before)):
            self.enqueue(owner)
        if ref is not None:
            if (owner := self._owner(new, ref)) is not None:
                key = key_of_object(owner)
                if kind == "ADDED":
                    self.expectations.created(key)
                if kind == "DELETED" or new.metadata.deletion_timestamp is not None:
                    self.expectations.deleted(key, new.metadata.uid or "")
                    self.queue.add(key)  # it may have to be replaced
                else:
                    self.queue.add_after(key, patience(planning.wanted(owner)))
            return
        changed = old is None or before is not None or old.metadata.labels != new.metadata.labels
        if kind != "DELETED" and changed and new.metadata.deletion_timestamp is None:
            for found in self.sets.list(new.metadata.namespace):  # an orphan: who would adopt it?
                if selectors.from_struct(found.spec.selector).matches(new.metadata.labels):
                    self.enqueue(found)

    def _owner(self, pod: Pod | None, ref: meta_v1.OwnerReference) -> ReplicaSet | None:
        if pod is None or ref.kind != "ReplicaSet":
            return None
        found = self.sets.get(pod.metadata.namespace, ref.name)
        return found if found is not None and found.metadata.uid == ref.uid else None

    # Work

    async def reconcile(self, key: str) -> float | None:
        replica_set = self.sets.get_key(key)
        if replica_set is None:
            self.expectations.forget(key)
            return None
        # Asked before the pods are read: an expectation that is met afterwards is not in what we read.
        settled = self.expectations.satisfied(key)
        pods = await self._claim(replica_set)
        error: Exception | None = None
        if settled and replica_set.metadata.deletion_timestamp is None:
            error = await self._manage(key, replica_set, pods)
        status, again = planning.report(replica_set, pods, error, self.world.now())
        if status != replica_set.status:
            await self.client[ReplicaSet].update_status(msgspec.structs.replace(replica_set, status=status))
        if error is not None:
            raise error
        if not settled:  # an event may have been lost
            return min(again or UNSETTLED, UNSETTLED)
        return again

    async def _claim(self, replica_set: ReplicaSet) -> list[Pod]:
        """The active pods of the set, after adopting and releasing."""
        meta = replica_set.metadata
        selector = selectors.from_struct(replica_set.spec.selector)
        near = self.pods.by_index(BY_CONTROLLER, meta.uid or "") + self.pods.by_index(
            BY_CONTROLLER, orphans(meta.namespace)
        )
        mine, adopt, release = claim(
            replica_set, lambda pod: selector.matches(pod.metadata.labels), filter(is_active, near)
        )
        if adopt:
            live = await self.client[ReplicaSet].get(meta.name or "", meta.namespace)
            if live.metadata.uid != meta.uid or live.metadata.deletion_timestamp is not None:
                adopt = []
        for pod in adopt:
            patch = adoption_patch(pod, reference(replica_set, "apps/v1", "ReplicaSet"))
            try:
                mine.append(await self.client[Pod].patch(pod.metadata.name or "", pod.metadata.namespace, patch))
            except NotFound:
                pass
        for pod in release:
            patch = release_patch(pod, meta.uid or "")
            try:
                await self.client[Pod].patch(pod.metadata.name or "", pod.metadata.namespace, patch)
            except (NotFound, Invalid):
                pass
        return mine

    async def _manage(self, key: str, replica_set: ReplicaSet, pods: Sequence[Pod]) -> Exception | None:
        """Makes or deletes pods; returns the first thing that went wrong."""
        plan = planning.plan(replica_set, pods, self._related(replica_set), self.world.now())
        if plan.create:
            return await self._create(key, replica_set, plan.create)
        if plan.delete:
            self.expectations.expect_deletions(key, [pod.metadata.uid or "" for pod in plan.delete])
            errors = await self._in_parallel(
                [lambda pod=pod: self._delete(key, replica_set, pod) for pod in plan.delete]  # type: ignore[misc]
            )
            return next(iter(errors), None)
        return None

    def _related(self, replica_set: ReplicaSet) -> list[Pod]:
        """Pods of all replica sets that have the same controller."""
        ref = controller_of(replica_set.metadata)
        family = self.sets.by_index(BY_CONTROLLER, ref.uid) if ref is not None else [replica_set]
        return [pod for rs in family for pod in self.pods.by_index(BY_CONTROLLER, rs.metadata.uid or "")]

    async def _create(self, key: str, replica_set: ReplicaSet, count: int) -> Exception | None:
        """In batches that double: if the first pod is refused, not hundreds of requests are."""
        self.expectations.expect_creations(key, count)
        pod = planning.new_pod(replica_set)
        batch = 1
        while count > 0:
            size = min(batch, count)
            errors = await self._in_parallel([lambda: self._create_one(key, replica_set, pod)] * size)
            count -= size
            if errors:
                for _ in range(count):
                    self.expectations.created(key)
                return errors[0]
            batch *= 2
        return None

    async def _create_one(self, key: str, replica_set: ReplicaSet, pod: Pod) -> None:
        try:
            made = await self.client[Pod].create(pod)
        except TransportError:
            self.expectations.doubted(key)
            raise
        except StatusError as error:
            self.expectations.created(key)
            if namespace_is_terminating(error):
                return
            self.events.event(replica_set, WARNING, "FailedCreate", f"Error creating: {error}")
            raise
        self.events.event(replica_set, NORMAL, "SuccessfulCreate", f"Created pod: {made.metadata.name}")

    async def _delete(self, key: str, replica_set: ReplicaSet, pod: Pod) -> None:
        name, uid = pod.metadata.name or "", pod.metadata.uid or ""
        try:
            await self.client[Pod].delete(name, pod.metadata.namespace, uid=uid)
        except (NotFound, Conflict):  # gone, or another pod by now
            self.expectations.deleted(key, uid)
        except (StatusError, TransportError) as error:
            self.expectations.deleted(key, uid)
            self.events.event(replica_set, WARNING, "FailedDelete", f"Error deleting: {error}")
            raise
        else:
            self.events.event(replica_set, NORMAL, "SuccessfulDelete", f"Deleted pod: {name}")

    async def _in_parallel(self, calls: Sequence[Callable[[], Awaitable[None]]]) -> list[Exception]:
        """Runs all of them, some at a time; what failed, in the order of ``calls``."""
        limit = asyncio.Semaphore(AT_ONCE)
        errors: dict[int, Exception] = {}

        async def one(number: int, call: Callable[[], Awaitable[None]]) -> None:
            async with limit:
                try:
                    await call()
                except (StatusError, TransportError) as error:
                    errors[number] = error

        async with self.world.task_group() as group:
            for number, call in enumerate(calls):
                group.start(one(number, call))
        return [errors[n] for n in sorted(errors)]
