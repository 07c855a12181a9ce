"""CronJobs: Jobs made by the clock."""

from __future__ import annotations

import zoneinfo
from typing import Any

from apiserver.kinds.apps.workloads import WIDE, wide_cells
from apiserver.kinds.batch.jobs import default_job_template, validate_job_spec
from apiserver.kinds.cells import age_cell, at, fill, kind, name_cell, spec_of, status_of
from apiserver.kinds.checks import non_negative, one_of
from apiserver.kinds.core.pods.warnings import template_warnings
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import cron
from navarch.api.durations import age
from navarch.api.errors import Cause, invalid, not_supported, required

CONCURRENCY = ("Allow", "Forbid", "Replace")
MAX_NAME = 52  # the Jobs' names get 11 characters more


class CronJobStrategy(Strategy):
    kind = kind("batch/v1", "CronJob")
    has_status = True
    columns = (
        NAME_COLUMN, Column("Schedule"), Column("Timezone"), Column("Suspend", "boolean"), Column("Active", "integer"),
        Column("Last Schedule"), AGE_COLUMN, *WIDE,
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("concurrencyPolicy"):
            spec["concurrencyPolicy"] = "Allow"
        fill(spec, suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1)
        job = at(spec, "jobTemplate", "spec")
        if job is not None:
            default_job_template(job)

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = {}

    def name_causes(self, name: str, prefix: bool) -> list[str]:
        out = super().name_causes(name, prefix)
        return [*out, "must be no more than 52 characters"] if len(name) > MAX_NAME and not prefix else out

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        path = ("jobTemplate", "spec", "template")
        was = at(spec_of(old), *path) or {} if old is not None else None
        return template_warnings(at(spec_of(obj), *path), was, "spec.jobTemplate.spec.template")

    def validate(self, obj: Tree) -> list[Cause]:
        spec, out = spec_of(obj), []
        schedule, zone = spec.get("schedule") or "", spec.get("timeZone")
        if not schedule:
            out.append(required("spec.schedule"))
        elif "TZ" in schedule:
            text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            out.append(invalid("spec.schedule", schedule, text))
        else:
            try:
                cron.parse(schedule)
            except cron.CronError as error:
                out.append(invalid("spec.schedule", schedule, str(error)))
        out += non_negative(spec.get("startingDeadlineSeconds"), "spec.startingDeadlineSeconds")
        out += one_of(spec.get("concurrencyPolicy"), "spec.concurrencyPolicy", CONCURRENCY)
        if zone is not None:
            out += time_zone(zone, "spec.timeZone")
        for field in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
            out += non_negative(spec.get(field), f"spec.{field}")
        return out + _template(at(spec, "jobTemplate", "spec") or {}, "spec.jobTemplate.spec")

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec, status = spec_of(obj), status_of(obj)
        last, suspend = status.get("lastScheduleTime"), spec.get("suspend")
        suspended = "<unset>" if suspend is None else "True" if suspend else "False"
        return [
            name_cell(obj), spec.get("schedule") or "", spec.get("timeZone") or "<none>", suspended,
            len(status.get("active") or ()), age(last, now) if last else "<none>", age_cell(obj, now),
            *wide_cells(at(spec, "jobTemplate", "spec") or {}),
        ]  # fmt: skip


def time_zone(zone: str, path: str) -> list[Cause]:
    """A name out of the tz database."""
    if not zone:
        return [invalid(path, zone, "timeZone must be nil or non-empty string")]
    if zone.lower() == "local":
        text = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        return [invalid(path, zone, text)]
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return [invalid(path, zone, f"unknown time zone {zone}")]
    return []


def _template(job: Tree, path: str) -> list[Cause]:
    out = validate_job_spec(job, path)
    if job.get("selector") is not None:
        out.append(invalid(f"{path}.selector", job["selector"], "`selector` will be auto-generated"))
    if job.get("manualSelector"):
        out.append(not_supported(f"{path}.manualSelector", True, ("false", "nil")))
    return out


