"""CronJobs on virtual time: hours pass in a moment."""

from __future__ import annotations

from typing import Any

import pytest

from controllers.cronjob import due
from navarch.api import cron
from navarch.api.errors import NotFound
from navarch.api.times import parse_time
from navarch.api.types import batch_v1, core_v1, meta_v1
from tests.controllers.cluster import Cluster, run_cluster
from tests.controllers.test_jobs import end, make

CronJob = batch_v1.CronJob
Job = batch_v1.Job


def test_due() -> None:
    import datetime

    hourly, zone = cron.parse("@hourly"), datetime.UTC
    assert due(hourly, zone, 0, 100) == (None, 0, 3600)
    assert due(hourly, zone, 0, 3600 * 3 + 5) == (3600 * 3, 3, 3600 * 4)
    assert due(hourly, zone, 0, 3600 * 1000 + 5) == (3600 * 1000, 101, 3600 * 1001)


def make_cron(**spec: Any) -> CronJob:
    template = batch_v1.JobTemplateSpec(spec=make().spec)
    spec = {"schedule": "*/10 * * * *", "job_template": template} | spec
    return CronJob(metadata=meta_v1.ObjectMeta(name="c", namespace="default"), spec=batch_v1.CronJobSpec(**spec))


async def jobs(cluster: Cluster, count: int) -> list[Job]:
    async def found() -> list[Job] | None:
        listed = (await cluster.client[Job].list("default")).items
        return listed if len(listed) == count else None

    return await cluster.until(found, 3600)


def test_jobs_are_made_by_the_clock() -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.client[CronJob].create(make_cron(successful_jobs_history_limit=1, concurrency_policy="Forbid"))
        (first,) = await jobs(cluster, 1)
        assert first.metadata.name == f"c-{int(parse_time('2026-01-01T00:10:00Z')) // 60}"
        await cluster.world.sleep(1500)  # the first still runs: no other may
        await jobs(cluster, 1)
        assert "JobAlreadyActive" in {e.reason for e in (await cluster.client[core_v1.Event].list()).items}
        seen = [first.metadata.name]
        for _ in range(2):
            (pod,) = [p for p in await cluster.pods() if p.status.phase == "Running"]
            await end(cluster, pod, "Succeeded")

            async def another() -> bool:
                listed = (await cluster.client[Job].list("default")).items
                new = [j.metadata.name for j in listed if j.metadata.name not in seen]
                running = [p for p in await cluster.pods() if p.status.phase == "Running"]
                if new and running:
                    seen.append(new[0])
                return bool(new and running)

            await cluster.until(another, 3600)
        left = [j.metadata.name for j in await jobs(cluster, 2)]
        assert seen[0] not in left  # the history keeps one that succeeded
        status = (await cluster.client[CronJob].get("c", "default")).status
        assert [r.name for r in status.active or ()] == [seen[-1]] and status.last_successful_time

    run_cluster(test)


def test_replace_and_suspend() -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.client[CronJob].create(make_cron(concurrency_policy="Replace"))
        (first,) = await jobs(cluster, 1)

        async def replaced() -> bool:
            try:
                await cluster.client[Job].get(first.metadata.name or "", "default")
            except NotFound:
                return True
            return False

        await cluster.until(replaced, 3600)
        await cluster.client[CronJob].patch("c", "default", {"spec": {"suspend": True}})
        before = [j.metadata.name for j in await jobs(cluster, 1)]
        await cluster.world.sleep(3000)
        assert [j.metadata.name for j in await jobs(cluster, 1)] == before

    run_cluster(test)


async def test_a_bad_zone_is_refused(cluster: Cluster) -> None:
    from navarch.api.errors import Invalid

    with pytest.raises(Invalid, match="unknown time zone Nowhere/At_All"):
        await cluster.client[CronJob].create(make_cron(time_zone="Nowhere/At_All"))
