"""The CronJob controller: makes Jobs when the clock says so, and keeps a few of those that ended."""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

import msgspec

from controllers.controller import BY_CONTROLLER, Context, Controller, by_controller, refuse_undecodable
from controllers.controller import key as key_of_object
from controllers.ownership import reference
from navarch.api import cron
from navarch.api.conditions import is_true
from navarch.api.errors import AlreadyExists, NotFound
from navarch.api.pods import controller_of
from navarch.api.times import format_time, parse_time
from navarch.api.types import batch_v1, core_v1, meta_v1
from navarch.client.events import NORMAL, WARNING

Job = batch_v1.Job
CronJob = batch_v1.CronJob
SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
MANY = 100
"""More missed times than this are told of."""
LATE = 0.1
"""We wake up a little after the time, never before."""


class Due(NamedTuple):
    """The last time that has come and not been used (None: none has), how many have, and when the next comes."""

    at: float | None
    missed: int
    next: float | None


def due(schedule: cron.Schedule, zone: tzinfo, since: float, now: float) -> Due:
    """``since``: the last time that was used, or the birth of the CronJob."""
    at, missed, following = None, 0, schedule.next(since, zone)
    while following is not None and following <= now:
        at, missed = following, missed + 1
        if missed > MANY:  # far behind: only the last of them counts, so get near it in one step
            span = max(60.0, (following - since) / missed)
            nearer = schedule.next(max(following, now - 2 * span - 86400), zone)
            while nearer is not None and nearer <= now:
                at, nearer = nearer, schedule.next(nearer, zone)
            return Due(at, missed, nearer)
        following = schedule.next(following, zone)
    return Due(at, missed, following)


def zone_of(cronjob: CronJob) -> tzinfo:
    return zoneinfo.ZoneInfo(cronjob.spec.time_zone) if cronjob.spec.time_zone else UTC


def ended(job: Job) -> str:
    """Complete, Failed, or "" while the Job goes on."""
    return next((t for t in ("Complete", "Failed") if is_true(job.status.conditions, t)), "")


def new_job(cronjob: CronJob, at: float) -> Job:
    """The Job of one time; its name says which, so that there is never a second."""
    template = cronjob.spec.job_template
    stamp = datetime.fromtimestamp(at, zone_of(cronjob)).isoformat().replace("+00:00", "Z")
    return Job(
        metadata=meta_v1.ObjectMeta(
            name=f"{cronjob.metadata.name}-{int(at) // 60}",
            namespace=cronjob.metadata.namespace,
            labels=template.metadata.labels,
            annotations={**(template.metadata.annotations or {}), SCHEDULED_AT: stamp},
            owner_references=[reference(cronjob, "batch/v1", "CronJob")],
        ),
        spec=template.spec,
    )


def superfluous(cronjob: CronJob, jobs: Sequence[Job]) -> list[Job]:
    """Ended Jobs beyond the limits of the history, the oldest first."""
    out: list[Job] = []
    spec = cronjob.spec
    for type_, limit in (("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)):
        if limit is not None:
            jobs_of_type = sorted((j for j in jobs if ended(j) == type_), key=_age)
            out += jobs_of_type[: max(0, len(jobs_of_type) - limit)]
    return out


def _age(job: Job) -> tuple[str, str]:
    return job.status.start_time or "", job.metadata.name or ""


class CronJobController(Controller):
    name = "cronjob-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.events = context.recorder(self.name)
        self.cronjobs = self.informer(CronJob)
        self.jobs = self.informer(Job, {BY_CONTROLLER: by_controller})
        self.enqueues(self.cronjobs)
        self.jobs.add_handler(self._job_changed)

    def _job_changed(self, kind: str, old: Job | None, new: Job) -> None:
        ref = controller_of(new.metadata)
        if ref is not None and ref.kind == "CronJob":
            cronjob = self.cronjobs.get(new.metadata.namespace, ref.name)
            if cronjob is not None and cronjob.metadata.uid == ref.uid:
                self.queue.add(key_of_object(cronjob))

    async def reconcile(self, key: str) -> float | None:
        cronjob = self.cronjobs.get_key(key)
        if cronjob is None or cronjob.metadata.deletion_timestamp is not None:
            return None
        status = await self._settled(cronjob)
        again: float | None = None
        try:
            schedule, zone = cron.parse(cronjob.spec.schedule), zone_of(cronjob)
        except (cron.CronError, zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
            self.events.event(cronjob, WARNING, "UnparseableSchedule", f"unparseable schedule: {error}")
        else:
            if not cronjob.spec.suspend:
                status, again = await self._start(cronjob, status, schedule, zone)
        if status != cronjob.status:
            await self.client[CronJob].update_status(msgspec.structs.replace(cronjob, status=status))
        return again

    async def _settled(self, cronjob: CronJob) -> batch_v1.CronJobStatus:
        """The status without the Jobs that have ended or gone; deletes what the history need not keep."""
        refuse_undecodable(self.jobs, cronjob.metadata.uid or "")
        jobs = self.jobs.by_index(BY_CONTROLLER, cronjob.metadata.uid or "")
        by_uid = {job.metadata.uid: job for job in jobs}
        active: list[core_v1.ObjectReference] = []
        successful = cronjob.status.last_successful_time
        for ref in cronjob.status.active or ():
            job = by_uid.get(ref.uid)
            if job is None:
                try:
                    live = await self.client[Job].get(ref.name or "", cronjob.metadata.namespace)
                    job = live if live.metadata.uid == ref.uid else None
                except NotFound:
                    pass
            if job is None:
                self.events.event(cronjob, NORMAL, "MissingJob", f"Active job went missing: {ref.name}")
            elif how := ended(job):
                text = f"Saw completed job: {ref.name}, condition: {how}"
                self.events.event(cronjob, NORMAL, "SawCompletedJob", text)
                if how == "Complete":
                    successful = max(successful or "", job.status.completion_time or "") or None
            else:
                active.append(ref)
        active_uids = [ref.uid for ref in active]
        for job in sorted(jobs, key=_age):
            if not ended(job) and job.metadata.uid not in active_uids and job.metadata.deletion_timestamp is None:
                active.append(_reference(job))
        for job in superfluous(cronjob, jobs):
            if job.metadata.deletion_timestamp is None:
                await self._delete(cronjob, job)
        return msgspec.structs.replace(cronjob.status, active=active or None, last_successful_time=successful)

    async def _start(
        self, cronjob: CronJob, status: batch_v1.CronJobStatus, schedule: cron.Schedule, zone: tzinfo
    ) -> tuple[batch_v1.CronJobStatus, float | None]:
        """Makes the Job that is due, if any; the seconds until the next one is."""
        now = self.world.now()
        since = parse_time(status.last_schedule_time or cronjob.metadata.creation_timestamp or format_time(now))
        deadline = cronjob.spec.starting_deadline_seconds
        if deadline is not None:
            since = max(since, now - deadline)
        schedule_times = due(schedule, zone, since, now)
        again = schedule_times.next - now + LATE if schedule_times.next is not None else None
        if schedule_times.missed > MANY:
            text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            self.events.event(cronjob, WARNING, "TooManyMissedTimes", text)
        if schedule_times.at is None:
            return status, again
        active = list(status.active or ())
        job = new_job(cronjob, schedule_times.at)
        if any(ref.name == job.metadata.name for ref in active):
            return msgspec.structs.replace(status, last_schedule_time=format_time(schedule_times.at)), again
        if cronjob.spec.concurrency_policy == "Forbid" and active:
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self.events.event(cronjob, NORMAL, "JobAlreadyActive", text)
            return status, again
        if cronjob.spec.concurrency_policy == "Replace":
            for ref in active:
                old = self.jobs.get(cronjob.metadata.namespace, ref.name or "")
                if old is not None:
                    await self._delete(cronjob, old)
            active = []
        try:
            running = await self.client[Job].create(job)
        except AlreadyExists:
            # Ours, from before a crash, or somebody else's: only ours is active.
            running = await self.client[Job].get(job.metadata.name or "", cronjob.metadata.namespace)
            ref_ = controller_of(running.metadata)
            if ref_ is None or ref_.uid != cronjob.metadata.uid or ended(running):
                return msgspec.structs.replace(status, last_schedule_time=format_time(schedule_times.at)), again
        else:
            self.events.event(cronjob, NORMAL, "SuccessfulCreate", f"Created job {running.metadata.name}")
        active.append(_reference(running))
        return msgspec.structs.replace(status, active=active, last_schedule_time=format_time(schedule_times.at)), again

    async def _delete(self, cronjob: CronJob, job: Job) -> None:
        try:
            await self.client[Job].delete(
                job.metadata.name or "", job.metadata.namespace, propagation_policy="Background", uid=job.metadata.uid
            )
        except NotFound:
            return
        self.events.event(cronjob, NORMAL, "SuccessfulDelete", f"Deleted job {job.metadata.name}")


def _reference(job: Job) -> core_v1.ObjectReference:
    meta = job.metadata
    return core_v1.ObjectReference(
        api_version="batch/v1", kind="Job", name=meta.name, namespace=meta.namespace, uid=meta.uid,
        resource_version=meta.resource_version,
    )  # fmt: skip
