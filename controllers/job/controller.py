"""The Job controller, and the one that deletes Jobs some time after they ended."""

from __future__ import annotations

import msgspec

from controllers.controller import Context, Controller
from controllers.controller import key as key_of_object
from controllers.job import indexes
from controllers.job import plan as planning
from controllers.job.tracking import FINALIZER, is_tracked, track
from controllers.podowner import UNSETTLED, Pod, PodOwner
from navarch.api.conditions import get_condition, is_true
from navarch.api.errors import NotFound
from navarch.api.pods import controller_of, is_terminal
from navarch.api.times import parse_time
from navarch.api.types import batch_v1
from navarch.client.events import NORMAL, WARNING
from navarch.client.informer import key_of
from navarch.client.watch import DELETED

Job = batch_v1.Job
ORPHAN = "#orphan "
"""Before the key of a pod: to be looked at because no Job has it."""
MANAGER = "kubernetes.io/job-controller"


class JobController(PodOwner):
    name = "job-controller"
    struct = Job
    api_version = "batch/v1"
    kind = "Job"
    finalizers = (FINALIZER,)

    def _pod_changed(self, kind: str, old: Pod | None, new: Pod) -> None:
        super()._pod_changed(kind, old, new)
        ref = controller_of(new.metadata)
        if kind != DELETED and is_tracked(new) and (ref is None or self._owner(new, ref) is None):
            self.queue.add(ORPHAN + key_of_object(new))

    async def reconcile(self, key: str) -> float | None:
        if key.startswith(ORPHAN):
            await self._let_go(key.removeprefix(ORPHAN))
            return None
        job: Job | None = self.owners.get_key(key)
        if job is None:
            self.expectations.forget(key)
            await self._orphaned(key)
            return None
        if job.spec.managed_by not in (None, MANAGER):
            return None
        settled = self.expectations.satisfied(key)
        pods = await self.claim(job, keep=lambda pod: not is_terminal(pod))
        if planning.is_finished(job) or job.metadata.deletion_timestamp is not None:
            await self._untrack([pod for pod in pods if is_tracked(pod)])
            return None
        now = self.world.now()
        ignored = [p.metadata.uid or "" for p in pods if planning.policy_action(job, p)[0] == "Ignore"]
        tracked = track(job, pods, ignored)
        given_up = indexes.failed_indexes(job, pods, tracked.indexes, lambda p: planning.policy_action(job, p)[0])
        tracked = tracked._replace(failed_indexes=given_up)
        end = planning.verdict(job, pods, tracked, now)
        error: Exception | None = None
        again: float | None = None
        if settled:
            todo = planning.plan(job, pods, tracked, end is not None, now)
            again = todo.again
            if todo.delete:
                error = await self.delete_pods(key, job, todo.delete)
            elif todo.create and job.status.start_time:
                owner = self.reference(job)
                error = await self.create_pods(key, job, [planning.new_pod(job, owner, new) for new in todo.create])
        status = planning.report(job, pods, tracked, end, now)
        if status != job.status:
            await self.client[Job].update_status(msgspec.structs.replace(job, status=status))
            self._tell(job, status)
        # Only what is written down as counted may go.
        counted = [*tracked.new_succeeded, *tracked.new_failed, *ignored]
        replaceable = [] if end is not None else indexes.uids_to_hold(job, pods, [*tracked.indexes, *given_up])
        done = [
            p
            for p in pods
            if is_tracked(p)
            and p.metadata.uid not in replaceable
            and (p.metadata.uid in counted or p.status.phase == "Succeeded")
        ]
        await self._untrack(done)
        if error is not None:
            raise error
        return again if settled else min(again or UNSETTLED, UNSETTLED)

    async def _orphaned(self, key: str) -> None:
        """A Job that is gone counts no more: its pods may go too."""
        namespace = key.partition("/")[0]
        pods = [pod for pod in self.pods.list(namespace) if is_tracked(pod)]
        refs = [(pod, ref) for pod in pods if (ref := controller_of(pod.metadata)) is not None]
        await self._untrack([pod for pod, ref in refs if ref.kind == "Job" and f"{namespace}/{ref.name}" == key])

    async def _let_go(self, key: str) -> None:
        """A pod that no Job has (any more) would wait for ever to be counted."""
        pod = self.pods.get_key(key)
        if pod is None or not is_tracked(pod):
            return
        ref = controller_of(pod.metadata)
        owner = key_of(pod.metadata.namespace, ref.name) if ref is not None else ""
        if ref is not None and (self._owner(pod, ref) is not None or owner in self.owners.undecodable):
            return
        await self._untrack([pod])

    async def _untrack(self, pods: list[Pod]) -> None:
        async def one(pod: Pod) -> None:
            finalizers = [f for f in pod.metadata.finalizers or () if f != FINALIZER]
            patch = {"metadata": {"resourceVersion": pod.metadata.resource_version, "finalizers": finalizers or None}}
            try:
                await self.client[Pod].patch(pod.metadata.name or "", pod.metadata.namespace, patch)
            except NotFound:
                return

        errors = await self.in_parallel([lambda pod=pod: one(pod) for pod in pods])  # type: ignore[misc]
        if errors:
            raise errors[0]

    def _tell(self, job: Job, status: batch_v1.JobStatus) -> None:
        before, after = job.status.conditions, status.conditions
        if is_true(after, "Complete") and not is_true(before, "Complete"):
            self.events.event(job, NORMAL, "Completed", "Job completed")
        failed = get_condition(after, "FailureTarget")
        if failed is not None and not is_true(before, "FailureTarget"):
            self.events.event(job, WARNING, failed.reason or "", failed.message or "")
        if is_true(after, "Suspended") and not is_true(before, "Suspended"):
            self.events.event(job, NORMAL, "Suspended", "Job suspended")
        if is_true(before, "Suspended") and not is_true(after, "Suspended"):
            self.events.event(job, NORMAL, "Resumed", "Job resumed")


class TTLAfterFinishedController(Controller):
    """Deletes a Job ttlSecondsAfterFinished seconds after it ended."""

    name = "ttl-after-finished-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.jobs = self.informer(Job)
        self.enqueues(self.jobs, lambda job: job.spec.ttl_seconds_after_finished is not None)

    async def reconcile(self, key: str) -> float | None:
        job = self.jobs.get_key(key)
        if job is None or job.metadata.deletion_timestamp is not None:
            return None
        seconds = job.spec.ttl_seconds_after_finished
        ended = [
            parse_time(c.last_transition_time)
            for c in job.status.conditions or ()
            if c.type in ("Complete", "Failed") and c.status == "True" and c.last_transition_time
        ]
        if seconds is None or not ended:
            return None
        remaining = min(ended) + seconds - self.world.now()
        if remaining > 0:
            return remaining
        try:
            await self.client[Job].delete(
                job.metadata.name or "", job.metadata.namespace, propagation_policy="Foreground", uid=job.metadata.uid,
                resource_version=job.metadata.resource_version,
            )  # fmt: skip
        except NotFound:
            pass
        return None
