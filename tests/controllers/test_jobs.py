"""Jobs: counting, ending, retrying; on the real API server and on virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.job.indexes import succeeds_early
from controllers.job.tracking import FINALIZER, parse_indexes, write_indexes
from navarch.api.conditions import get_condition, is_true
from navarch.api.pods import is_terminal
from navarch.api.times import format_time
from navarch.api.types import batch_v1, core_v1, meta_v1
from tests.controllers.cluster import Cluster, run_cluster
from tests.controllers.test_integration import gone

Job = batch_v1.Job
Pod = core_v1.Pod


@given(st.lists(st.integers(0, 40), unique=True).map(sorted))
def test_indexes(indexes: list[int]) -> None:
    assert parse_indexes(write_indexes(indexes)) == indexes


@pytest.mark.parametrize(("indexes", "text"), [([], ""), ([1], "1"), ([1, 2], "1,2"), ([0, 2, 3, 4, 7], "0,2-4,7")])
def test_how_indexes_are_written(indexes: list[int], text: str) -> None:
    assert write_indexes(indexes) == text


def make(**spec: Any) -> Job:
    pod = core_v1.PodSpec(containers=[core_v1.Container(name="c", image="i")], restart_policy="Never")
    template = core_v1.PodTemplateSpec(spec=pod)
    return Job(metadata=meta_v1.ObjectMeta(name="j", namespace="default"), spec=batch_v1.JobSpec(template=template, **spec))


async def active(cluster: Cluster, count: int) -> list[Pod]:
    """That many pods at work, soon."""

    async def found() -> list[Pod] | None:
        pods = [p for p in await cluster.pods() if p.status.phase == "Running" and not is_terminal(p)]
        return pods if len(pods) == count else None

    return await cluster.until(found)


async def end(cluster: Cluster, pod: Pod, phase: str, code: int = 0) -> None:
    await cluster.world.sleep(1)  # ends are told apart by the second
    at = format_time(cluster.world.now())
    status = {"phase": phase, "containerStatuses": [{
        "name": "c", "image": "i", "imageID": "", "ready": False, "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "finishedAt": at}}}]}  # fmt: skip
    await cluster.client[Pod].patch_status(pod.metadata.name or "", "default", {"status": status})


async def finished(cluster: Cluster, type_: str) -> Job:
    async def found() -> Job | None:
        job = await cluster.client[Job].get("j", "default")
        return job if is_true(job.status.conditions, type_) else None

    return await cluster.until(found)


async def test_a_job_completes(cluster: Cluster) -> None:
    await cluster.client[Job].create(make(completions=3, parallelism=2, ttl_seconds_after_finished=60))
    pods = await active(cluster, 2)
    assert all(FINALIZER in (p.metadata.finalizers or ()) for p in pods)
    await end(cluster, pods[0], "Succeeded")
    for pod in await active(cluster, 2):
        await end(cluster, pod, "Succeeded")
    job = await finished(cluster, "Complete")
    assert (job.status.succeeded, job.status.active, job.status.failed) == (3, None, None)
    assert job.status.completion_time and is_true(job.status.conditions, "SuccessCriteriaMet")
    assert not any(FINALIZER in (p.metadata.finalizers or ()) for p in await cluster.pods())
    await cluster.until(lambda: gone(cluster, Job, "j"))  # its time to live is over


async def test_a_job_gives_up(cluster: Cluster) -> None:
    await cluster.client[Job].create(make(backoff_limit=1, parallelism=2, completions=2))
    for pod in await active(cluster, 2):
        await end(cluster, pod, "Failed", 1)
    job = await finished(cluster, "Failed")
    condition = get_condition(job.status.conditions, "Failed")
    assert condition is not None and condition.reason == "BackoffLimitExceeded" and job.status.failed == 2
    assert "Job has reached the specified backoff limit" in await cluster.events("BackoffLimitExceeded")


async def test_each_index_completes_once_and_failures_are_tried_again_later(cluster: Cluster) -> None:
    rules = [batch_v1.PodFailurePolicyRule(
        action="FailJob", on_exit_codes=batch_v1.PodFailurePolicyOnExitCodesRequirement(operator="In", values=[42])
    )]  # fmt: skip
    policy = batch_v1.PodFailurePolicy(rules=rules)
    await cluster.client[Job].create(
        make(completions=3, parallelism=3, completion_mode="Indexed", pod_failure_policy=policy)
    )
    first, second, third = sorted(await active(cluster, 3), key=lambda p: p.metadata.name or "")
    assert first.spec.hostname == "j-0" and first.spec.containers[0].env[0].name == "JOB_COMPLETION_INDEX"  # type: ignore[index]
    await end(cluster, first, "Succeeded")
    await end(cluster, third, "Succeeded")
    await end(cluster, second, "Failed", 1)
    before = cluster.world.monotonic()
    (again,) = await active(cluster, 1)
    assert (again.metadata.labels or {})["batch.kubernetes.io/job-completion-index"] == "1"
    assert cluster.world.monotonic() - before >= 5
    assert (await cluster.client[Job].get("j", "default")).status.completed_indexes == "0,2"
    await end(cluster, again, "Failed", 42)
    job = await finished(cluster, "Failed")
    condition = get_condition(job.status.conditions, "Failed")
    assert condition is not None and condition.reason == "PodFailurePolicy"


def test_suspended_and_resumed_and_out_of_time() -> None:
    async def test(cluster: Cluster) -> None:
        jobs = cluster.client[Job]
        await jobs.create(make(suspend=True, active_deadline_seconds=30))
        await finished(cluster, "Suspended")
        assert not await cluster.pods()
        await jobs.patch("j", "default", {"spec": {"suspend": False}})
        await active(cluster, 1)
        await jobs.patch("j", "default", {"spec": {"suspend": True}})

        async def empty() -> bool:
            return not await cluster.pods()

        await cluster.until(empty)
        await jobs.patch("j", "default", {"spec": {"suspend": False}})
        await active(cluster, 1)
        job = await finished(cluster, "Failed")
        condition = get_condition(job.status.conditions, "Failed")
        assert condition is not None and condition.reason == "DeadlineExceeded"
        await cluster.until(empty)

    run_cluster(test)


def by_index(pods: list[Pod]) -> dict[str, Pod]:
    return {(p.metadata.labels or {})["batch.kubernetes.io/job-completion-index"]: p for p in pods}


async def test_each_index_fails_by_itself(cluster: Cluster) -> None:
    spec: dict[str, Any] = {"completions": 3, "parallelism": 3, "completion_mode": "Indexed"}
    made = await cluster.client[Job].create(make(backoff_limit_per_index=1, **spec))
    assert made.spec.backoff_limit == 2**31 - 1
    pods = by_index(await active(cluster, 3))
    assert (pods["1"].metadata.annotations or {})["batch.kubernetes.io/job-index-failure-count"] == "0"
    await end(cluster, pods["0"], "Succeeded")
    await end(cluster, pods["1"], "Failed", 1)
    before = cluster.world.monotonic()
    pods = by_index(await active(cluster, 2))
    assert cluster.world.monotonic() - before >= 9  # ten seconds after the failure, to the second
    assert (pods["1"].metadata.annotations or {})["batch.kubernetes.io/job-index-failure-count"] == "1"
    await end(cluster, pods["1"], "Failed", 1)
    await end(cluster, pods["2"], "Succeeded")
    job = await finished(cluster, "Failed")
    condition = get_condition(job.status.conditions, "Failed")
    assert condition is not None and condition.reason == "FailedIndexes"
    assert (job.status.completed_indexes, job.status.failed_indexes) == ("0,2", "1")
    assert (job.status.succeeded, job.status.failed, job.status.active) == (2, 2, None)
    assert not any(FINALIZER in (p.metadata.finalizers or ()) for p in await cluster.pods())


def test_the_count_of_an_index_outlives_its_pods() -> None:
    async def test(cluster: Cluster) -> None:
        spec: dict[str, Any] = {"completions": 2, "parallelism": 2, "completion_mode": "Indexed"}
        await cluster.client[Job].create(make(backoff_limit_per_index=1, **spec))
        pods = by_index(await active(cluster, 2))
        await end(cluster, pods["0"], "Failed", 1)
        # Deleted before there is a next one: it stays until its count has been taken on.
        await cluster.client[Pod].delete(pods["0"].metadata.name or "", "default", grace_period_seconds=0)
        again = by_index(await active(cluster, 2))["0"]
        assert (again.metadata.annotations or {})["batch.kubernetes.io/job-index-failure-count"] == "1"

        async def gone_too() -> bool:
            return all(p.metadata.uid != pods["0"].metadata.uid for p in await cluster.pods())

        await cluster.until(gone_too)

    run_cluster(test)


def test_too_many_indexes_fail_and_a_rule_fails_one_at_once() -> None:
    async def test(cluster: Cluster) -> None:
        codes = batch_v1.PodFailurePolicyOnExitCodesRequirement(operator="In", values=[42])
        rules = [batch_v1.PodFailurePolicyRule(action="FailIndex", on_exit_codes=codes)]
        spec: dict[str, Any] = {"completions": 3, "parallelism": 3, "completion_mode": "Indexed"}
        policy = batch_v1.PodFailurePolicy(rules=rules)
        await cluster.client[Job].create(
            make(backoff_limit_per_index=5, max_failed_indexes=1, pod_failure_policy=policy, **spec)
        )
        pods = by_index(await active(cluster, 3))
        await end(cluster, pods["0"], "Failed", 42)

        async def given_up() -> bool:
            return (await cluster.client[Job].get("j", "default")).status.failed_indexes == "0"

        await cluster.until(given_up)
        await end(cluster, pods["2"], "Failed", 42)
        await finished(cluster, "FailureTarget")
        await end(cluster, pods["1"], "Failed", 143)  # it was asked to go; with a failure policy its end is waited for
        job = await finished(cluster, "Failed")
        condition = get_condition(job.status.conditions, "Failed")
        assert condition is not None and condition.reason == "MaxFailedIndexesExceeded"
        assert job.status.failed_indexes == "0,2" and not job.status.active

    run_cluster(test)


async def test_a_job_succeeds_early(cluster: Cluster) -> None:
    rules = [
        batch_v1.SuccessPolicyRule(succeeded_indexes="0", succeeded_count=1),
        batch_v1.SuccessPolicyRule(succeeded_count=3),
    ]
    spec: dict[str, Any] = {"completions": 4, "parallelism": 4, "completion_mode": "Indexed"}
    await cluster.client[Job].create(make(success_policy=batch_v1.SuccessPolicy(rules=rules), **spec))
    pods = by_index(await active(cluster, 4))
    await end(cluster, pods["3"], "Succeeded")
    await end(cluster, pods["0"], "Succeeded")
    job = await finished(cluster, "Complete")
    condition = get_condition(job.status.conditions, "Complete")
    assert condition is not None and (condition.reason, condition.message) == (
        "SuccessPolicy",
        "Matched rules at index 0",
    )
    assert job.status.completed_indexes == "0,3" and job.status.succeeded == 2


done = st.lists(st.integers(0, 9), unique=True).map(sorted)


@given(done, st.one_of(st.none(), done), st.one_of(st.none(), st.integers(0, 10)))
def test_success_policy(succeeded: list[int], named: list[int] | None, count: int | None) -> None:
    """Against the words of the API: without a count all named indexes, without indexes any that many."""
    text = None if named is None else write_indexes(named)
    rule = batch_v1.SuccessPolicyRule(succeeded_indexes=text, succeeded_count=count)
    job = make(completions=10, completion_mode="Indexed", success_policy=batch_v1.SuccessPolicy(rules=[rule]))
    good = set(succeeded) if named is None else set(succeeded) & set(named)
    expected = named is not None and good == set(named) if count is None else len(good) >= count
    assert succeeds_early(job, succeeded) == (0 if expected else None)


@pytest.mark.parametrize("how", ["labels", "owner", "orphan", "job is gone"])
def test_a_pod_that_no_job_has_any_more_can_go(how: str) -> None:
    """Released, cut loose by hand, orphaned, or left over: it loses the finalizer that only a Job would take away."""

    async def test(cluster: Cluster) -> None:
        await cluster.client[Job].create(make(parallelism=1, completions=1))
        (pod,) = await active(cluster, 1)
        name = pod.metadata.name or ""
        assert FINALIZER in (pod.metadata.finalizers or ())
        patches: dict[str, Any] = {
            "labels": {"metadata": {"labels": {k: None for k in pod.metadata.labels or {}}}},
            "owner": {"metadata": {"ownerReferences": None, "labels": None}},
        }
        if how in patches:
            await cluster.client[Pod].patch(name, "default", patches[how])
        else:
            policy = "Orphan" if how == "orphan" else "Background"
            await cluster.client[Job].delete("j", "default", propagation_policy=policy)

        async def free() -> bool:
            pods = [p for p in await cluster.pods() if p.metadata.name == name]
            return all(FINALIZER not in (p.metadata.finalizers or ()) for p in pods)

        await cluster.until(free, 60)
        if how != "job is gone":
            await cluster.client[Pod].delete(name, "default")
        await cluster.until(lambda: gone(cluster, Pod, name), 60)
        if how in patches:
            assert len(await active(cluster, 1)) == 1  # the Job has another one

    run_cluster(test)


def test_an_adopted_pod_is_counted_too() -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.client[Job].create(make(parallelism=1, completions=1))
        (pod,) = await active(cluster, 1)
        name = pod.metadata.name or ""
        await cluster.client[Pod].patch(name, "default", {"metadata": {"ownerReferences": None, "finalizers": None}})

        async def tracked() -> bool:
            found = await cluster.client[Pod].get(name, "default")
            return FINALIZER in (found.metadata.finalizers or ()) and bool(found.metadata.owner_references)

        await cluster.until(tracked, 60)
        await end(cluster, pod, "Succeeded")
        assert (await finished(cluster, "Complete")).status.succeeded == 1

    run_cluster(test)
